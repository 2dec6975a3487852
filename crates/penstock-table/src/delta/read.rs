//! Records read: every length is checked before it is used, every byte is under the checksum.

use xxhash_rust::xxh3::xxh3_64;

use super::{
    BASE, BEGIN, BLOCK_HEAD, COMMIT, DENSE, DeltaError, F16, F32, HEAD, MAGIC, MOST_BYTES, Mark,
    ROWS, SUMMED, VERSION, checksum, write,
};
use crate::artefact::{long, word};
use crate::config::MAX_DIM;
use crate::half::Dtype;

type Result<T> = std::result::Result<T, DeltaError>;

/// Dense weights may have so many dimensions.
const MOST_DIMENSIONS: usize = 8;
/// Values of a dense weight: a gigabyte.
const MOST_WEIGHT: u64 = 1 << 28;

/// One record of a chain, sound in itself.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub mark: Mark,
    pub content: Content<'a>,
    /// The body's checksum: what a commit record sums up.
    pub sum: u64,
}

#[derive(Clone, Debug)]
pub enum Content<'a> {
    Rows {
        part: u32,
        blocks: Vec<Block<'a>>,
    },
    Dense {
        part: u32,
        weights: Vec<Weight<'a>>,
    },
    Commit(Commit<'a>),
    /// Model, plan, base, and what the writer added.
    Base([&'a str; 4]),
    Begin([&'a str; 4]),
}

/// Rows and gone keys of one table.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    pub table: usize,
    pub dim: usize,
    half: bool,
    keys: &'a [u8],
    values: &'a [u8],
    gone: &'a [u8],
}

/// A dense weight or a slice of one: its name, its shape, and the values from place `first` on (f32, little-endian).
#[derive(Clone, Debug)]
pub struct Weight<'a> {
    pub name: &'a str,
    pub shape: Vec<u64>,
    pub first: usize,
    pub values: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    pub parts: u32,
    checksum: u64,
    pub rows: u64,
    pub gone: u64,
    pub model: &'a str,
    pub plan: &'a str,
    pub base: &'a str,
    pub more: &'a str,
}

impl Commit<'_> {
    /// Whether these bodies' sums, in the order of their parts, are what was committed.
    pub fn covers(&self, sums: &[u64]) -> bool {
        sums.len() == self.parts as usize && write::sum(sums.iter().copied()) == self.checksum
    }
}

impl<'a> Record<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Record<'a>> {
        if bytes.len() < HEAD || &bytes[..8] != MAGIC {
            return Err(DeltaError::Foreign);
        }
        let version = short(bytes, 8);
        if version != VERSION {
            return Err(DeltaError::Version { found: version });
        }
        let (head, body) = (&bytes[..SUMMED], &bytes[HEAD..]);
        if bytes.len() > MOST_BYTES || word(bytes, 48) as usize != body.len() {
            return Err(DeltaError::Damaged("its length is not what it says"));
        }
        if checksum(head, body) != long(bytes, SUMMED) {
            return Err(DeltaError::Damaged("its checksum is another"));
        }
        let mark = Mark {
            generation: long(bytes, 16),
            from: long(bytes, 24),
            to: long(bytes, 32),
            writer: long(bytes, 40),
        };
        let part = word(bytes, 12);
        let content = match short(bytes, 10) {
            ROWS => Content::Rows {
                part,
                blocks: blocks(body)?,
            },
            DENSE => Content::Dense {
                part,
                weights: weights(body)?,
            },
            COMMIT => Content::Commit(committed(part, mark, body)?),
            BASE => Content::Base(texts(body)?),
            BEGIN => Content::Begin(texts(body)?),
            _ => return Err(DeltaError::Damaged("it is of no known kind")),
        };
        let sum = xxh3_64(body);
        Ok(Record { mark, content, sum })
    }
}

impl<'a> Block<'a> {
    pub fn rows(&self) -> usize {
        self.keys.len() / 8
    }

