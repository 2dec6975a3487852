//! Reads a partition in order, from any offset, while others write and trim it.

use std::io;
use std::sync::Arc;

use penstock_disk::Disk;

use crate::cursor::{Cursor, Hole, Stop};
use crate::fault::{Fault, Result};
use crate::frame::Record;
use crate::segment::{Header, is_followed, name, numbers};

/// Segments may be trimmed between being listed and being opened; so often in a row only if something else is wrong.
const TRIES: usize = 20;
/// The offset of somebody who only wants to know where the end is.
const NOWHERE: u64 = u64::MAX;

/// What is read at once at most; one record always.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub records: usize,
    /// Of keys and values.
    pub bytes: usize,
}

struct Place {
    header: Header,
    cursor: Cursor,
    /// The head of the segment after it, which says how much of this one counts.
    after: Option<Header>,
    /// Byte and length for which nothing whole was found.
    searched: Option<(u64, u64)>,
}

pub struct Reader {
    disk: Arc<dyn Disk>,
    label: Arc<str>,
    place: Option<Place>,
    from: u64,
}

impl Reader {
    pub(crate) fn new(disk: Arc<dyn Disk>, label: Arc<str>, from: u64) -> Reader {
        Reader {
            disk,
            label,
            place: None,
            from,
        }
    }

    /// The offset that is read next.
    pub fn position(&self) -> u64 {
        self.from
    }

    pub fn seek(&mut self, offset: u64) {
        let stays = self.place.as_ref().is_some_and(|place| {
            let within = place.after.is_none_or(|after| offset <= after.base);
            offset >= place.cursor.next && within
        });
        self.from = offset;
        if !stays {
            self.place = None;
        }
    }

    /// Gives the records from its position on that are there now, in order. Returns how many.
    ///
    /// Raises `Damaged`, with the offset to go on from, before it gives anything behind the damage; `Trimmed`, `Beyond`.
    pub fn read(&mut self, most: Limit, mut give: impl FnMut(&Record<'_>)) -> Result<usize> {
        let (mut records, mut bytes) = (0, 0);
        let from = self.from;
        let mut last = None;
        let read = self.step(&mut |record| {
            if record.offset < from {
                return true;
            }
            let size = record.value.len() + record.key.map_or(0, <[u8]>::len);
            if records > 0 && (records >= most.records || bytes + size > most.bytes) {
                return false;
            }
            give(record);
            records += 1;
            bytes += size;
            last = Some(record.offset);
            true
        });
        if let Some(last) = last {
            self.from = last + 1;
            return Ok(records);
        }
        read.map(|()| 0)
    }

    /// The offset that the next record will have, as far as can be seen.
    pub(crate) fn end(&mut self) -> Result<u64> {
        self.from = NOWHERE;
        for _ in 0..TRIES {
            if self.place.is_none() {
                let numbers = numbers(&*self.disk, &self.label)?;
                let Some(&last) = numbers.last() else {
                    return Ok(0);
                };
                self.place = self.opened(last, true)?;
            }
            if self.place.is_some() {
                self.step(&mut |_| true)?;
            }
            if let Some(place) = &self.place {
                return Ok(place.cursor.next);
            }
        }
        Err(self.restless())
    }

    /// The offset of the oldest record.
    pub(crate) fn start(&self) -> Result<u64> {
        for _ in 0..TRIES {
            let numbers = numbers(&*self.disk, &self.label)?;
            let Some(&first) = numbers.first() else {
                return Ok(0);
            };
            if let Some(header) = self.header(first)? {
                return Ok(header.base);
            }
        }
        Err(self.restless())
    }

    /// The offset of the first record that is there whose time is `time_ms` or later; the end if there is none.
    pub(crate) fn at_time(&mut self, time_ms: i64) -> Result<u64> {
        let before = |header: &Header| header.latest_before_ms < time_ms;
        let Some(place) = self.last_segment_where(before)? else {
            self.from = self.start()?;
            return self.first_since(time_ms);
        };
        self.from = place.header.base;
        self.place = Some(place);
        self.first_since(time_ms)
    }

    fn first_since(&mut self, time_ms: i64) -> Result<u64> {
        loop {
            let mut found = None;
            let (from, mut seen) = (self.from, self.from);
            let read = self.step(&mut |record| {
                if record.offset >= from {
                    if record.time_ms >= time_ms {
                        found = Some(record.offset);
                        return false;
                    }
                    seen = record.offset + 1;
                }
                true
            });
            if let Some(found) = found {
                return Ok(found);
            }
            match read {
                Ok(()) if seen == self.from => return self.end(),
                Ok(()) => self.from = seen,
                Err(Fault::Damaged { next, .. }) => self.seek(next),
                Err(Fault::Trimmed { start, .. }) => self.seek(start),
                Err(other) => return Err(other),
            }
        }
    }

    fn restless(&self) -> Fault {
        let error = io::Error::other("its segments change faster than they can be opened");
        Fault::io(&*self.label, "opening segments", error)
    }

    fn file(&self, number: u64) -> String {
        format!("{}/{}", self.label, name(number))
    }

    /// None: it is not there (any more).
    fn header(&self, number: u64) -> Result<Option<Header>> {
        let file = self.file(number);
        match self.disk.open(&name(number)) {
            Ok(source) => Header::read(&*source, number, &file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Fault::io(file, "opening it", error)),
        }
    }

    fn opened(&self, number: u64, grows: bool) -> Result<Option<Place>> {
        let file = self.file(number);
        let source = if grows {
            self.disk.open(&name(number))
        } else {
            self.disk.map(&name(number))
        };
        let source = match source {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Fault::io(file, "opening it", error)),
        };
        let header = Header::read(&*source, number, &file)?;
        Ok(Some(Place {
            header,
            cursor: Cursor::new(source, file, header.base),
            after: None,
            searched: None,
        }))
    }

