//! How a snapshot writes a cut.

use super::{ALIGN, block_bits, block_of};
use crate::artefact::{Kind, Pairs, Result, Section, Writer};
use crate::checkpoint::{SAME, identity};
use crate::config::{Missing, TableConfig};
use crate::cut::{Bucket, Encode, Records, StoreCut};
use crate::init::Init;
use crate::store::Store;

pub(crate) struct Encoding {
    facts: Pairs,
    tables: Vec<Pairs>,
    bits: Vec<u32>,
    pub epochs: Vec<u32>,
    /// Of the block that is being written.
    hashes: Vec<u8>,
    values: Vec<u8>,
}

impl Encoding {
    pub fn new(store: &Store, plan: &str, cut: &StoreCut) -> Encoding {
        let mut facts = Pairs::default();
        for (name, value) in identity(store, plan).under("") {
            facts.add(format!("{SAME}{name}"), value);
        }
        let (mut tables, mut bits) = (Vec::new(), Vec::new());
        for (table, cut) in store.tables().iter().zip(&cut.cuts) {
            let row_bytes = 8 + table.shared.layout.value_stride as u64;
            bits.push(block_bits(cut.rows, row_bytes));
            tables.push(self::table(
                table.config(),
                cut.clock.epoch,
                bits[bits.len() - 1],
                cut.rows,
            ));
        }
        Encoding {
            facts,
            tables,
            bits,
            epochs: cut.cuts.iter().map(|cut| cut.clock.epoch).collect(),
            hashes: Vec::new(),
            values: Vec::new(),
        }
    }
}

/// What a reader needs of a table.
fn table(config: &TableConfig, epoch: u32, bits: u32, rows: u64) -> Pairs {
    let mut pairs = Pairs::default();
    pairs.add(format!("{SAME}dim"), config.dim);
    pairs.add(format!("{SAME}values"), format!("{:?}", config.dtype));
    pairs.add("epoch", epoch);
    pairs.add("rows", rows);
    pairs.add("block bits", bits);
    let (missing, numbers) = match (config.missing(), config.init) {
        (Missing::Zeros, _) => ("zeros", [0.0; 2]),
        (Missing::Init, Init::Constant(x)) => ("constant", [x, 0.0]),
        (Missing::Init, Init::Uniform { low, high }) => ("uniform", [low, high]),
        (Missing::Init, Init::Normal { mean, deviation }) => ("normal", [mean, deviation]),
        (Missing::Init, Init::Truncated { mean, deviation }) => ("truncated", [mean, deviation]),
    };
    pairs.add("missing", missing);
    pairs.add("missing first bits", numbers[0].to_bits());
    pairs.add("missing second bits", numbers[1].to_bits());
    pairs.add("seed", config.seed);
    pairs
}

impl Encode for Encoding {
    const KIND: Kind = Kind::Snapshot;

    fn begin(&mut self, _: &StoreCut, writer: &mut Writer) -> Result<()> {
        writer.section(Section::Facts, 0, 0, 1, &self.facts.bytes())?;
        for (number, pairs) in self.tables.iter().enumerate() {
            writer.section(Section::Table, number, 0, 1, &pairs.bytes())?;
        }
        Ok(())
    }

    fn bucket(
        &mut self,
        store: &Store,
        table: usize,
        bucket: &Bucket,
        writer: &mut Writer,
    ) -> Result<()> {
        let records = Records::of(&store.tables()[table].shared.layout);
        let bits = self.bits[table];
        let mut left = bucket.records.chunks_exact(records.size()).peekable();
        while let Some(first) = left.peek() {
            let block = block_of(records.hash(first), bits);
            self.hashes.clear();
            self.values.clear();
            while let Some(record) =
                left.next_if(|record| block_of(records.hash(record), bits) == block)
            {
                self.hashes.extend(records.hash(record).to_le_bytes());
                self.values.extend(records.values(record));
            }
            let rows = self.hashes.len() / 8;
            self.hashes
                .resize(self.hashes.len().next_multiple_of(ALIGN), 0);
            self.hashes.extend_from_slice(&self.values);
            writer.section(Section::Block, table, block, rows, &self.hashes)?;
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Writer) -> Result<()> {
        Ok(())
    }
}
