//! A row as a checkpoint has it: hash, epoch of its last change, count, last-seen, version, score, state, values.

use crate::artefact::{long, word};
use crate::half::Dtype;
use crate::parts::RowParts;
use crate::rows::{COUNT, LAST_SEEN, LOCATOR, Layout, Row};

/// Hash and epoch come before the row's own words.
const HEAD: usize = 12;
const EPOCH_AT: usize = 8;

fn words_after_locator(layout: &Layout) -> usize {
    layout.side_stride / 4 - (LOCATOR + 1)
}

pub fn size(layout: &Layout) -> usize {
    HEAD + layout.side_stride - 4 + layout.value_stride.next_multiple_of(4)
}

/// Appends a present row, with `number` where its epoch goes. The caller keeps writers away.
pub fn write(layout: &Layout, hash: u64, number: u32, row: Row, out: &mut Vec<u8>) {
    let end = out.len() + size(layout);
    out.extend(hash.to_le_bytes());
    out.extend(number.to_le_bytes());
    // SAFETY: a present row of a table of this layout; its side and values have these lengths, and nobody writes meanwhile.
    unsafe {
        out.extend(row.get(COUNT).to_le_bytes());
        out.extend(row.get(LAST_SEEN).to_le_bytes());
        let rest = row.side.add(LOCATOR + 1).cast::<u8>();
        out.extend_from_slice(std::slice::from_raw_parts(
            rest,
            4 * words_after_locator(layout),
        ));
        out.extend_from_slice(std::slice::from_raw_parts(row.values, layout.value_stride));
    }
    out.resize(end, 0);
}

/// Puts a record's words and values into a row that was attached for its hash.
///
/// # Safety
/// The row is allocated in a table of this layout, nobody else uses it, and the record has this layout's size.
pub unsafe fn restore(layout: &Layout, record: &[u8], row: Row) {
    assert_eq!(record.len(), size(layout));
    let after = HEAD + 8;
    let bytes = 4 * words_after_locator(layout);
    // SAFETY: lengths as in `write`, the record's was checked, and the caller's promise.
    unsafe {
        row.set(COUNT, word(record, HEAD));
        row.set(LAST_SEEN, word(record, HEAD + 4));
        let rest = row.side.add(LOCATOR + 1).cast::<u8>();
        rest.copy_from_nonoverlapping(record[after..].as_ptr(), bytes);
        row.values
            .copy_from_nonoverlapping(record[after + bytes..].as_ptr(), layout.value_stride);
    }
}

pub fn hash(record: &[u8]) -> u64 {
    long(record, 0)
}

pub fn epoch(record: &[u8]) -> u32 {
    word(record, EPOCH_AT)
}

pub fn set_epoch(record: &mut [u8], epoch: u32) {
    record[EPOCH_AT..HEAD].copy_from_slice(&epoch.to_le_bytes());
}

/// Records one after another.
pub(crate) struct Records {
    size: usize,
    values_at: usize,
    values: usize,
    layout: Layout,
}

impl Records {
    pub fn of(layout: &Layout) -> Records {
        Records {
            size: size(layout),
            values_at: HEAD + layout.side_stride - 4,
            values: layout.value_stride,
            layout: *layout,
        }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// The values of a record, as stored.
    pub fn values<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        &record[self.values_at..][..self.values]
    }

    pub fn hash(&self, record: &[u8]) -> u64 {
        hash(record)
    }

    /// A record as the parts of its row.
    pub fn parts(&self, record: &[u8]) -> RowParts {
        let side = |at: usize| word(record, HEAD + 4 * at);
        // In a record the locator's word is left out.
        let after = |at: usize| side(at - 1);
        let Layout {
            version,
            score,
            state,
            state_len,
            ..
        } = self.layout;
        let stored = self.values(record);
        let values = match self.layout.dtype {
            Dtype::F32 => {
                let words = stored.as_chunks::<4>().0;
                words.iter().map(|word| f32::from_le_bytes(*word)).collect()
            }
            half => {
                let halves = stored.as_chunks::<2>().0.iter();
                halves
                    .map(|stored| half.widen(u16::from_le_bytes(*stored)))
                    .collect()
            }
        };
        RowParts {
            values,
            state: (state..state + state_len)
                .map(|at| f32::from_bits(after(at)))
                .collect(),
            count: side(COUNT),
            last_seen_s: side(LAST_SEEN),
            version: version.map_or(0, after),
            score: score.map_or(0.0, |score| f32::from_bits(after(score))),
        }
    }
}
