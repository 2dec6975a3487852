//! Batches: rows are cut into runs that threads take one after another, and a run into chunks that fit the cache.
//! Each run becomes a batch of its own, so nothing is written twice or moved.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_select::concat::concat_batches;
use arrow_select::filter::filter_record_batch;

use crate::error::{ApplyError, RowError};
use crate::eval::State;
use crate::load;
use crate::output::{Form, Output};
use crate::plan::Plan;

/// A chunk's working memory (some 16 bytes a row and source) stays in the second-level cache.
pub(crate) const CHUNK_ROWS: usize = 512;
/// The most rows of a run, whose columns are allocated at once.
const RUN_ROWS: usize = 64 * 1024;

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

/// The mapped rows: a batch a run, in order, and the rows left out, in order.
pub type Mapped = (Vec<RecordBatch>, Vec<RowError>);

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
        let (mut batches, errors) = self.apply_in_runs(batch, options)?;
        let mapped = if batches.len() == 1 {
            batches.swap_remove(0)
        } else {
            concat_batches(&batches[0].schema(), &batches)?
        };
        Ok((mapped, errors))
    }

    /// As `apply`, without putting the runs together: where rows are cut depends on their number and on the threads.
    pub fn apply_in_runs(
        &self,
        batch: &RecordBatch,
        options: &Options,
    ) -> Result<Mapped, ApplyError> {
        let columns = self.batch_columns(batch)?;
        let kept = options
            .keep
            .iter()
            .map(|name| Ok((name.as_str(), column(batch, name)?)))
            .collect::<Result<Vec<_>, ApplyError>>()?;

        // A run over no rows checks the types and tells which slots are lists.
        let mut probe = State::default();
        self.load(&columns, 0, 0, &mut probe)?;
        probe.run(self, 0)?;

        let rows = batch.num_rows();
        let threads = threads(options.threads);
        let size = run_size(rows, threads);
        let runs = rows.div_ceil(size).max(1);
        let job = Job {
            plan: self,
            columns,
            kept,
            options,
            one_each: OffsetBuffer::new(ScalarBuffer::from_iter(0..=size as i64)),
            probe,
        };
        let next = Mutex::new(0..runs);
        let done = Mutex::new(Vec::with_capacity(runs));
        let stop = AtomicBool::new(false);
        let work = || {
            let mut state = State::default();
            while !stop.load(Ordering::Relaxed) {
                let Some(run) = lock(&next).next() else {
                    return;
                };
                let start = run * size;
                let result = job.run(start, size.min(rows - start), &mut state);
                let failed = result.as_ref().map_or(true, |(_, errors)| {
                    options.on_error == OnError::Fail && !errors.is_empty()
                });
                // Runs are taken in order and those taken are finished, so all rows before the failing one are seen.
                stop.fetch_or(failed, Ordering::Relaxed);
                lock(&done).push((run, result));
            }
        };
        if threads.min(runs) <= 1 {
            work();
        } else {
            rayon::scope(|scope| {
                (1..threads.min(runs)).for_each(|_| scope.spawn(|_| work()));
                work();
            });
        }
        let mut done = into_inner(done);
        done.sort_unstable_by_key(|(run, _)| *run);
        let (mut batches, mut errors) = (Vec::with_capacity(runs), Vec::new());
        for (_, result) in done {
            let (mapped, bad) = result?;
            batches.push(mapped);
            errors.extend(bad);
            if options.on_error == OnError::Fail && !errors.is_empty() {
                return Err(errors.swap_remove(0).into());
            }
        }
        Ok((batches, errors))
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

/// Runs as long as they may be, as many for each thread.
fn run_size(rows: usize, threads: usize) -> usize {
    let runs = rows.div_ceil(RUN_ROWS).max(1).next_multiple_of(threads);
    rows.div_ceil(runs)
        .next_multiple_of(CHUNK_ROWS)
        .clamp(CHUNK_ROWS, RUN_ROWS)
}

/// One call of `apply`: what every run of rows needs.
struct Job<'j, 'a> {
    plan: &'j Plan,
    columns: Vec<&'a ArrayRef>,
    kept: Vec<(&'j str, &'a ArrayRef)>,
    options: &'j Options,
    /// The list offsets of a run in which each row has one key.
    one_each: OffsetBuffer<i64>,
    probe: State<'a>,
}

impl<'a> Job<'_, 'a> {
    /// Map `rows` rows from `start`. The errors are the first of each bad row, in order, numbered in the batch.
    fn run(
        &self,
        start: usize,
        rows: usize,
        state: &mut State<'a>,
    ) -> Result<(RecordBatch, Vec<RowError>), ApplyError> {
        let mut output = Output::new(self.plan, &self.probe, self.options.form, rows);
        let mut errors: Vec<RowError> = Vec::new();
        for chunk in (0..rows).step_by(CHUNK_ROWS) {
            let size = CHUNK_ROWS.min(rows - chunk);
            self.plan.load(&self.columns, start + chunk, size, state)?;
            state.run(self.plan, size)?;
            output.append(state, size);
            errors.extend(state.errors.drain(..).map(|error| RowError {
                row: error.row + chunk,
                ..error
            }));
            if self.options.on_error == OnError::Fail && !errors.is_empty() {
                break;
            }
        }
        errors.sort_by_key(|error| error.row);
        errors.dedup_by_key(|error| error.row);
        let done = output.rows();
        let kept = self.kept.iter();
        let mapped = output.finish(
            kept.map(|(name, array)| (*name, array.slice(start, done))),
            &self.one_each,
        )?;
        if errors.is_empty() {
            return Ok((mapped, errors));
        }
        let mut good = vec![true; done];
        errors.iter().for_each(|error| good[error.row] = false);
        let mapped = filter_record_batch(&mapped, &BooleanArray::from(good))?;
        errors.iter_mut().for_each(|error| error.row += start);
        Ok((mapped, errors))
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
