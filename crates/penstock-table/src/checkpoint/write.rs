//! How a checkpoint writes a cut.

use std::collections::BTreeMap;

use super::facts::{self, SAME};
use crate::artefact::{Kind, Pairs, Result, Section, Writer};
use crate::config::TableConfig;
use crate::cut::{Bucket, Encode, StoreCut};
use crate::store::Store;

pub(crate) struct Encoding {
    facts: Pairs,
    configs: Vec<TableConfig>,
    pub sections: BTreeMap<String, Vec<u8>>,
}

impl Encoding {
    pub fn new(
        store: &Store,
        plan: &str,
        id: &str,
        sequence: u64,
        parent: Option<(u64, u64)>,
    ) -> Encoding {
        let mut facts = Pairs::default();
        facts.add("cut", id);
        facts.add("sequence", sequence);
        if let Some((sequence, identity)) = parent {
            facts.add("parent", sequence);
            facts.add("parent identity", identity);
        }
        for (name, value) in facts::identity(store, plan).under("") {
            facts.add(format!("{SAME}{name}"), value);
        }
        Encoding {
            facts,
            configs: store
                .tables()
                .iter()
                .map(|table| table.config().clone())
                .collect(),
            sections: BTreeMap::new(),
        }
    }
}

impl Encode for Encoding {
    const KIND: Kind = Kind::Checkpoint;

    fn begin(&mut self, cut: &StoreCut, writer: &mut Writer) -> Result<()> {
        writer.section(Section::Facts, 0, 0, 1, &self.facts.bytes())?;
        for (number, (config, cut)) in self.configs.iter().zip(&cut.cuts).enumerate() {
            writer.section(
                Section::Table,
                number,
                0,
                1,
                &facts::table(config, cut).bytes(),
            )?;
            let grown = (0u32..).zip(&cut.lines).filter(|(_, lines)| **lines > 1);
            let words = grown.flat_map(|(bucket, &lines)| [bucket, lines]);
            let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
            writer.section(Section::Lines, number, 0, bytes.len() / 8, &bytes)?;
        }
        Ok(())
    }

    fn bucket(
        &mut self,
        _: &Store,
        table: usize,
        bucket: &Bucket,
        writer: &mut Writer,
    ) -> Result<()> {
        if let Some(sketch) = &bucket.sketch
            && sketch.iter().any(|&byte| byte != 0)
        {
            let shard = bucket.number / crate::index::BUCKETS_A_SHARD;
            writer.section(
                Section::Sketch,
                table,
                shard,
                sketch.len() / crate::sketch::LINE,
                sketch,
            )?;
        }
        if bucket.rows > 0 {
            writer.section(
                Section::Rows,
                table,
                bucket.number,
                bucket.rows,
                &bucket.records,
            )?;
        }
        if !bucket.gone.is_empty() {
            let mut bytes = Vec::with_capacity(bucket.gone.len() * 16);
            for (hash, epoch) in &bucket.gone {
                bytes.extend(hash.to_le_bytes());
                bytes.extend(u64::from(*epoch).to_le_bytes());
            }
            writer.section(
                Section::Gone,
                table,
                bucket.number,
                bucket.gone.len(),
                &bytes,
            )?;
        }
        Ok(())
    }

    fn end(&mut self, writer: &mut Writer) -> Result<()> {
        for (number, (name, bytes)) in self.sections.iter().enumerate() {
            let mut section = (name.len() as u32).to_le_bytes().to_vec();
            section.extend(name.as_bytes());
            section.extend(bytes);
            writer.section(Section::Opaque, 0, number, 1, &section)?;
        }
        Ok(())
    }
}
