//! How many parts a protobuf request has, counted before it is decoded: two bytes on the wire can become hundreds in memory.

use crate::error::{Fault, Kind, Result};

/// Fields that are messages, names, numbers: all but tensors' elements.
const PARTS: usize = 1 << 17;
/// Elements in `contents`, of all tensors.
const ELEMENTS: usize = 16 << 20;

/// A message's fields, one after another.
struct Fields<'a> {
    rest: &'a [u8],
}

/// A field's number and, where it has a length, its bytes.
type Field<'a> = (u64, Option<&'a [u8]>);

impl<'a> Iterator for Fields<'a> {
    type Item = std::result::Result<Field<'a>, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.rest.is_empty()).then(|| self.field().ok_or(()))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<Field<'a>> {
        let tag = self.varint()?;
        let bytes = match tag & 7 {
            0 => self.varint().map(|_| None)?,
            1 => self.cut(8).map(|_| None)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Some(self.cut(length)?)
            }
            5 => self.cut(4).map(|_| None)?,
            _ => return None,
        };
        Some((tag >> 3, bytes))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for at in 0..10 {
            let byte = *self.rest.get(at)?;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Some(value);
            }
        }
        None
    }

    fn cut(&mut self, length: usize) -> Option<&'a [u8]> {
        let (cut, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(cut)
    }
}

#[derive(Default)]
struct Count {
    parts: usize,
    elements: usize,
}

/// Whether an encoded `ModelInferRequest` may be decoded. `TooLarge` if it has too many parts, `Invalid` if it is none.
pub fn check(message: &[u8]) -> Result<()> {
    let mut count = Count::default();
    for field in (Fields { rest: message }) {
        match field.map_err(malformed)? {
            (5, Some(input)) => count.input(input)?,
            (4 | 6, Some(nested)) => count.nested(nested)?,
            _ => count.part()?,
        }
    }
    Ok(())
}

fn malformed((): ()) -> Fault {
    Fault::invalid("the message is not an encoded ModelInferRequest")
}

fn many(what: &str) -> Fault {
    Fault::new(
        Kind::TooLarge,
        format!("the request has too many {what}; send several requests"),
    )
}

impl Count {
    fn part(&mut self) -> Result<()> {
        self.parts += 1;
        if self.parts > PARTS {
            Err(many("inputs, outputs and parameters"))
        } else {
            Ok(())
        }
    }

    /// A message of which every field counts. Maps' values nest one deeper and hold a single field that matters.
    fn nested(&mut self, message: &[u8]) -> Result<()> {
        self.part()?;
        for field in (Fields { rest: message }) {
            field.map_err(malformed)?;
            self.part()?;
        }
        Ok(())
    }

    fn input(&mut self, message: &[u8]) -> Result<()> {
        self.part()?;
        for field in (Fields { rest: message }) {
            match field.map_err(malformed)? {
                // A packed shape: at least a byte for each dimension.
                (3, Some(shape)) => {
                    self.parts += shape.len();
                    self.part()?;
                }
                (4, Some(parameter)) => self.nested(parameter)?,
                (5, Some(contents)) => self.contents(contents)?,
                _ => self.part()?,
            }
        }
        Ok(())
    }

    fn contents(&mut self, message: &[u8]) -> Result<()> {
        self.part()?;
        for field in (Fields { rest: message }) {
            self.elements += match field.map_err(malformed)? {
                (1..=5, Some(packed)) => packed.iter().filter(|byte| **byte < 0x80).count(),
                (6, Some(packed)) => packed.len() / 4,
                (7, Some(packed)) => packed.len() / 8,
                _ => 1,
            };
            if self.elements > ELEMENTS {
                return Err(many("elements"));
            }
        }
        Ok(())
    }
}
