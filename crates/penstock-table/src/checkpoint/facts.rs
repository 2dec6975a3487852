//! What an artefact says of the store it was taken from, and what must be the same when it is read.

use crate::artefact::{Pairs, Result, damaged};
use crate::config::{Admission, TableConfig};
use crate::cut::Cut;
use crate::hash::BUCKETS;
use crate::store::{Keys, Store};
use crate::sweep::Cursor;
use crate::table::Clock;

/// Before the names of pairs that are compared.
pub(crate) const SAME: &str = "same.";

/// Plan, tables and slots.
pub(crate) fn identity(store: &Store, plan: &str) -> Pairs {
    let mut pairs = Pairs::default();
    pairs.add("plan", plan);
    for (number, table) in store.tables().iter().enumerate() {
        pairs.add(format!("table {number}"), &table.config().name);
    }
    for (id, slot) in store.slots() {
        let keys = match slot.keys {
            Keys::Mapped => "mapped",
            Keys::Raw => "raw",
        };
        pairs.add(
            format!("slot {id}"),
            format!("table {}, {keys} keys", slot.table),
        );
    }
    pairs
}

/// What rows of a table are made of and what their numbers mean.
pub(crate) fn shape(config: &TableConfig) -> Pairs {
    let mut pairs = Pairs::default();
    pairs.add("dim", config.dim);
    pairs.add("values", format!("{:?}", config.dtype));
    pairs.add("optimizer", config.optimizer.name());
    for column in config.optimizer.columns(config.dim) {
        pairs.add(format!("state {}", column.name), column.width);
    }
    pairs.add("versions", config.versions);
    pairs.add("score", config.eviction.score.is_some());
    pairs.add("init", format!("{:?}", config.init));
    pairs.add("seed", config.seed);
    if let Admission::Count {
        least,
        sketch_bytes,
        halve_every,
    } = config.admission
        && least > 1
    {
        pairs.add("sketch bytes", sketch_bytes);
        pairs.add("sketch halved every", halve_every);
    }
    pairs
}

/// A table's section: its shape and what moves.
pub(super) fn table(config: &TableConfig, cut: &Cut) -> Pairs {
    let mut pairs = Pairs::default();
    for (name, value) in shape(config).under("") {
        pairs.add(format!("{SAME}{name}"), value);
    }
    let Clock {
        update,
        now_s,
        sightings,
        cursor,
        epoch,
        oldest,
    } = cut.clock;
    pairs.add("update", update);
    pairs.add("now_s", now_s);
    pairs.add("sightings", sightings);
    pairs.add("cursor bucket", cursor.bucket);
    pairs.add("cursor line", cursor.line);
    pairs.add("epoch", epoch);
    pairs.add("oldest", oldest);
    pairs.add("rate bits", cut.rate.to_bits());
    pairs.add("rows", cut.rows);
    for (name, epoch) in &cut.consumers {
        pairs.add(format!("consumer {name}"), epoch);
    }
    pairs
}

/// What moves of a table, from its section.
pub(super) struct Moving {
    pub clock: Clock,
    pub rate: f32,
    pub rows: u64,
    pub consumers: Vec<(String, u32)>,
}

impl Moving {
    pub fn read(file: &str, number: usize, pairs: &Pairs) -> Result<Moving> {
        let section = format!("table facts {number}");
        let word = |name| pairs.number::<u32>(file, &section, name);
        let clock = Clock {
            update: pairs.number(file, &section, "update")?,
            now_s: word("now_s")?,
            sightings: pairs.number(file, &section, "sightings")?,
            cursor: Cursor {
                bucket: word("cursor bucket")?,
                line: word("cursor line")?,
            },
            epoch: word("epoch")?,
            oldest: word("oldest")?,
        };
        if clock.cursor.bucket as usize >= BUCKETS || clock.oldest > clock.epoch {
            return Err(damaged(file, section, "its clock is not one"));
        }
        let consumers = pairs
            .under("consumer ")
            .filter_map(|(name, epoch)| Some((name.to_owned(), epoch.parse().ok()?)));
        Ok(Moving {
            clock,
            rate: f32::from_bits(word("rate bits")?),
            rows: pairs.number(file, &section, "rows")?,
            consumers: consumers.collect(),
        })
    }
}

/// The compared pairs of a section.
pub(crate) fn compared(pairs: &Pairs) -> Pairs {
    let mut same = Pairs::default();
    for (name, value) in pairs.under(SAME) {
        same.add(name, value);
    }
    same
}
