//! Facts as pairs of text: readable in a hex dump, comparable one by one.

use super::error::{Result, damaged};
use super::{ArtefactError, word};

/// Names and values, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs(Vec<(String, String)>);

impl Pairs {
    pub fn add(&mut self, name: impl Into<String>, value: impl ToString) {
        self.0.push((name.into(), value.to_string()));
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            out.extend((text.len() as u32).to_le_bytes());
            out.extend(text.as_bytes());
        }
        out
    }

    /// None if the bytes are not pairs.
    pub fn read(mut bytes: &[u8]) -> Option<Pairs> {
        let mut texts = Vec::new();
        while !bytes.is_empty() {
            let length = word(bytes.get(..4)?, 0) as usize;
            texts.push(
                std::str::from_utf8(bytes.get(4..)?.get(..length)?)
                    .ok()?
                    .to_owned(),
            );
            bytes = &bytes[4 + length..];
        }
        if texts.len() % 2 == 1 {
            return None;
        }
        let mut pairs = Pairs::default();
        let mut texts = texts.into_iter();
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            pairs.0.push((name, value));
        }
        Some(pairs)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|pair| pair.0 == name)
            .map(|pair| &*pair.1)
    }

    /// Values whose names begin so, with the rest of the name.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        self.0
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, &**value)))
    }

    pub fn number<T: std::str::FromStr>(&self, file: &str, section: &str, name: &str) -> Result<T> {
        self.get(name)
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| damaged(file, section, format!("it has no {name}")))
    }

    /// Errs at the first pair that `expected` has otherwise; `whose` goes before its name.
    pub fn compare(&self, file: &str, whose: &str, expected: &Pairs) -> Result<()> {
        let none = "not set";
        let names = expected.0.iter().chain(&self.0).map(|pair| &*pair.0);
        for name in names {
            let (found, wanted) = (
                self.get(name).unwrap_or(none),
                expected.get(name).unwrap_or(none),
            );
            if found != wanted {
                return Err(ArtefactError::Mismatch {
                    file: file.into(),
                    what: format!("{whose}{name}"),
                    found: found.into(),
                    expected: wanted.into(),
                });
            }
        }
        Ok(())
    }
}