    /// The keys that have a row, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.keys.as_chunks::<8>().0.iter().map(key)
    }

    pub fn gone(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.gone.as_chunks::<8>().0.iter().map(key)
    }

    /// The values of row `row` into `out`, which has the block's dim.
    #[inline]
    pub fn load(&self, row: usize, out: &mut [f32]) {
        if self.half {
            let stored = &self.values[row * self.dim * 2..][..self.dim * 2];
            for (out, stored) in out.iter_mut().zip(stored.as_chunks::<2>().0) {
                *out = Dtype::F16.widen(u16::from_le_bytes(*stored));
            }
        } else {
            let stored = &self.values[row * self.dim * 4..][..self.dim * 4];
            for (out, stored) in out.iter_mut().zip(stored.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*stored);
            }
        }
    }

    fn check(&self) -> Result<()> {
        let mut row = vec![0.0; self.dim];
        for (number, key) in self.keys().enumerate() {
            self.load(number, &mut row);
            if row.iter().any(|value| !value.is_finite()) {
                let table = self.table as u32;
                return Err(DeltaError::NotFinite { table, key });
            }
        }
        Ok(())
    }
}

fn key(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The first `count` bytes, taken off.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let (taken, others) = rest
        .split_at_checked(count)
        .ok_or(DeltaError::Damaged("something in it is longer than it"))?;
    *rest = others;
    Ok(taken)
}

fn blocks(mut rest: &[u8]) -> Result<Vec<Block<'_>>> {
    let mut found = vec![];
    while !rest.is_empty() {
        let head = take(&mut rest, BLOCK_HEAD)?;
        let [table, dim, kind, rows, gone] = [0, 4, 8, 12, 16].map(|at| word(head, at) as usize);
        let half = match kind as u32 {
            F32 => false,
            F16 => true,
            _ => return Err(DeltaError::Damaged("its values are of no known type")),
        };
        if !(1..=MAX_DIM).contains(&dim) {
            return Err(DeltaError::Damaged("its rows are of no possible width"));
        }
        let keys = take(&mut rest, rows * 8)?;
        let values = take(&mut rest, rows * dim * if half { 2 } else { 4 })?;
        let gone = take(&mut rest, gone * 8)?;
        let block = Block {
            table,
            dim,
            half,
            keys,
            values,
            gone,
        };
        block.check()?;
        found.push(block);
    }
    Ok(found)
}

fn weights(mut rest: &[u8]) -> Result<Vec<Weight<'_>>> {
    let mut found = vec![];
    while !rest.is_empty() {
        let name = text(&mut rest)?;
        let dimensions = word(take(&mut rest, 4)?, 0) as usize;
        if dimensions > MOST_DIMENSIONS {
            return Err(DeltaError::Damaged("a weight has too many dimensions"));
        }
        let shape = take(&mut rest, dimensions * 8)?;
        let shape: Vec<u64> = shape.as_chunks::<8>().0.iter().map(key).collect();
        let whole = shape
            .iter()
            .try_fold(1_u64, |count, &n| count.checked_mul(n))
            .filter(|&count| count <= MOST_WEIGHT)
            .ok_or(DeltaError::Damaged("a weight is larger than any"))?;
        let slice = take(&mut rest, 16)?;
        let (first, count) = (long(slice, 0), long(slice, 8));
        if first.checked_add(count).is_none_or(|end| end > whole) {
            return Err(DeltaError::Damaged(
                "a weight has more values than its shape",
            ));
        }
        let values = take(&mut rest, 4 * count as usize)?;
        let finite = |value: &[u8; 4]| f32::from_le_bytes(*value).is_finite();
        if !values.as_chunks::<4>().0.iter().all(finite) {
            return Err(DeltaError::WeightNotFinite(name.into()));
        }
        found.push(Weight {
            name,
            shape,
            first: first as usize,
            values,
        });
    }
    Ok(found)
}

fn committed(parts: u32, mark: Mark, mut body: &[u8]) -> Result<Commit<'_>> {
    if mark.from == 0 || mark.from > mark.to {
        return Err(DeltaError::Damaged("its sequence numbers are none"));
    }
    let head = take(&mut body, 24)?;
    let [model, plan, base, more] = texts(body)?;
    Ok(Commit {
        parts,
        checksum: long(head, 0),
        rows: long(head, 8),
        gone: long(head, 16),
        model,
        plan,
        base,
        more,
    })
}

fn texts(mut body: &[u8]) -> Result<[&str; 4]> {
    let mut found = [""; 4];
    for one in &mut found {
        *one = text(&mut body)?;
    }
    match body.is_empty() {
        true => Ok(found),
        false => Err(DeltaError::Damaged("it says more than it may")),
    }
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str> {
    let length = word(take(rest, 4)?, 0) as usize;
    let bytes = take(rest, length)?;
    std::str::from_utf8(bytes).map_err(|_| DeltaError::Damaged("a text in it is none"))
}
