//! Opening a chain of cuts and filling a store from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::facts::{Moving, compared, identity, shape};
use super::file;
use crate::artefact::{
    ArtefactError, Frame, Kind, Pairs, Result, Section, damaged, io, long, word,
};
use crate::config::Admission;
use crate::cut::{Filling, Records};
use crate::disk::{Disk, Source};
use crate::error::TableError;
use crate::hash::{BUCKETS, bucket as bucket_of};
use crate::store::Store;
use crate::table::Table;

pub(super) struct Link {
    pub frame: Frame,
    pub source: Box<dyn Source>,
    pub facts: Pairs,
    sequence: u64,
}

/// A cut and those it builds on, each whole.
pub struct Checkpoint {
    /// The full one first.
    pub(super) links: Vec<Link>,
    plan: String,
}

impl Link {
    fn open(disk: &dyn Disk, sequence: u64) -> Result<Link> {
        let name = file(sequence);
        let source = disk.open(&name).map_err(io(&name, "opening it"))?;
        let frame = Frame::open(&name, Kind::Checkpoint, &*source)?;
        let facts = frame.pairs(&*source, Section::Facts, 0)?;
        if facts.number::<u64>(&name, "facts", "sequence")? != sequence {
            return Err(damaged(
                &name,
                "facts",
                "it is another cut's file under this name",
            ));
        }
        Ok(Link {
            frame,
            source,
            facts,
            sequence,
        })
    }

    /// A section's bytes, none if it is not there.
    pub fn read(&self, section: Section, table: usize, number: usize) -> Result<Vec<u8>> {
        match self.frame.find(section, table, number) {
            Some(entry) => self.frame.read(&*self.source, entry),
            None => Ok(Vec::new()),
        }
    }

    pub fn bad(&self, section: Section, table: usize, number: usize, what: &str) -> ArtefactError {
        let name = self
            .frame
            .find(section, table, number)
            .map_or("contents".into(), |entry| entry.name());
        damaged(&self.frame.name, name, what)
    }

    fn no_such_bucket(&self) -> ArtefactError {
        damaged(
            &self.frame.name,
            "contents",
            "there are 4,096 buckets and no more",
        )
    }

    /// The tombstones of a bucket.
    fn gone(&self, table: usize, bucket: usize) -> Result<Vec<(u64, u32)>> {
        let bytes = self.read(Section::Gone, table, bucket)?;
        let (gone, rest) = bytes.as_chunks::<16>();
        if !rest.is_empty() || gone.iter().any(|gone| bucket_of(long(gone, 0)) != bucket) {
            return Err(self.bad(
                Section::Gone,
                table,
                bucket,
                "it is not this bucket's tombstones",
            ));
        }
        Ok(gone
            .iter()
            .map(|gone| (long(gone, 0), word(gone, 8)))
            .collect())
    }

    /// The records of a bucket: whole ones, this bucket's, in order of hash.
    fn rows(&self, table: usize, bucket: usize, records: &Records) -> Result<Vec<u8>> {
        let bytes = self.read(Section::Rows, table, bucket)?;
        let each = bytes.chunks_exact(records.size());
        let sound = each.remainder().is_empty()
            && each
                .clone()
                .all(|record| bucket_of(records.hash(record)) == bucket)
            && each
                .clone()
                .zip(each.skip(1))
                .all(|(a, b)| records.hash(a) < records.hash(b));
        if sound {
            Ok(bytes)
        } else {
            Err(self.bad(Section::Rows, table, bucket, "it is not this bucket's rows"))
        }
    }
}

/// A bucket of a chain of cuts: records in order of hash, and the tombstones.
pub(super) struct Merged {
    pub rows: Vec<u8>,
    pub gone: Vec<(u64, u32)>,
}

