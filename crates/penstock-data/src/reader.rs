//! Files read in order, chunks parsed on several threads, batches given back in the files' order.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use arrow_array::ArrayRef;
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::Schema;

use crate::chunk::{Chunk, Chunker};
use crate::error::{ReadError, Reject};
use crate::record::Dialect;
use crate::source::{self, Encoding};

/// A file to read: its name (for the suffix) and how to open it, called when its turn comes.
pub struct FileSpec {
    pub name: String,
    pub open: Box<dyn FnOnce() -> io::Result<Box<dyn Read + Send>> + Send>,
}

/// The rows of one chunk.
#[derive(Debug)]
pub struct Parsed {
    pub file: usize,
    pub batch: RecordBatch,
    pub rejects: Vec<Reject>,
}

impl Parsed {
    /// The columns of one chunk made a batch; `rows` counts them also where no column is wanted.
    pub(crate) fn new(
        file: usize,
        schema: Arc<Schema>,
        columns: Vec<ArrayRef>,
        rows: usize,
        rejects: Vec<Reject>,
    ) -> Result<Parsed, ReadError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch =
            RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| {
                ReadError::Damaged {
                    file,
                    reason: error.to_string(),
                }
            })?;
        Ok(Parsed {
            file,
            batch,
            rejects,
        })
    }
}

/// A text format: how records are cut, and how a chunk of them becomes a batch.
pub trait Format: Send + Sync + 'static {
    /// What the beginning of a file tells about the rest of it (a CSV's header).
    type Context: Send + Sync + 'static;

    /// None: a record is a line.
    fn dialect(&self) -> Option<Dialect> {
        None
    }

    /// Look at a file's first chunk, and take its header off.
    fn begin(&self, first: &mut Chunk) -> Result<Self::Context, ReadError>;

    fn parse(&self, chunk: &Chunk, context: &Self::Context) -> Result<Parsed, ReadError>;
}

/// Cuts the files one after another.
struct Cutter<F: Format> {
    format: Arc<F>,
    files: VecDeque<(usize, FileSpec)>,
    encoding: Encoding,
    current: Option<(Chunker, Option<Arc<F::Context>>)>,
}

/// A chunk with what its format learnt from the head of its file.
type Piece<F> = (Chunk, Arc<<F as Format>::Context>);

impl<F: Format> Cutter<F> {
    fn next(&mut self) -> Result<Option<Piece<F>>, ReadError> {
        loop {
            if self.current.is_none() {
                let Some((file, spec)) = self.files.pop_front() else {
                    return Ok(None);
                };
                let io_error = |error| ReadError::Io { file, error };
                let raw = (spec.open)().map_err(io_error)?;
                let text = source::open(raw, &spec.name, self.encoding).map_err(io_error)?;
                self.current = Some((Chunker::new(text, file, self.format.dialect()), None));
            }
            if let Some((chunker, context)) = self.current.as_mut() {
                if let Some(mut chunk) = chunker.next_chunk()? {
                    let known = match context {
                        Some(known) => known.clone(),
                        None => context
                            .insert(Arc::new(self.format.begin(&mut chunk)?))
                            .clone(),
                    };
                    return Ok(Some((chunk, known)));
                }
                self.current = None;
            }
        }
    }
}

type Cut<F> = Result<Piece<F>, ReadError>;

enum Work<F: Format> {
    /// One thread: everything happens in `next`.
    Inline(Box<Cutter<F>>),
    /// A thread reads and cuts ahead, rayon parses, `next` takes the results in order.
    Threaded {
        chunks: Receiver<Cut<F>>,
        parsing: VecDeque<Receiver<Result<Parsed, ReadError>>>,
        depth: usize,
    },
}

/// Iterates over the batches of all files. After an error it ends.
pub struct Reader<F: Format> {
    format: Arc<F>,
    work: Option<Work<F>>,
}

impl<F: Format> Reader<F> {
    pub fn new(format: F, files: Vec<FileSpec>, encoding: Encoding, threads: usize) -> Self {
        let format = Arc::new(format);
        let files = files.into_iter().enumerate().collect();
        let mut cutter = Cutter {
            format: format.clone(),
            files,
            encoding,
            current: None,
        };
        if threads <= 1 {
            return Self {
                format,
                work: Some(Work::Inline(Box::new(cutter))),
            };
        }
        let (send, chunks): (SyncSender<Cut<F>>, _) = sync_channel(2);
        thread::spawn(move || {
            while let Some(cut) = cutter.next().transpose() {
                let failed = cut.is_err();
                if send.send(cut).is_err() || failed {
                    return;
                }
            }
        });
        Self {
            format,
            work: Some(Work::Threaded {
                chunks,
                parsing: VecDeque::new(),
                depth: threads + 1,
            }),
        }
    }

    fn advance(&mut self) -> Option<Result<Parsed, ReadError>> {
        match self.work.as_mut()? {
            Work::Inline(cutter) => match cutter.next().transpose()? {
                Ok((chunk, context)) => Some(self.format.parse(&chunk, &context)),
                Err(error) => Some(Err(error)),
            },
            Work::Threaded {
                chunks,
                parsing,
                depth,
            } => {
                while parsing.len() < *depth {
                    // Wait for a chunk only when there is nothing else to wait for.
                    let cut = if parsing.is_empty() {
                        chunks.recv().ok()
                    } else {
                        chunks.try_recv().ok()
                    };
                    let Some(cut) = cut else { break };
                    let (send, result) = sync_channel(1);
                    match cut {
                        Ok((chunk, context)) => {
                            let format = self.format.clone();
                            rayon::spawn(move || {
                                let _ = send.send(format.parse(&chunk, &context));
                            });
                        }
                        Err(error) => {
                            let _ = send.send(Err(error));
                        }
                    }
                    parsing.push_back(result);
                }
                parsing.pop_front()?.recv().ok()
            }
        }
    }
}

impl<F: Format> Iterator for Reader<F> {
    type Item = Result<Parsed, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance();
        if !matches!(item, Some(Ok(_))) {
            self.work = None;
        }
        item
    }
}
