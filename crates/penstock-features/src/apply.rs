//! Batches: rows are cut into chunks that fit the cache, threads take one after another, and each chunk writes its
//! own part of the result.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;

use crate::error::{ApplyError, RowError};
use crate::eval::State;
use crate::load;
use crate::output::{Form, Output, Part};
use crate::plan::Plan;
use crate::row::first_error;

/// A chunk's working memory (some 16 bytes a row and source) stays in the second-level cache.
pub(crate) const CHUNK_ROWS: usize = 2048;

/// What becomes of rows that have no meaning under the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The first one is the error of the whole batch.
    Fail,
    /// They are left out and listed.
    Drop,
}

/// How to map a batch. `threads` 0 means every core.
#[derive(Debug, Clone)]
pub struct Options {
    pub keep: Vec<String>,
    pub form: Form,
    pub threads: usize,
    pub on_error: OnError,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep: Vec::new(),
            form: Form::Slots,
            threads: 0,
            on_error: OnError::Fail,
        }
    }
}

impl Plan {
    /// Map a batch: kept columns, then slots, then dense, in file order; and the rows left out, in order.
    ///
    /// The result is the same for any number of threads. Under `OnError::Fail` the error is the one of the first
    /// row that has any.
    pub fn apply(
        &self,
        batch: &RecordBatch,
        options: &Options,
    ) -> Result<(RecordBatch, Vec<RowError>), ApplyError> {
        let columns = self.batch_columns(batch)?;
        let kept = options
            .keep
            .iter()
            .map(|name| column(batch, name))
            .collect::<Result<Vec<_>, _>>()?;

        // A run over no rows checks the types and tells which slots are lists.
        let mut state = State::default();
        self.load(&columns, 0, 0, &mut state)?;
        state.run(self, 0)?;

        let rows = batch.num_rows();
        let mut output = Output::new(self, &state, options.form, rows);
        let mut errors = self.fill(&columns, &mut output, options, state)?;
        errors.sort_by_key(|error| error.row);
        if options.on_error == OnError::Fail
            && let Some(error) = first_error(&errors)
        {
            return Err(error.clone().into());
        }
        errors.dedup_by_key(|error| error.row);

        let names = options
            .keep
            .iter()
            .map(String::as_str)
            .zip(kept.into_iter().cloned());
        let mapped = output.finish(names, rows, options.threads)?;
        if errors.is_empty() {
            return Ok((mapped, errors));
        }
        let mut good = vec![true; rows];
        errors.iter().for_each(|error| good[error.row] = false);
        Ok((
            filter_record_batch(&mapped, &BooleanArray::from(good))?,
            errors,
        ))
    }

    /// Run every chunk. Chunks are taken in order and those taken are finished, so after a failure all rows before
    /// the failing one have been looked at.
    fn fill<'a>(
        &self,
        columns: &[&'a ArrayRef],
        output: &mut Output<'_>,
        options: &Options,
        first: State<'a>,
    ) -> Result<Vec<RowError>, ApplyError> {
        let stop_early = options.on_error == OnError::Fail;
        let parts = output.parts(CHUNK_ROWS);
        let chunks = parts.len();
        let queue = Mutex::new(parts.into_iter().enumerate());
        let errors = Mutex::new(Vec::new());
        let failed = Mutex::new(None);
        let stop = AtomicBool::new(false);
        let work = |mut state: State<'a>| {
            while !stop.load(Ordering::Relaxed) {
                let Some((chunk, mut part)) = lock(&queue).next() else {
                    return;
                };
                let start = chunk * CHUNK_ROWS;
                match self.chunk(columns, start, &mut part, &mut state) {
                    Err(error) => {
                        lock(&failed).get_or_insert(error);
                        stop.store(true, Ordering::Relaxed);
                    }
                    Ok(()) if !state.errors.is_empty() => {
                        let moved = state.errors.drain(..).map(|error| RowError {
                            row: error.row + start,
                            ..error
                        });
                        lock(&errors).extend(moved);
                        stop.store(stop_early, Ordering::Relaxed);
                    }
                    Ok(()) => {}
                }
            }
        };
        let threads = threads(options.threads).min(chunks);
        if threads <= 1 {
            work(first);
        } else {
            rayon::scope(|scope| {
                for _ in 1..threads {
                    scope.spawn(|_| work(State::default()));
                }
                work(first);
            });
        }
        match into_inner(failed) {
            Some(error) => Err(error),
            None => Ok(into_inner(errors)),
        }
    }

    fn chunk<'a>(
        &self,
        columns: &[&'a ArrayRef],
        start: usize,
        part: &mut Part<'_>,
        state: &mut State<'a>,
    ) -> Result<(), ApplyError> {
        self.load(columns, start, part.rows(), state)?;
        state.run(self, part.rows())?;
        part.write(self, state);
        Ok(())
    }

    /// The raw columns it reads, in the order of `columns()`.
    pub(crate) fn batch_columns<'b>(
        &self,
        batch: &'b RecordBatch,
    ) -> Result<Vec<&'b ArrayRef>, ApplyError> {
        self.columns
            .iter()
            .map(|name| column(batch, name))
            .collect()
    }

    pub(crate) fn load<'a>(
        &self,
        columns: &[&'a ArrayRef],
        start: usize,
        rows: usize,
        state: &mut State<'a>,
    ) -> Result<(), ApplyError> {
        state.prepare(self);
        for ((array, block), name) in columns
            .iter()
            .copied()
            .zip(&mut state.blocks)
            .zip(&self.columns)
        {
            load::column(array.as_ref(), start, rows, block).map_err(|reason| {
                ApplyError::Column {
                    column: name.clone(),
                    reason,
                }
            })?;
        }
        Ok(())
    }
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef, ApplyError> {
    batch
        .column_by_name(name)
        .ok_or_else(|| ApplyError::MissingColumn(name.into()))
}

pub(crate) fn threads(asked: usize) -> usize {
    if asked == 0 {
        rayon::current_num_threads()
    } else {
        asked
    }
}

/// A worker that panicked has left nothing half-written that is read afterwards.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