impl Checkpoint {
    pub(super) fn open(disk: &dyn Disk, plan: &str, sequence: u64) -> Result<Checkpoint> {
        let mut links = vec![Link::open(disk, sequence)?];
        loop {
            let link = &links[links.len() - 1];
            if link.facts.get("parent").is_none() {
                break;
            }
            let name = &link.frame.name;
            let parent: u64 = link.facts.number(name, "facts", "parent")?;
            let wanted: u64 = link.facts.number(name, "facts", "parent identity")?;
            let missing = || ArtefactError::ParentMissing {
                file: name.clone(),
                parent: file(parent),
            };
            if parent >= link.sequence {
                return Err(damaged(name, "facts", "it builds on a later cut"));
            }
            let parent = match Link::open(disk, parent) {
                Err(ArtefactError::Io { error, .. })
                    if error.kind() == std::io::ErrorKind::NotFound =>
                {
                    return Err(missing());
                }
                parent => parent?,
            };
            if parent.frame.identity != wanted {
                return Err(missing());
            }
            links.push(parent);
        }
        links.reverse();
        Ok(Checkpoint {
            links,
            plan: plan.into(),
        })
    }

    pub(super) fn newest(&self) -> &Link {
        &self.links[self.links.len() - 1]
    }

    pub fn sequence(&self) -> u64 {
        self.newest().sequence
    }

    pub(super) fn identity(&self) -> u64 {
        self.newest().frame.identity
    }

    /// The name that `prepare` was given.
    pub fn cut_id(&self) -> &str {
        self.newest().facts.get("cut").unwrap_or_default()
    }

    /// The cuts it consists of, the full one first.
    pub fn chain(&self) -> Vec<u64> {
        self.links.iter().map(|link| link.sequence).collect()
    }

    /// The caller's sections.
    pub fn sections(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let link = self.newest();
        let mut sections = BTreeMap::new();
        for entry in link
            .frame
            .entries
            .iter()
            .filter(|entry| entry.section == Section::Opaque)
        {
            let bytes = link.frame.read(&*link.source, entry)?;
            let name = (|| {
                let length = word(bytes.get(..4)?, 0) as usize;
                std::str::from_utf8(bytes.get(4..)?.get(..length)?).ok()
            })();
            let Some(name) = name else {
                return Err(damaged(&link.frame.name, entry.name(), "it has no name"));
            };
            sections.insert(name.to_owned(), bytes[4 + name.len()..].to_vec());
        }
        Ok(sections)
    }

    /// Reads every section of every file.
    pub fn verify(&self) -> Result<()> {
        for link in &self.links {
            for entry in &link.frame.entries {
                link.frame.read(&*link.source, entry)?;
            }
        }
        Ok(())
    }

    /// Fills a store that was declared as the checkpoint's was and has no rows yet, with the rows of these of the 4,096
    /// buckets. With fewer than all, every table still gets its whole sketch and clock.
    pub fn restore(&self, mut store: Store, buckets: Range<usize>) -> Result<Store> {
        let link = self.newest();
        let name = &link.frame.name;
        compared(&link.facts).compare(name, "", &identity(&store, &self.plan))?;
        for (number, table) in store.tables_mut().iter_mut().enumerate() {
            if table.rows() > 0 || table.clock().update > 0 {
                return Err(ArtefactError::Table(TableError::Config {
                    table: table.config().name.clone(),
                    what: "it has rows already; a checkpoint fills empty tables".into(),
                }));
            }
            let facts = link.frame.pairs(&*link.source, Section::Table, number)?;
            let whose = format!("table '{}': ", table.config().name);
            compared(&facts).compare(name, &whose, &shape(table.config()))?;
            let moving = Moving::read(name, number, &facts)?;
            self.fill(number, table, moving, buckets.clone())?;
        }
        Ok(store)
    }

    /// The buckets of a table that a link has rows or tombstones of.
    pub(super) fn said(&self, number: usize) -> Result<BTreeSet<usize>> {
        let said = self.links.iter().flat_map(|link| &link.frame.entries);
        let said = said.filter(|entry| {
            entry.table as usize == number && matches!(entry.section, Section::Rows | Section::Gone)
        });
        let said: BTreeSet<usize> = said.map(|entry| entry.number as usize).collect();
        match said.last() {
            Some(&last) if last >= BUCKETS => Err(self.newest().no_such_bucket()),
            _ => Ok(said),
        }
    }

