//! Content codings: gzip, deflate (zlib) and zstd.

use std::io::{Read, Write};

use bytes::Bytes;

use super::limits::Limits;
use crate::error::{Fault, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    /// zlib's frame, as HTTP means it.
    Deflate,
    Zstd,
}

/// Replies shorter than this grow when compressed, or nearly so.
const WORTH_BYTES: usize = 1024;

impl Coding {
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Zstd => "zstd",
        }
    }

    fn named(name: &str) -> Option<Coding> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Coding::Gzip),
            () if is("deflate") => Some(Coding::Deflate),
            () if is("zstd") => Some(Coding::Zstd),
            () => None,
        }
    }

    /// Of a `Content-Encoding`; None: as it is.
    pub fn of_content(header: &str) -> Result<Option<Coding>> {
        let name = header.trim();
        if name.is_empty() || name.eq_ignore_ascii_case("identity") {
            return Ok(None);
        }
        Coding::named(name).map(Some).ok_or_else(|| {
            Fault::invalid(format!(
                "Content-Encoding {name:?} is not read here; send gzip, deflate, zstd or identity"
            ))
        })
    }

    /// Of an `Accept-Encoding`, for a reply of this length. One coding alone is an order; several are an offer, which HTTP
    /// libraries make unasked: it is taken where there is something to gain. The first of the highest quality wins.
    pub fn of_accept(header: &str, length: usize) -> Option<Coding> {
        let mut best: Option<(Coding, f32)> = None;
        let mut offers = 0;
        for offer in header.split(',') {
            let mut parts = offer.split(';');
            let name = parts.next().unwrap_or("").trim();
            let quality = parts
                .find_map(|part| part.trim().strip_prefix("q="))
                .map_or(1.0, |text| text.parse().unwrap_or(0.0));
            offers += 1;
            let Some(coding) = Coding::named(name).filter(|_| quality > 0.0) else {
                continue;
            };
            if best.is_none_or(|(_, before)| quality > before) {
                best = Some((coding, quality));
            }
        }
        let worth = offers == 1 || length >= WORTH_BYTES;
        best.filter(|_| worth).map(|(coding, _)| coding)
    }

    /// The body behind a coding. At most the limit and a byte are ever held.
    pub fn decode(self, body: &[u8], limits: &Limits) -> Result<Bytes> {
        let mut decoded = Vec::with_capacity((body.len() * 4).min(limits.body_bytes));
        let most = limits.body_bytes as u64 + 1;
        let read = match self {
            Coding::Gzip => flate2::read::MultiGzDecoder::new(body)
                .take(most)
                .read_to_end(&mut decoded),
            Coding::Deflate => flate2::read::ZlibDecoder::new(body)
                .take(most)
                .read_to_end(&mut decoded),
            Coding::Zstd => zstd::Decoder::with_buffer(body).and_then(|mut decoder| {
                // What a frame may ask for as its window: 2^27 bytes is the format's own default limit, twice ours.
                decoder.window_log_max(26)?;
                decoder.take(most).read_to_end(&mut decoded)
            }),
        };
        match read {
            Ok(length) if length as u64 == most => Err(limits.too_long()),
            Ok(_) => Ok(decoded.into()),
            Err(error) => Err(Fault::invalid(format!(
                "the body is not {}: {error}",
                self.name()
            ))),
        }
    }

    /// The bytes, coded. Fails never: what is written to is memory.
    pub fn encode(self, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
        let into = Vec::with_capacity(bytes.len() / 2 + 64);
        let level = flate2::Compression::fast();
        match self {
            Coding::Gzip => {
                let mut coder = flate2::write::GzEncoder::new(into, level);
                coder.write_all(bytes)?;
                coder.finish()
            }
            Coding::Deflate => {
                let mut coder = flate2::write::ZlibEncoder::new(into, level);
                coder.write_all(bytes)?;
                coder.finish()
            }
            Coding::Zstd => zstd::bulk::compress(bytes, 1),
        }
    }
}
