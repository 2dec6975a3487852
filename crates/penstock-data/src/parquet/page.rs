//! Pages: their headers (Thrift's compact protocol) and their bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{Chunk, Codec, Result, Unreadable};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Dictionary,
}

/// Parquet's numbers for the encodings that are known here.
pub(super) const PLAIN: i64 = 0;
pub(super) const PLAIN_DICTIONARY: i64 = 2;
pub(super) const RLE: i64 = 3;
pub(super) const RLE_DICTIONARY: i64 = 8;

#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub kind: Kind,
    pub values: usize,
    pub encoding: i64,
    compressed: usize,
    uncompressed: usize,
}

const DAMAGED: Unreadable = Unreadable::Damaged("a page's header is damaged");
/// Larger pages are not written by anybody: such a number is damage, and no memory is asked for by it.
const MOST_BYTES: i64 = 1 << 30;
/// Bytes of the file that are read at a time while headers are looked for.
const READ_BYTES: usize = 1 << 20;

/// The pages of one chunk, one after another.
pub(super) struct Pages {
    chunk: Chunk,
    at: u64,
    /// Bytes of the file from `from` on.
    held: Vec<u8>,
    from: u64,
    body: Vec<u8>,
}

impl Pages {
    pub fn new(chunk: Chunk) -> Pages {
        Pages {
            chunk,
            at: chunk.offset,
            held: Vec::new(),
            from: 0,
            body: Vec::new(),
        }
    }

    /// Begins with the next chunk; memory is kept.
    pub fn turn_to(&mut self, chunk: Chunk) {
        self.chunk = chunk;
        self.at = chunk.offset;
    }

    fn end(&self) -> u64 {
        self.chunk.offset + self.chunk.bytes
    }

    /// `bytes` bytes (fewer at the chunk's end) from `at` on.
    fn hold(&mut self, file: &File, bytes: usize) -> Result<&[u8]> {
        let bytes = (bytes as u64).min(self.end() - self.at) as usize;
        let held = self.from + self.held.len() as u64;
        if self.at < self.from || self.at + bytes as u64 > held {
            let wanted = bytes.max(READ_BYTES).min((self.end() - self.at) as usize);
            self.held.resize(wanted, 0);
            file.read_exact_at(&mut self.held, self.at)?;
            self.from = self.at;
        }
        Ok(&self.held[(self.at - self.from) as usize..][..bytes])
    }

    /// The next page's header and contents; None after the last.
    pub fn next(&mut self, file: &File) -> Result<Option<(Header, &[u8])>> {
        loop {
            if self.at >= self.end() {
                return Ok(None);
            }
            // Headers with statistics of long values are larger; numbers' are some 50 bytes.
            let (header, length) = header(self.hold(file, 4096)?)?;
            self.at += length as u64;
            if header.as_ref().map_or(0, |h| h.compressed as u64) > self.end() - self.at {
                return Err(DAMAGED);
            }
            let Some(header) = header else {
                return Err(Unreadable::Unknown("a kind of page"));
            };
            if header.values == 0 {
                self.at += header.compressed as u64;
                continue;
            }
            let Header {
                compressed,
                uncompressed,
                ..
            } = header;
            self.hold(file, compressed)?;
            let raw = &self.held[(self.at - self.from) as usize..][..compressed];
            self.at += compressed as u64;
            return match self.chunk.codec {
                Codec::None => Ok(Some((header, raw))),
                Codec::Zstd => {
                    self.body.resize(uncompressed, 0);
                    let read = zstd::bulk::decompress_to_buffer(raw, &mut self.body[..])?;
                    if read != uncompressed {
                        return Err(DAMAGED);
                    }
                    Ok(Some((header, &self.body)))
                }
            };
        }
    }
}

