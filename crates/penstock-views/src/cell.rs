//! One value, as events bring it and reading gives it, and its bytes.

use crate::Fault;

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Cell {
    #[default]
    Null,
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(Box<str>),
}

/// A cell where it lies: text is not taken from there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Seen<'a> {
    #[default]
    Null,
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
}

impl<'a> Seen<'a> {
    #[inline]
    pub fn read(from: &mut Bytes<'a>) -> Result<Seen<'a>, Fault> {
        Ok(match from.byte()? {
            0 => Seen::Null,
            1 => Seen::Int(from.word()? as i64),
            2 => Seen::Float(f64::from_bits(from.word()?)),
            tag @ (3 | 4) => Seen::Bool(tag == 4),
            5 => {
                let length = usize::try_from(from.varint()?).map_err(|_| Fault::Damaged)?;
                let text = std::str::from_utf8(from.take(length)?).map_err(|_| Fault::Damaged)?;
                Seen::Text(text)
            }
            _ => return Err(Fault::Damaged),
        })
    }

    pub fn kept(self) -> Cell {
        match self {
            Seen::Null => Cell::Null,
            Seen::Int(value) => Cell::Int(value),
            Seen::Float(value) => Cell::Float(value),
            Seen::Bool(value) => Cell::Bool(value),
            Seen::Text(text) => Cell::Text(text.into()),
        }
    }
}

impl Cell {
    pub fn seen(&self) -> Seen<'_> {
        match self {
            Cell::Null => Seen::Null,
            Cell::Int(value) => Seen::Int(*value),
            Cell::Float(value) => Seen::Float(*value),
            Cell::Bool(value) => Seen::Bool(*value),
            Cell::Text(text) => Seen::Text(text),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Cell::Null)
    }

    pub fn write(&self, to: &mut Vec<u8>) {
        match self {
            Cell::Null => to.push(0),
            Cell::Int(value) => tagged(to, 1, &value.to_le_bytes()),
            Cell::Float(value) => tagged(to, 2, &value.to_le_bytes()),
            Cell::Bool(value) => to.push(3 + u8::from(*value)),
            Cell::Text(text) => {
                to.push(5);
                put_varint(to, text.len() as u64);
                to.extend_from_slice(text.as_bytes());
            }
        }
    }

    pub fn read(from: &mut Bytes<'_>) -> Result<Cell, Fault> {
        Seen::read(from).map(Seen::kept)
    }
}

fn tagged(to: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    to.push(tag);
    to.extend_from_slice(bytes);
}

/// LEB128.
pub fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Bytes that are read from the front. Every read fails where they end too early.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let Some((taken, rest)) = self.0.split_at_checked(length) else {
            return Err(Fault::Damaged);
        };
        self.0 = rest;
        Ok(taken)
    }

    /// Eight bytes, little-endian.
    #[inline]
    pub fn word(&mut self) -> Result<u64, Fault> {
        let Some((taken, rest)) = self.0.split_first_chunk() else {
            return Err(Fault::Damaged);
        };
        self.0 = rest;
        Ok(u64::from_le_bytes(*taken))
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, Fault> {
        let [byte, rest @ ..] = self.0 else {
            return Err(Fault::Damaged);
        };
        self.0 = rest;
        Ok(*byte)
    }

    /// Most are of a byte.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Fault> {
        match self.0 {
            [byte @ ..0x80, rest @ ..] => {
                self.0 = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault::Damaged)
    }
}
