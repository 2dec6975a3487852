//! An artefact on its way to the disk: a cut, a file, and how the one becomes the other.

use std::sync::Arc;

use super::{Bucket, PrepareWork, StoreCut};
use crate::artefact::{ArtefactError, Kind, Result, Writer, discard, publish};
use crate::disk::Disk;
use crate::store::Store;

/// How a kind of artefact writes a cut.
pub(crate) trait Encode: Send {
    const KIND: Kind;
    fn begin(&mut self, cut: &StoreCut, writer: &mut Writer) -> Result<()>;
    fn bucket(
        &mut self,
        store: &Store,
        table: usize,
        bucket: &Bucket,
        writer: &mut Writer,
    ) -> Result<()>;
    fn end(&mut self, writer: &mut Writer) -> Result<()>;
}

pub(crate) struct Writing<E: Encode> {
    disk: Arc<dyn Disk>,
    pub name: String,
    id: String,
    cut: Option<StoreCut>,
    writer: Option<Writer>,
    pub encode: E,
    identity: Option<u64>,
    rows: u64,
}

impl<E: Encode> Writing<E> {
    pub fn new(
        disk: &Arc<dyn Disk>,
        name: String,
        id: &str,
        cut: StoreCut,
        encode: E,
    ) -> Writing<E> {
        Writing {
            disk: Arc::clone(disk),
            name,
            id: id.into(),
            cut: Some(cut),
            writer: None,
            encode,
            identity: None,
            rows: 0,
        }
    }

    pub fn work(&self) -> PrepareWork {
        self.cut.as_ref().map(StoreCut::work).unwrap_or_default()
    }

    /// Rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads and writes buckets until `rows` rows have passed. Whether the file is whole and synced. After an error the
    /// cut is over and its file gone.
    pub fn step(&mut self, store: &Store, rows: u64) -> Result<bool> {
        let done = self.try_step(store, rows);
        if done.is_err() {
            self.give_up();
        }
        done
    }

    fn try_step(&mut self, store: &Store, rows: u64) -> Result<bool> {
        if self.identity.is_some() {
            return Ok(true);
        }
        let Some(cut) = &mut self.cut else {
            return Err(ArtefactError::CutOver {
                cut: self.id.clone(),
            });
        };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let mut writer = Writer::new(&*self.disk, &self.name, E::KIND)?;
                self.encode.begin(cut, &mut writer)?;
                self.writer.insert(writer)
            }
        };
        let until = self.rows.saturating_add(rows.max(1));
        // Empty buckets are not for nothing.
        let mut empty = 0;
        while self.rows + empty / 64 < until {
            let Some((table, bucket)) = cut.read(store)? else {
                self.encode.end(writer)?;
                self.identity = Some(writer.finish()?);
                return Ok(true);
            };
            self.encode.bucket(store, table, &bucket, writer)?;
            self.rows += bucket.rows as u64;
            empty += u64::from(bucket.rows == 0);
        }
        Ok(false)
    }

    fn give_up(&mut self) {
        self.cut = None;
        if self.writer.take().is_some() {
            discard(&*self.disk, &self.name);
        }
    }

    /// Finishes the file, ends the cut and gives the file its name. Returns its identity.
    pub fn commit(&mut self, store: &mut Store) -> Result<u64> {
        let done = self.step(store, u64::MAX);
        self.end_cut(store);
        done?;
        let published = publish(&*self.disk, &self.name);
        if published.is_err() {
            discard(&*self.disk, &self.name);
        }
        published?;
        self.writer = None;
        self.identity.ok_or_else(|| ArtefactError::CutOver {
            cut: self.id.clone(),
        })
    }

    pub fn abort(&mut self, store: &mut Store) {
        self.give_up();
        self.end_cut(store);
    }

    fn end_cut(&mut self, store: &mut Store) {
        match self.cut.take() {
            Some(cut) => cut.end(store),
            None => store
                .tables_mut()
                .iter_mut()
                .for_each(|table| table.end_given_up_cut()),
        }
    }
}

impl<E: Encode> Drop for Writing<E> {
    fn drop(&mut self) {
        self.give_up();
    }
}
