//! From a store's epochs to what a delta holds.

use std::collections::HashSet;

use super::DeltaError;
use super::pack::{Pack, Packer};
use crate::epochs::Change;
use crate::error::TableError;
use crate::store::Store;

/// Why changes were not packed; nothing was taken from the tables.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Delta(#[from] DeltaError),
    #[error("table '{table}' keeps no changes for '{consumer}'")]
    Untracked { table: String, consumer: String },
}

/// From here on the tables keep their changes for `consumer`, who has what they hold now.
pub fn track(store: &mut Store, consumer: &str) {
    for table in store.tables_mut() {
        let epoch = table.flip();
        table.register(consumer, epoch);
    }
}

/// Packs every key that changed since `consumer` was told last, by its newest operation, and ends the epoch; and of each
/// table the keys that `named` has for it: their rows as they are, tombstones where they have none. The epochs that
/// begin are for `tell`, once the delta is where it belongs: until then nothing is forgotten.
pub fn pack(
    store: &mut Store,
    consumer: &str,
    named: Vec<HashSet<u64>>,
    mut packer: Packer,
) -> Result<(Pack, Vec<u32>), PackError> {
    let mut named = named.into_iter();
    let mut epochs = vec![];
    for (number, table) in (0..).zip(store.tables_mut()) {
        let since = table.told(consumer).ok_or_else(|| PackError::Untracked {
            table: table.config().name.clone(),
            consumer: consumer.into(),
        })?;
        epochs.push(table.flip());
        packer.table(number, table.config().dim);
        let mut named = named.next().unwrap_or_default();
        let mut wrong = Ok(());
        let visited = table.finished_changes(since, |change| {
            let (Change::Row(key, _) | Change::Gone(key)) = &change;
            named.remove(key);
            match change {
                Change::Row(key, row) if wrong.is_ok() => wrong = packer.row(key, &row.values),
                Change::Gone(key) => packer.gone(key),
                Change::Row(..) => {}
            }
        })?;
        wrong?;
        packer.visited(visited);
        let mut left: Vec<u64> = named.into_iter().collect();
        left.sort_unstable();
        for key in left {
            match table.get(key) {
                Some(row) => packer.row(key, &row.values)?,
                None => packer.gone(key),
            }
        }
    }
    Ok((packer.finish(), epochs))
}

/// `consumer` has everything before these epochs, one a table.
pub fn tell(store: &mut Store, consumer: &str, epochs: &[u32]) {
    for (table, &epoch) in store.tables_mut().iter_mut().zip(epochs) {
        table.register(consumer, epoch);
    }
}