/// A page's header and its length; None for a kind of page that is not known.
fn header(data: &[u8]) -> Result<(Option<Header>, usize)> {
    let mut thrift = Thrift { data, at: 0 };
    let (mut kind, mut sizes, mut inner) = (None, [0i64; 2], [0i64, -1, RLE, RLE]);
    thrift.each_field(|thrift, field, form| match (field, form) {
        (1, INT) => {
            kind = Some(thrift.int()?);
            Ok(())
        }
        (2 | 3, INT) => {
            sizes[field as usize - 2] = thrift.int()?;
            Ok(())
        }
        (5 | 7, STRUCT) => thrift.each_field(|thrift, field, form| match (field, form) {
            (1..=4, INT) => {
                inner[field as usize - 1] = thrift.int()?;
                Ok(())
            }
            _ => thrift.skip(form),
        }),
        _ => thrift.skip(form),
    })?;
    let [uncompressed, compressed] = sizes;
    let [values, encoding, definition, repetition] = inner;
    let sound = |size: i64| (0..MOST_BYTES).contains(&size);
    if !sound(uncompressed) || !sound(compressed) || !sound(values) {
        return Err(DAMAGED);
    }
    let kind = match kind {
        Some(0) if definition == RLE && repetition == RLE => Kind::Data,
        Some(2) => Kind::Dictionary,
        _ => return Ok((None, thrift.at)),
    };
    let header = Header {
        kind,
        values: values as usize,
        encoding,
        compressed: compressed as usize,
        uncompressed: uncompressed as usize,
    };
    Ok((Some(header), thrift.at))
}

/// Forms of a field in the compact protocol. 1 and 2 are true and false; 5 is an i32, all zigzag integers count as it.
const INT: u8 = 5;
const BINARY: u8 = 8;
const STRUCT: u8 = 12;

struct Thrift<'a> {
    data: &'a [u8],
    at: usize,
}

impl Thrift<'_> {
    fn byte(&mut self) -> Result<u8> {
        let byte = *self.data.get(self.at).ok_or(DAMAGED)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err(DAMAGED)
    }

    fn int(&mut self) -> Result<i64> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    fn each_field(&mut self, mut each: impl FnMut(&mut Self, i64, u8) -> Result<()>) -> Result<()> {
        let mut field = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            field = match i64::from(head >> 4) {
                0 => self.int()?,
                delta => field + delta,
            };
            each(self, field, head & 15)?;
        }
    }

    fn skip(&mut self, form: u8) -> Result<()> {
        match form {
            1 | 2 => Ok(()),
            3 => self.byte().map(|_| ()),
            4..=6 => self.varint().map(|_| ()),
            7 => self.jump(8),
            BINARY => {
                let length = self.varint()?;
                self.jump(length)
            }
            STRUCT => self.each_field(|thrift, _, form| thrift.skip(form)),
            // Lists, sets and maps: no header of a page has any.
            _ => Err(Unreadable::Unknown("a page's header")),
        }
    }

    fn jump(&mut self, bytes: u64) -> Result<()> {
        let end = usize::try_from(bytes)
            .ok()
            .and_then(|b| self.at.checked_add(b));
        self.at = end.filter(|&end| end <= self.data.len()).ok_or(DAMAGED)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a data page as pyarrow 25 writes it: 4 values, PLAIN, with statistics.
    #[test]
    fn a_header_is_read_and_a_short_or_wild_one_is_damage() {
        let data: Vec<u8> = [
            vec![
                0x15, 0x00, 0x15, 0x60, 0x15, 0x60, 0x2c, 0x15, 0x08, 0x15, 0x00,
            ],
            vec![
                0x15, 0x06, 0x15, 0x06, 0x1c, 0x36, 0x00, 0x28, 0x02, 7, 7, 0x00, 0x00, 0x00,
            ],
        ]
        .concat();
        let (header, length) = header(&data).unwrap();
        let header = header.unwrap();
        assert_eq!(
            (header.kind, header.values, header.encoding),
            (Kind::Data, 4, PLAIN)
        );
        assert_eq!(
            (header.compressed, header.uncompressed, length),
            (48, 48, data.len())
        );
        for cut in 0..data.len() {
            assert!(super::header(&data[..cut]).is_err());
        }
        let wild = [0x15, 0x00, 0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert!(matches!(super::header(&wild), Err(Unreadable::Damaged(_))));
    }
}
