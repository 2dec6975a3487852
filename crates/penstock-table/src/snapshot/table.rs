//! One table of a snapshot: what its facts say, and where its blocks are.

use super::place::Place;
use super::values_at;
use crate::artefact::{Entry, Frame, Pairs, Result, Section, damaged};
use crate::checkpoint::SAME;
use crate::half::Dtype;
use crate::hash::BUCKET_BITS;
use crate::init::Init;

/// One table of a snapshot.
pub struct SnapshotTable {
    pub name: String,
    pub dim: usize,
    pub dtype: Dtype,
    pub rows: u64,
    /// Changes from this epoch of the table on are not in it.
    pub epoch: u32,
    missing: Option<Init>,
    seed: u64,
    pub(super) bits: u32,
    pub(super) blocks: Vec<Place>,
}

impl SnapshotTable {
    pub(super) fn read(
        frame: &Frame,
        number: usize,
        name: &str,
        pairs: &Pairs,
    ) -> Result<SnapshotTable> {
        let file = &*frame.name;
        let section = format!("table facts {number}");
        let bad = |what: &str| damaged(file, &*section, what);
        let dim: usize = pairs.number(file, &section, &format!("{SAME}dim"))?;
        let dtype = pairs
            .get(&format!("{SAME}values"))
            .and_then(Dtype::named)
            .ok_or_else(|| bad("its values are of no known type"))?;
        let bits: u32 = pairs.number(file, &section, "block bits")?;
        if !(1..=crate::MAX_DIM).contains(&dim) || bits > 16 {
            return Err(bad("its dim or its blocks are out of range"));
        }
        let first = f32::from_bits(pairs.number(file, &section, "missing first bits")?);
        let second = f32::from_bits(pairs.number(file, &section, "missing second bits")?);
        let missing = match pairs.get("missing") {
            Some("zeros") => None,
            Some("constant") => Some(Init::Constant(first)),
            Some("uniform") => Some(Init::Uniform {
                low: first,
                high: second,
            }),
            Some("normal") => Some(Init::Normal {
                mean: first,
                deviation: second,
            }),
            Some("truncated") => Some(Init::Truncated {
                mean: first,
                deviation: second,
            }),
            _ => return Err(bad("what an absent key reads is not known")),
        };
        let mine =
            |entry: &&Entry| entry.section == Section::Block && entry.table as usize == number;
        // As many places as there are blocks at most: a small file cannot ask for a long list.
        let listed = frame.entries.iter().filter(mine).count();
        if bits > 0 && listed < 1 << (BUCKET_BITS + bits - 8) {
            return Err(bad("it says that it has more blocks than are there"));
        }
        let mut table = SnapshotTable {
            name: name.into(),
            dim,
            dtype,
            rows: pairs.number(file, &section, "rows")?,
            epoch: pairs.number(file, &section, "epoch")?,
            missing,
            seed: pairs.number(file, &section, "seed")?,
            bits,
            blocks: (0..1 << (BUCKET_BITS + bits))
                .map(|_| Place::default())
                .collect(),
        };
        let mut rows = 0;
        for (place, entry) in (0..).zip(&frame.entries).filter(|(_, entry)| mine(entry)) {
            let count = entry.count as usize;
            let bytes = values_at(count) as u64 + count as u64 * table.row_bytes() as u64;
            let block = table.blocks.get_mut(entry.number as usize);
            let Some(block) = block.filter(|block| block.entry().is_none() && bytes == entry.bytes)
            else {
                return Err(damaged(
                    file,
                    entry.name(),
                    "it is not a block of this table",
                ));
            };
            *block = Place::new(place, entry);
            rows += u64::from(entry.count);
        }
        if rows != table.rows {
            return Err(bad(&format!(
                "{rows} rows are listed, {} were written",
                table.rows
            )));
        }
        Ok(table)
    }

    #[inline(always)]
    pub(super) fn row_bytes(&self) -> usize {
        self.dim * self.dtype.size_bytes()
    }

    /// What a key without a row reads.
    pub(crate) fn missing(&self, hash: u64, out: &mut [f32]) {
        let Some(init) = self.missing else {
            return out.fill(0.0);
        };
        init.fill(hash, self.seed, out);
        if self.dtype != Dtype::F32 {
            for value in out {
                *value = self.dtype.widen(self.dtype.narrow(*value, 0x8000_0000));
            }
        }
    }

    #[inline(always)]
    pub(super) fn widen(&self, stored: &[u8], out: &mut [f32]) {
        if self.dtype == Dtype::F32 {
            for (out, stored) in out.iter_mut().zip(stored.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(*stored);
            }
        } else {
            for (out, stored) in out.iter_mut().zip(stored.as_chunks::<2>().0) {
                *out = self.dtype.widen(u16::from_le_bytes(*stored));
            }
        }
    }
}