    /// The last segment whose head is so; all before it must be. None if the first is not.
    fn last_segment_where(&self, so: impl Fn(&Header) -> bool) -> Result<Option<Place>> {
        'again: for _ in 0..TRIES {
            let numbers = numbers(&*self.disk, &self.label)?;
            let (mut low, mut high) = (0, numbers.len());
            while low < high {
                let middle = (low + high) / 2;
                match self.header(numbers[middle])? {
                    None => continue 'again,
                    Some(header) if so(&header) => low = middle + 1,
                    Some(_) => high = middle,
                }
            }
            if low == 0 {
                return Ok(None);
            }
            if let Some(place) = self.opened(numbers[low - 1], low == numbers.len())? {
                return Ok(Some(place));
            }
        }
        Err(self.restless())
    }

    fn locate(&mut self) -> Result<bool> {
        let from = self.from;
        for _ in 0..TRIES {
            self.place = self.last_segment_where(|header| header.base <= from)?;
            if self.place.is_some() {
                return Ok(true);
            }
            let (file, asked) = (self.label.to_string(), from);
            if numbers(&*self.disk, &self.label)?.is_empty() {
                return match from {
                    0 => Ok(false),
                    _ => Err(Fault::Beyond {
                        file,
                        asked,
                        end: 0,
                    }),
                };
            }
            let start = self.start()?;
            if start > from {
                return Err(Fault::Trimmed { file, asked, start });
            }
            // The first segment came between two looks.
        }
        Err(self.restless())
    }

    /// Shows what is there from its place on to `take`, until that declines or there is no more.
    fn step(&mut self, take: &mut dyn FnMut(&Record<'_>) -> bool) -> Result<()> {
        loop {
            if self.place.is_none() && !self.locate()? {
                return Ok(());
            }
            let place = self.place.as_mut().expect("just located");
            let there = place.cursor.bytes_now()?;
            let until = place
                .after
                .map_or(there, |after| after.previous_bytes.min(there));
            let cut = there < place.cursor.at;
            let stop = if cut {
                Stop::End
            } else {
                place.cursor.walk(until, take)?
            };
            if stop == Stop::Declined {
                return Ok(());
            }
            if place.after.is_none() {
                let number = place.header.number + 1;
                if is_followed(&*self.disk, &self.label, place.header.number)? {
                    let after = self.header(number)?;
                    match (&mut self.place, after) {
                        // It may have grown before the next one came.
                        (Some(place), Some(after)) => place.after = Some(after),
                        _ => self.leave(),
                    }
                } else if cut {
                    return Err(Fault::NotALog {
                        file: place.cursor.file.clone(),
                        what: "became shorter than what was read of it",
                    });
                } else if !self.over_damage_at_the_end(stop, until)? {
                    return Ok(());
                }
                continue;
            }
            match stop {
                Stop::Broken => self.over_damage(until)?,
                _ => self.hop()?,
            }
        }
    }

    /// The segments after this one are gone: the next look says so.
    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.from = self.from.max(place.cursor.next);
        }
    }

    /// Where the last segment ends, in what is still being written or in damage. Whether it goes on behind that.
    fn over_damage_at_the_end(&mut self, stop: Stop, until: u64) -> Result<bool> {
        let (boot, from) = (self.disk.boot(), self.from);
        let place = self.place.as_mut().expect("a place that ended");
        let in_doubt = place.header.of_another_boot(boot);
        let cursor = &mut place.cursor;
        if stop == Stop::Broken && place.searched != Some((cursor.at, until)) {
            if let Some(hole) = cursor.hole(until, in_doubt)? {
                lost(cursor, from, hole.next, Some(hole))?;
                return Ok(true);
            }
            place.searched = Some((cursor.at, until));
        }
        let may_have_been = in_doubt && from <= place.header.most();
        if from > cursor.next && from != NOWHERE && !may_have_been {
            return Err(Fault::Beyond {
                file: self.label.to_string(),
                asked: from,
                end: cursor.next,
            });
        }
        Ok(false)
    }

    /// No whole record, in a segment that is sealed behind here.
    fn over_damage(&mut self, until: u64) -> Result<()> {
        let from = self.from;
        let place = self.place.as_mut().expect("a place with damage");
        let after = place.after.expect("a sealed segment");
        let hole = place.cursor.hole(until, false)?;
        let next = hole.map_or(after.previous_end, |hole| hole.next);
        lost(&mut place.cursor, from, next, hole)?;
        if hole.is_none() {
            place.cursor.at = until;
            place.cursor.next = place.cursor.next.max(next);
        }
        Ok(())
    }

    /// From the end of a sealed segment to the next one.
    fn hop(&mut self) -> Result<()> {
        let from = self.from;
        let place = self.place.as_mut().expect("a place that ended");
        let after = place.after.expect("a sealed segment");
        let cursor = &mut place.cursor;
        if after.previous_end > cursor.next {
            lost(cursor, from, after.previous_end, None)?;
        }
        if after.base < cursor.next {
            return Err(Fault::NotALog {
                file: cursor.file.clone(),
                what: "holds records that the segment after it does not know of",
            });
        }
        let last = !is_followed(&*self.disk, &self.label, after.number)?;
        match self.opened(after.number, last)? {
            Some(next) => self.place = Some(next),
            None => self.leave(),
        }
        Ok(())
    }
}

/// Says what is lost, to whoever wants any of it; else goes on behind it.
fn lost(cursor: &mut Cursor, from: u64, next: u64, hole: Option<Hole>) -> Result<()> {
    if from < next {
        return Err(Fault::Damaged {
            file: cursor.file.clone(),
            at: cursor.at,
            first: from.max(cursor.next),
            next,
        });
    }
    if let Some(hole) = hole {
        cursor.jump(hole);
    }
    Ok(())
}
