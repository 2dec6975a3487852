//! A batch's distinct keys and their rows: found once, in pooling, and good until the gradients have come back.

use rayon::prelude::*;

use crate::error::{Result, TableError};
use crate::numbering::Numbering;
use crate::pool::{Bag, Rows};
use crate::store::Store;

/// The number of no row: the key has none, or nobody looked.
pub(crate) const NONE: u32 = u32::MAX;

/// What pooling found, a part a bag. Given to `stage`, neither staging nor the step looks for these keys again.
///
/// Rows may come and go meanwhile: a row that went makes the step search anew for all keys of its table, and so is a key
/// searched for that had no row.
#[derive(Debug, Default)]
pub struct Found {
    pub(crate) bags: Vec<FoundBag>,
}

#[derive(Debug)]
pub(crate) struct FoundBag {
    slot: u32,
    /// The table's `rows_stamp` when rows were looked for; 0: they were not.
    pub stamp: u64,
    /// Distinct, with only those bits that count, in the order in which they first come.
    pub keys: Vec<u64>,
    /// Of each distinct key its row's number, or `NONE`.
    pub rows: Vec<u32>,
    /// Of each key of the bag which of `keys` it is.
    pub numbers: Vec<u32>,
}

impl FoundBag {
    /// The distinct keys of places `keys` of a bag, without rows.
    fn new(bag: &Bag, mask: u64, keys: std::ops::Range<usize>, scratch: &mut Numbering) -> Self {
        let mut numbers = Vec::with_capacity(keys.len());
        scratch.clear();
        scratch.number(bag.keys[keys].iter().map(|key| key & mask), &mut numbers);
        FoundBag {
            slot: bag.slot,
            stamp: 0,
            keys: scratch.keys().to_vec(),
            rows: vec![NONE; scratch.len()],
            numbers,
        }
    }
}

/// A bag's distinct keys and their values.
pub(crate) struct Read {
    pub found: FoundBag,
    pub values: Vec<f32>,
}

/// The distinct keys among places `keys(bag)` of each bag, and their values, on `threads` threads.
pub(crate) fn read<R: Rows>(
    rows: &R,
    bags: &[Bag],
    keys: impl Fn(&Bag) -> std::ops::Range<usize> + Sync,
    threads: usize,
) -> std::result::Result<Vec<Read>, R::Error> {
    let many = bags.len() >= 2 * threads;
    each(bags, threads, |bag, scratch| {
        let mut found = FoundBag::new(bag, rows.mask(bag.slot)?, keys(bag), scratch);
        let mut values = vec![0.0; found.keys.len() * rows.dim(bag.slot)?];
        let (keys, places) = (&found.keys, &mut found.rows);
        found.stamp = rows.read(bag.slot, keys, &mut values, places, many)?;
        Ok(Read { found, values })
    })
}

/// `work` of each bag, side by side where that helps.
fn each<T: Send, E: Send>(
    bags: &[Bag],
    threads: usize,
    work: impl Fn(&Bag, &mut Numbering) -> std::result::Result<T, E> + Sync,
) -> std::result::Result<Vec<T>, E> {
    let keys: usize = bags.iter().map(|bag| bag.keys.len()).sum();
    match crate::threads::pool(threads) {
        Some(pool) if threads > 1 && bags.len() > 1 && keys > 4096 => pool.install(|| {
            let bags = bags.par_iter().with_max_len(1);
            bags.map_init(Numbering::default, |scratch, bag| work(bag, scratch))
                .collect()
        }),
        _ => {
            let mut scratch = Numbering::default();
            bags.iter().map(|bag| work(bag, &mut scratch)).collect()
        }
    }
}

impl Found {
    /// The distinct keys of bags that nobody has looked for.
    pub(crate) fn numbered(store: &Store, bags: &[Bag], threads: usize) -> Result<Found> {
        let bags = each(bags, threads, |bag, scratch| {
            let mask = store.slot(bag.slot)?.keys.mask();
            Ok::<_, TableError>(FoundBag::new(bag, mask, 0..bag.keys.len(), scratch))
        })?;
        Ok(Found { bags })
    }

    /// Refuses bags that it was not found for.
    pub(crate) fn check(&self, bags: &[Bag]) -> Result<()> {
        let other = |(bag, found): (&Bag, &FoundBag)| {
            bag.slot != found.slot || bag.keys.len() != found.numbers.len()
        };
        let slot = match bags.iter().zip(&self.bags).find(|&pair| other(pair)) {
            Some((bag, _)) => bag.slot,
            None if bags.len() == self.bags.len() => return Ok(()),
            None => bags.first().map_or(0, |bag| bag.slot),
        };
        Err(TableError::Bag {
            slot,
            what: "these are not the keys that were pooled".into(),
        })
    }
}
