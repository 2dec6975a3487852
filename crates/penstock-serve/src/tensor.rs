//! Named tensors as requests and replies carry them.

use std::fmt;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_schema::DataType;

/// The protocol's element types that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datatype {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    Bytes,
}

const NAMES: [(Datatype, &str, usize); 12] = [
    (Datatype::Bool, "BOOL", 1),
    (Datatype::U8, "UINT8", 1),
    (Datatype::U16, "UINT16", 2),
    (Datatype::U32, "UINT32", 4),
    (Datatype::U64, "UINT64", 8),
    (Datatype::I8, "INT8", 1),
    (Datatype::I16, "INT16", 2),
    (Datatype::I32, "INT32", 4),
    (Datatype::I64, "INT64", 8),
    (Datatype::F32, "FP32", 4),
    (Datatype::F64, "FP64", 8),
    (Datatype::Bytes, "BYTES", 0),
];

impl Datatype {
    /// By the protocol's name.
    pub fn named(name: &str) -> Option<Datatype> {
        NAMES
            .iter()
            .find(|(_, known, _)| *known == name)
            .map(|(found, ..)| *found)
    }

    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// Bytes of an element; 0 for `Bytes`, whose elements have lengths of their own.
    pub fn size_bytes(self) -> usize {
        NAMES[self as usize].2
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Byte strings, one after another: less than 2 GiB together, as bodies are bounded far below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    bytes: Vec<u8>,
    /// Where each begins, and where the last ends: Arrow's offsets.
    offsets: Vec<i32>,
}

impl Default for Texts {
    fn default() -> Texts {
        Texts {
            bytes: vec![],
            offsets: vec![0],
        }
    }
}

impl Texts {
    /// Of a column of text or bytes, a null as the empty text; None for a column of anything else.
    pub fn of(column: &dyn Array) -> Option<Texts> {
        fn all<'t>(each: impl Iterator<Item = Option<&'t [u8]>>) -> Texts {
            let mut texts = Texts::default();
            each.for_each(|text| texts.push(text.unwrap_or_default()));
            texts
        }
        Some(match column.data_type() {
            DataType::Utf8 => all(column
                .as_string::<i32>()
                .iter()
                .map(|t| t.map(str::as_bytes))),
            DataType::LargeUtf8 => all(column
                .as_string::<i64>()
                .iter()
                .map(|t| t.map(str::as_bytes))),
            DataType::Binary => all(column.as_binary::<i32>().iter()),
            DataType::LargeBinary => all(column.as_binary::<i64>().iter()),
            _ => return None,
        })
    }

    pub fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        let end = i32::try_from(self.bytes.len()).expect("strings of less than 2 GiB");
        self.offsets.push(end);
    }

    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.offsets[at] as usize..self.offsets[at + 1] as usize]
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.get(at))
    }

    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// All of them, one after another, and their offsets.
    pub fn parts(&self) -> (&[u8], &[i32]) {
        (&self.bytes, &self.offsets)
    }

    /// The first that is not UTF-8.
    pub fn first_not_utf8(&self) -> Option<usize> {
        if self.bytes.is_ascii() {
            return None;
        }
        self.iter().position(|t| std::str::from_utf8(t).is_err())
    }
}

/// A tensor's elements, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Bool(Vec<bool>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bytes(Texts),
}

impl Data {
    pub fn datatype(&self) -> Datatype {
        match self {
            Data::Bool(_) => Datatype::Bool,
            Data::U8(_) => Datatype::U8,
            Data::U16(_) => Datatype::U16,
            Data::U32(_) => Datatype::U32,
            Data::U64(_) => Datatype::U64,
            Data::I8(_) => Datatype::I8,
            Data::I16(_) => Datatype::I16,
            Data::I32(_) => Datatype::I32,
            Data::I64(_) => Datatype::I64,
            Data::F32(_) => Datatype::F32,
            Data::F64(_) => Datatype::F64,
            Data::Bytes(_) => Datatype::Bytes,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Data::Bool(v) => v.len(),
            Data::U8(v) => v.len(),
            Data::U16(v) => v.len(),
            Data::U32(v) => v.len(),
            Data::U64(v) => v.len(),
            Data::I8(v) => v.len(),
            Data::I16(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::I64(v) => v.len(),
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::Bytes(v) => v.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor. Whoever makes one has checked that `data` holds as many elements as `shape` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub data: Data,
    /// An element each: those that JSON gave as `null` (their data are zeros, NaN in floats). None: there are none.
    pub nulls: Option<Vec<bool>>,
}

impl Tensor {
    pub fn new(name: impl Into<String>, shape: Vec<usize>, data: Data) -> Tensor {
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Tensor {
            name: name.into(),
            shape,
            data,
            nulls: None,
        }
    }

    /// Its leading dimension; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }
}

/// A tensor as a model declares it. -1 stands for any size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub datatype: Datatype,
    pub shape: Vec<i64>,
}