    /// A bucket as the newest cut has it.
    pub(super) fn merged(&self, number: usize, bucket: usize, records: &Records) -> Result<Merged> {
        let said = self
            .links
            .iter()
            .map(|link| link.rows(number, bucket, records));
        let mut said: Vec<Vec<u8>> = said.collect::<Result<_>>()?;
        let gone = self.links.iter().map(|link| link.gone(number, bucket));
        let gone: Vec<Vec<(u64, u32)>> = gone.collect::<Result<_>>()?;
        if let [all] = &mut said[..] {
            return Ok(Merged {
                rows: std::mem::take(all),
                gone: gone.concat(),
            });
        }
        // The newest operation wins: in a cut, rows are what is there, tombstones what went or came back since.
        let mut newest: BTreeMap<u64, &[u8]> = BTreeMap::new();
        for (rows, gone) in said.iter().zip(&gone) {
            gone.iter().for_each(|(hash, _)| {
                newest.remove(hash);
            });
            newest.extend(
                rows.chunks_exact(records.size())
                    .map(|record| (records.hash(record), record)),
            );
        }
        let mut rows = Vec::with_capacity(newest.len() * records.size());
        newest
            .values()
            .for_each(|record| rows.extend_from_slice(record));
        Ok(Merged {
            rows,
            gone: gone.concat(),
        })
    }

    /// The sketch as the newest cut has it, `halvings` old.
    pub(super) fn fill_sketch(
        &self,
        number: usize,
        table: &mut Table,
        halvings: u32,
    ) -> Result<()> {
        let link = self.newest();
        for (shard, held) in table.shards.iter_mut().enumerate() {
            let sketch = link.read(Section::Sketch, number, shard)?;
            if !sketch.is_empty() && held.sketch.restore(&sketch, halvings).is_none() {
                return Err(link.bad(
                    Section::Sketch,
                    number,
                    shard,
                    "it is not this table's sketch",
                ));
            }
        }
        Ok(())
    }

    fn fill(
        &self,
        number: usize,
        table: &mut Table,
        moving: Moving,
        buckets: Range<usize>,
    ) -> Result<()> {
        let link = self.newest();
        let lines = link.read(Section::Lines, number, 0)?;
        let lines: HashMap<u32, u32> = lines
            .as_chunks::<8>()
            .0
            .iter()
            .map(|pair| (word(pair, 0), word(pair, 4)))
            .collect();
        let halvings = match table.config().admission {
            Admission::Count { halve_every, .. } => moving.clock.sightings / halve_every,
            _ => 0,
        };
        self.fill_sketch(number, table, halvings as u32)?;
        let records = Records::of(&table.shared.layout);
        let mut filling = Filling::new(moving.clock);
        // Buckets that nothing is said of are as new.
        let mut said = self.said(number)?;
        said.extend(lines.keys().map(|&bucket| bucket as usize));
        if said.last().is_some_and(|&last| last >= BUCKETS) {
            return Err(link.no_such_bucket());
        }
        let all = buckets == (0..BUCKETS);
        for &bucket in said.range(buckets) {
            let Merged { rows, gone } = self.merged(number, bucket, &records)?;
            let size = lines.get(&(bucket as u32)).copied().unwrap_or(1);
            if !filling.bucket(
                table,
                bucket,
                size,
                rows.chunks_exact(records.size()),
                gone.into_iter(),
            )? {
                return Err(link.bad(
                    Section::Lines,
                    number,
                    0,
                    &format!("bucket {bucket} cannot have {size} lines"),
                ));
            }
        }
        filling.finish(table, moving.rate, &moving.consumers);
        if all && table.rows() != moving.rows {
            let what = format!(
                "{} rows of table {number} were read, {} were written",
                table.rows(),
                moving.rows
            );
            return Err(damaged(&link.frame.name, "rows", what));
        }
        Ok(())
    }
}
