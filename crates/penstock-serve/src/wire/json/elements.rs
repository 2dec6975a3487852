//! Tensor data in JSON, read straight into the tensor's type.

use super::cursor::{Cursor, Parsed};
use crate::tensor::{Data, Datatype, Texts};

/// Reads `data` of a tensor: flat, or nested as its shape says. Gives the elements and which of them were null.
///
/// `count`: the product of `shape`. No more elements than that are ever held.
pub fn read(
    cursor: &mut Cursor,
    datatype: Datatype,
    shape: &[usize],
    count: usize,
) -> Parsed<(Data, Option<Vec<bool>>)> {
    macro_rules! numbers {
        ($variant:ident) => {{
            // Two bytes an element is the least that JSON takes, so a shape alone reserves nothing.
            let mut values = Vec::with_capacity(count.min(cursor.left() / 2 + 1));
            let nulls = column(cursor, shape, count, &mut values)?;
            (Data::$variant(values), nulls)
        }};
    }
    let (data, nulls) = match datatype {
        Datatype::Bool => numbers!(Bool),
        Datatype::U8 => numbers!(U8),
        Datatype::U16 => numbers!(U16),
        Datatype::U32 => numbers!(U32),
        Datatype::U64 => numbers!(U64),
        Datatype::I8 => numbers!(I8),
        Datatype::I16 => numbers!(I16),
        Datatype::I32 => numbers!(I32),
        Datatype::I64 => numbers!(I64),
        Datatype::F32 => numbers!(F32),
        Datatype::F64 => numbers!(F64),
        Datatype::Bytes => {
            let mut texts = Texts::default();
            let nulls = column(cursor, shape, count, &mut texts)?;
            (Data::Bytes(texts), nulls)
        }
    };
    Ok((data, (!nulls.is_empty()).then_some(nulls)))
}

/// Where elements go.
trait Column {
    fn read(&mut self, cursor: &mut Cursor) -> Parsed<()>;
    fn null(&mut self);
    fn len(&self) -> usize;
}

fn column(
    cursor: &mut Cursor,
    shape: &[usize],
    count: usize,
    into: &mut impl Column,
) -> Parsed<Vec<bool>> {
    let mut nulls = Vec::new();
    let mut ahead = cursor.clone();
    ahead.expect(b'[', "'[' of data")?;
    let nested = ahead.peek() == Some(b'[');
    let dims = if nested { shape } else { &[count][..] };
    level(cursor, dims, into, &mut nulls)?;
    if !nulls.is_empty() {
        nulls.resize(count, false);
    }
    Ok(nulls)
}

/// One bracket's worth: `dims[0]` elements, or as many brackets of the remaining dimensions.
fn level(
    cursor: &mut Cursor,
    dims: &[usize],
    into: &mut impl Column,
    nulls: &mut Vec<bool>,
) -> Parsed<()> {
    let Some((&size, inner)) = dims.split_first() else {
        return Err("data nest deeper than the shape has dimensions".to_owned());
    };
    cursor.expect(b'[', "'[': data are flat, or nested as the shape says,")?;
    let mut seen = 0;
    if !cursor.take(b']') {
        loop {
            if seen == size {
                return Err(format!(
                    "data hold more than the {size} elements that the shape says"
                ));
            }
            if inner.is_empty() {
                element(cursor, into, nulls)?;
            } else {
                level(cursor, inner, into, nulls)?;
            }
            seen += 1;
            if !cursor.more(b']')? {
                break;
            }
        }
    }
    if seen != size {
        return Err(format!(
            "data hold {seen} elements where the shape says {size}"
        ));
    }
    Ok(())
}

#[inline]
fn element(cursor: &mut Cursor, into: &mut impl Column, nulls: &mut Vec<bool>) -> Parsed<()> {
    if cursor.peek() == Some(b'n') && cursor.word("null") {
        nulls.resize(into.len(), false);
        nulls.push(true);
        into.null();
        return Ok(());
    }
    into.read(cursor)
}

impl Column for Texts {
    fn read(&mut self, cursor: &mut Cursor) -> Parsed<()> {
        self.push(cursor.string()?.as_bytes());
        Ok(())
    }

    fn null(&mut self) {
        self.push(b"");
    }

    fn len(&self) -> usize {
        Texts::len(self)
    }
}

impl Column for Vec<bool> {
    fn read(&mut self, cursor: &mut Cursor) -> Parsed<()> {
        let value = cursor.word("true");
        if !value && !cursor.word("false") {
            return Err(cursor.wrong("true or false"));
        }
        self.push(value);
        Ok(())
    }

    fn null(&mut self) {
        self.push(false);
    }

    fn len(&self) -> usize {
        Vec::len(self)
    }
}

macro_rules! integers {
    ($($type:ty, $name:literal);*) => {$(
        impl Column for Vec<$type> {
            #[inline]
            fn read(&mut self, cursor: &mut Cursor) -> Parsed<()> {
                let text = cursor.number(concat!("an integer of ", $name))?;
                // JSON has no +5, so what Rust reads beyond JSON's integers cannot come here.
                self.push(text.parse().map_err(|_| {
                    format!("{text} is not an integer of {}", $name)
                })?);
                Ok(())
            }

            fn null(&mut self) {
                self.push(0);
            }

            fn len(&self) -> usize {
                Vec::len(self)
            }
        }
    )*};
}

integers!(u8, "UINT8"; u16, "UINT16"; u32, "UINT32"; u64, "UINT64"; i8, "INT8"; i16, "INT16"; i32, "INT32"; i64, "INT64");

macro_rules! floats {
    ($($type:ty, $name:literal);*) => {$(
        impl Column for Vec<$type> {
            #[inline]
            fn read(&mut self, cursor: &mut Cursor) -> Parsed<()> {
                let special = match cursor.peek() {
                    Some(b'N') if cursor.word("NaN") => Some(<$type>::NAN),
                    Some(b'I') if cursor.word("Infinity") => Some(<$type>::INFINITY),
                    Some(b'-') if cursor.word("-Infinity") => Some(<$type>::NEG_INFINITY),
                    _ => None,
                };
                let value = match special {
                    Some(value) => value,
                    None => {
                        let text = cursor.number("a number")?;
                        let value: $type = text.parse().map_err(|_| format!("{text} is not a number"))?;
                        if value.is_infinite() {
                            return Err(format!("{text} is beyond {}", $name));
                        }
                        value
                    }
                };
                self.push(value);
                Ok(())
            }

            fn null(&mut self) {
                self.push(<$type>::NAN);
            }

            fn len(&self) -> usize {
                Vec::len(self)
            }
        }
    )*};
}

floats!(f32, "FP32"; f64, "FP64");
