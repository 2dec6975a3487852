//! Dictionary sources: UTF-8, `.gz` by suffix, LF or CRLF, a value a line.

use std::io::Read;
use std::path::Path;

use super::DictionaryError;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// The whole text, unpacked, known to be UTF-8, without a byte-order mark.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DictionaryError> {
    let io = |error| DictionaryError::Io {
        path: path.into(),
        error,
    };
    let mut text = std::fs::read(path).map_err(io)?;
    if path
        .extension()
        .is_some_and(|suffix| suffix.eq_ignore_ascii_case("gz"))
    {
        let mut unpacked = Vec::with_capacity(text.len() * 4);
        // Gzip files may hold several members one after another.
        flate2::read::MultiGzDecoder::new(&text[..])
            .read_to_end(&mut unpacked)
            .map_err(io)?;
        text = unpacked;
    }
    if let Err(error) = std::str::from_utf8(&text) {
        let line = text[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        return Err(DictionaryError::NotUtf8 {
            path: path.into(),
            line,
        });
    }
    if text.starts_with(BOM) {
        text.drain(..BOM.len());
    }
    Ok(text)
}

/// Lines without their ends. A newline ends a line, so the last one is optional and nothing follows it.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, after) = match memchr::memchr(b'\n', rest) {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    })
}
