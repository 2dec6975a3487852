//! A file as UTF-8 bytes: gz and zst decompressed, other encodings decoded, a byte-order mark dropped.

use std::io::{self, BufReader, Read};

use encoding_rs::{Decoder, DecoderResult, GBK};

/// Stands where a byte sequence is no character of the file's encoding. It never occurs in UTF-8, so that the field
/// which holds it is rejected like any other invalid text.
pub const INVALID: u8 = 0xFF;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Gbk,
    Latin1,
}

/// Decompress by the name's suffix, then decode.
pub fn open(
    raw: Box<dyn Read + Send>,
    name: &str,
    encoding: Encoding,
) -> io::Result<Box<dyn Read + Send>> {
    let name = name.to_ascii_lowercase();
    let plain: Box<dyn Read + Send> = if name.ends_with(".gz") {
        Box::new(flate2::bufread::MultiGzDecoder::new(
            BufReader::with_capacity(1 << 16, raw),
        ))
    } else if name.ends_with(".zst") || name.ends_with(".zstd") {
        Box::new(zstd::stream::read::Decoder::new(raw)?)
    } else {
        raw
    };
    Ok(match encoding {
        Encoding::Utf8 => plain,
        Encoding::Gbk => Box::new(Decoding::new(
            plain,
            Step::Gbk(GBK.new_decoder_without_bom_handling()),
        )),
        Encoding::Latin1 => Box::new(Decoding::new(plain, Step::Latin1)),
    })
}

/// What a file begins with that is no text of ours: a byte-order mark to skip, or the sign of UTF-16.
pub fn start_of_text(head: &[u8]) -> Result<usize, &'static str> {
    if head.starts_with(b"\xEF\xBB\xBF") {
        return Ok(3);
    }
    if head.starts_with(b"\xFF\xFE") || head.starts_with(b"\xFE\xFF") {
        return Err("it is UTF-16, which is not read");
    }
    if head.starts_with(b"PAR1") {
        return Err("it is a Parquet file");
    }
    if head.starts_with(b"\x1F\x8B") {
        return Err("it is compressed by gzip, but its name does not end in .gz");
    }
    if head.starts_with(b"\x28\xB5\x2F\xFD") {
        return Err("it is compressed by zstd, but its name does not end in .zst");
    }
    if head.starts_with(b"PK\x03\x04") {
        return Err("it is a zip archive (a spreadsheet, perhaps)");
    }
    Ok(0)
}

enum Step {
    Gbk(Decoder),
    Latin1,
}

/// Decodes block by block; a character cut by a block's end is carried by the decoder.
struct Decoding {
    inner: Box<dyn Read + Send>,
    step: Step,
    block: Vec<u8>,
    ready: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Decoding {
    fn new(inner: Box<dyn Read + Send>, step: Step) -> Self {
        Self {
            inner,
            step,
            block: vec![0; 1 << 16],
            ready: Vec::new(),
            at: 0,
            ended: false,
        }
    }

    fn refill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.at = 0;
        while self.ready.is_empty() && !self.ended {
            let got = self.inner.read(&mut self.block)?;
            self.ended = got == 0;
            match &mut self.step {
                Step::Latin1 => self.block[..got]
                    .iter()
                    .for_each(|&byte| latin1(byte, &mut self.ready)),
                Step::Gbk(decoder) => {
                    decode(decoder, &self.block[..got], self.ended, &mut self.ready)
                }
            }
        }
        Ok(())
    }
}

/// One latin-1 byte as UTF-8: its value is the code point.
fn latin1(byte: u8, out: &mut Vec<u8>) {
    if byte < 0x80 {
        out.push(byte);
    } else {
        out.extend([0xC0 | (byte >> 6), 0x80 | (byte & 0x3F)]);
    }
}

fn decode(decoder: &mut Decoder, mut input: &[u8], last: bool, out: &mut Vec<u8>) {
    let mut buffer = [0_u8; 8192];
    loop {
        let (result, read, written) =
            decoder.decode_to_utf8_without_replacement(input, &mut buffer, last);
        out.extend_from_slice(&buffer[..written]);
        input = &input[read..];
        match result {
            DecoderResult::InputEmpty => return,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => out.push(INVALID),
        }
    }
}

impl Read for Decoding {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready.len() {
            self.refill()?;
        }
        let n = out.len().min(self.ready.len() - self.at);
        out[..n].copy_from_slice(&self.ready[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], name: &str, encoding: Encoding) -> Vec<u8> {
        let mut out = Vec::new();
        open(Box::new(io::Cursor::new(bytes.to_vec())), name, encoding)
            .unwrap()
            .read_to_end(&mut out)
            .unwrap();
        out
    }

    #[test]
    fn every_latin1_byte_is_the_code_point_of_its_value() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = String::from_utf8(read(&bytes, "a", Encoding::Latin1)).unwrap();
        assert!(text.chars().map(u32::from).eq(0..256));
    }

    #[test]
    fn gbk_decodes_and_marks_what_is_no_character() {
        assert_eq!(
            read(b"a\xC4\xE3\xBA\xC3,", "a", Encoding::Gbk),
            "a你好,".as_bytes()
        );
        assert_eq!(read(b"x\xFF,y", "a", Encoding::Gbk), b"x\xFF,y");
    }
}
