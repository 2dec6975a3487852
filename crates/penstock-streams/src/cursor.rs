//! Walks the records of one segment, and finds the next one where it is damaged.

use penstock_disk::Source;

use crate::fault::{Fault, Result};
use crate::frame::{HEAD, MOST_FRAME, Parsed, Record, claim, parse};
use crate::segment;

/// Bytes that are looked at together.
const CHUNK: u64 = 256 << 10;

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The next record was not taken.
    Declined,
    End,
    /// Here is no whole record.
    Broken,
}

/// Lost records: where the next one is, and its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub at: u64,
    pub next: u64,
}

pub(crate) struct Cursor {
    source: Box<dyn Source>,
    pub file: String,
    /// The byte of the next record.
    pub at: u64,
    /// Its offset.
    pub next: u64,
    room: Vec<u8>,
}

impl Cursor {
    /// At the first record of a segment.
    pub fn new(source: Box<dyn Source>, file: String, base: u64) -> Cursor {
        Cursor {
            source,
            file,
            at: segment::HEAD,
            next: base,
            room: Vec::new(),
        }
    }

    pub fn bytes_now(&self) -> Result<u64> {
        let bytes = self.source.bytes_now();
        bytes.map_err(|error| Fault::io(&self.file, "asking for its length", error))
    }

    /// Shows the records before byte `until` to `take`, in order, as long as it takes them.
    pub fn walk(&mut self, until: u64, take: &mut dyn FnMut(&Record<'_>) -> bool) -> Result<Stop> {
        let mut wanted = CHUNK;
        while self.at < until {
            let rest = until - self.at;
            let bytes = self
                .source
                .view(self.at, wanted.min(rest) as usize, &mut self.room)
                .map_err(|error| Fault::io(&self.file, "reading records", error))?;
            wanted = CHUNK;
            let mut read = 0;
            let stop = loop {
                if read == bytes.len() {
                    break None;
                }
                match parse(&bytes[read..]) {
                    Parsed::Record(record) if record.offset == self.next => {
                        if !take(&record) {
                            break Some(Stop::Declined);
                        }
                        read += record.size;
                        self.next += 1;
                    }
                    Parsed::Part(size) if ((read + size) as u64) <= rest => {
                        wanted = wanted.max(size as u64);
                        break None;
                    }
                    _ => break Some(Stop::Broken),
                }
            };
            self.at += read as u64;
            if let Some(stop) = stop {
                return Ok(stop);
            }
        }
        Ok(Stop::End)
    }

    /// What is lost where a walk found no whole record, if that is damage: a later record is whole, or at least this one
    /// had been written to its end. `in_doubt`: the power may have gone since, so that only what was synced counts.
    pub fn hole(&mut self, until: u64, in_doubt: bool) -> Result<Option<Hole>> {
        if let Some(hole) = self.whole_record_after(until, in_doubt)? {
            return Ok(Some(hole));
        }
        if in_doubt {
            return Ok(None);
        }
        let claimed = match parse(self.frame(self.at, until)?) {
            Parsed::Broken(claimed) => claimed,
            _ => None,
        };
        let (first, start) = (self.next, self.at);
        Ok(claimed
            .filter(|&(offset, size)| offset == first && start + size as u64 <= until)
            .map(|(_, size)| Hole {
                at: start + size as u64,
                next: first + 1,
            }))
    }

    /// What lies at `at`: as much as a record can be.
    fn frame(&mut self, at: u64, until: u64) -> Result<&[u8]> {
        let length = |most: usize| until.saturating_sub(at).min(most as u64) as usize;
        let reading = |error| Fault::io(&self.file, "reading records", error);
        let head = self.source.view(at, length(HEAD), &mut self.room);
        let size = match head.map_err(reading)? {
            head if head.len() == HEAD => claim(head).map_or(HEAD, |(_, size)| size),
            _ => HEAD,
        };
        let frame = self
            .source
            .view(at, length(size.min(MOST_FRAME)), &mut self.room);
        frame.map_err(reading)
    }

    fn whole_record_after(&mut self, until: u64, in_doubt: bool) -> Result<Option<Hole>> {
        let (start, first) = (self.at, self.next);
        let mut from = start + 1;
        while from + HEAD as u64 <= until {
            let length = (CHUNK + HEAD as u64).min(until - from) as usize;
            let bytes = self
                .source
                .view(from, length, &mut self.room)
                .map_err(|error| Fault::io(&self.file, "looking for records", error))?;
            let can_be = |&at: &usize| {
                let place = from + at as u64;
                claim(&bytes[at..]).is_some_and(|(offset, size)| {
                    // Each lost record had a head at least.
                    let most = (place - start) / HEAD as u64;
                    offset > first && offset - first <= most && place + size as u64 <= until
                })
            };
            let heads = length - HEAD + 1;
            let candidates: Vec<usize> = (0..heads).filter(can_be).collect();
            for at in candidates {
                let place = from + at as u64;
                if let Parsed::Record(found) = parse(self.frame(place, until)?)
                    && (!in_doubt || found.synced > first)
                {
                    let next = found.offset;
                    return Ok(Some(Hole { at: place, next }));
                }
            }
            from += heads as u64;
        }
        Ok(None)
    }

    pub fn jump(&mut self, hole: Hole) {
        self.at = hole.at;
        self.next = hole.next;
    }
}
