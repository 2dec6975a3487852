//! An entity's key from its columns: canonical bytes, as feature files hash them.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use crate::Fault;

/// Longer keys than an LMDB key has room for beside the names are stood for by their hash.
const LONGEST: usize = 200;

/// The key columns of some rows: strings as they are, integers in decimal; of several columns each with its length.
pub struct Keys {
    columns: Vec<ArrayRef>,
}

impl Keys {
    /// `columns`: int64 or (large) strings, of one length, one at least.
    pub fn new(columns: Vec<ArrayRef>) -> Result<Keys, Fault> {
        let known = |column: &ArrayRef| {
            matches!(
                column.data_type(),
                DataType::Int64 | DataType::Utf8 | DataType::LargeUtf8
            )
        };
        match columns.iter().find(|column| !known(column)) {
            Some(column) => Err(Fault::Rows(format!("a key of type {}", column.data_type()))),
            None if columns.is_empty() => Err(Fault::Rows("an entity without key".into())),
            None if columns
                .iter()
                .any(|column| column.len() != columns[0].len()) =>
            {
                Err(Fault::Rows("key columns of different lengths".into()))
            }
            None => Ok(Keys { columns }),
        }
    }

    pub fn len(&self) -> usize {
        self.columns[0].len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a row's key into `to`; false where a part of it is null.
    pub fn write(&self, row: usize, to: &mut Vec<u8>) -> bool {
        to.clear();
        for column in &self.columns {
            if column.is_null(row) {
                return false;
            }
            let mut number = itoa::Buffer::new();
            let part = match column.data_type() {
                DataType::Int64 => number.format(column.as_primitive::<Int64Type>().value(row)),
                DataType::Utf8 => column.as_string::<i32>().value(row),
                _ => column.as_string::<i64>().value(row),
            };
            if self.columns.len() > 1 {
                to.extend_from_slice(&(part.len() as u32).to_le_bytes());
            }
            to.extend_from_slice(part.as_bytes());
        }
        true
    }
}

/// What an offline join knows an entity by: among 10^9 of them two are alike once in 10^20 runs.
pub fn identity(key: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(key)
}

/// Keys of blobs, one behind the other.
#[derive(Default)]
pub struct Wanted {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Wanted {
    pub fn push(&mut self, entity: &str, key: &[u8], view: &str) {
        stored(entity, key, view, &mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let key = &self.bytes[start..*end];
            start = *end;
            key
        })
    }
}

/// entity || view: an entity's views are neighbours. Lengths keep names and keys apart.
pub fn stored(entity: &str, key: &[u8], view: &str, to: &mut Vec<u8>) {
    to.push(entity.len() as u8);
    to.extend_from_slice(entity.as_bytes());
    if key.len() <= LONGEST {
        to.push(key.len() as u8);
        to.extend_from_slice(key);
    } else {
        to.push(u8::MAX);
        to.extend_from_slice(&identity(key).to_be_bytes());
    }
    to.extend_from_slice(view.as_bytes());
}

/// Where a stored key's view begins: what is before it names the entity.
pub fn entity_end(key: &[u8]) -> usize {
    let entity = usize::from(key.first().copied().unwrap_or_default());
    let length = key.get(1 + entity).map_or(0, |length| match *length {
        u8::MAX => 16,
        short => usize::from(short),
    });
    2 + entity + length
}

/// Whether a stored key is of that view, and not of one whose name ends alike.
pub fn is_of(key: &[u8], view: &str) -> bool {
    key.get(entity_end(key)..) == Some(view.as_bytes())
}
