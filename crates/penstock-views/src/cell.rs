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

impl Cell {
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
        Ok(match from.byte()? {
            0 => Cell::Null,
            1 => Cell::Int(i64::from_le_bytes(from.array()?)),
            2 => Cell::Float(f64::from_le_bytes(from.array()?)),
            tag @ (3 | 4) => Cell::Bool(tag == 4),
            5 => {
                let length = usize::try_from(from.varint()?).map_err(|_| Fault::Damaged)?;
                let text = std::str::from_utf8(from.take(length)?).map_err(|_| Fault::Damaged)?;
                Cell::Text(text.into())
            }
            _ => return Err(Fault::Damaged),
        })
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
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Fault::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| Fault::Damaged)
    }

    pub fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    pub fn varint(&mut self) -> Result<u64, Fault> {
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
