//! libsvm: `label [qid:N] index:value ... # comment`, read to sparse rows and written from them.
//!
//! Indices keep the file's order, and repeated ones stay: what they mean is the reader's affair. A dimension of 1e9
//! and more is ordinary, for nothing is ever made as wide as the data.

mod read;
mod write;

pub use self::read::LibsvmFormat;
pub use self::write::LibsvmWriter;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::read::number;
    use super::*;
    use crate::chunk::Chunk;
    use crate::reader::{Format, Parsed};
    use crate::{OnError, ReadError};

    fn parse(text: &str, on_error: OnError) -> Result<Parsed, ReadError> {
        let chunk = Chunk {
            file: 0,
            data: text.as_bytes().to_vec(),
            line: 1,
            first: true,
        };
        LibsvmFormat { base: 0, on_error }.parse(&chunk, &())
    }

    fn read(text: &[u8]) -> Option<f32> {
        let mut at = 0;
        number(text, &mut at).filter(|_| at == text.len())
    }

    proptest! {
        #[test]
        fn a_written_value_reads_back_the_same_bits(value in any::<f32>().prop_filter("finite", |v| v.is_finite())) {
            let mut out = Vec::new();
            LibsvmWriter::default().real(value, &mut out);
            prop_assert_eq!(read(&out).map(f32::to_bits), Some(value.to_bits()));
        }

        #[test]
        fn short_decimals_are_written_as_they_were(units in -99_999_999_i32..99_999_999) {
            let text = format!("{}", f64::from(units) / 1e4);
            let value = read(text.as_bytes()).unwrap();
            let mut out = Vec::new();
            LibsvmWriter::default().real(value, &mut out);
            prop_assert_eq!(read(&out), Some(value));
            prop_assert!(out.len() <= text.len());
        }

        #[test]
        fn no_text_panics(text in "[0-9:. #qid+e\n\r\t-]{0,80}") {
            for on_error in [OnError::Fail, OnError::Drop, OnError::Keep] {
                let _ = parse(&text, on_error);
            }
        }
    }

    #[test]
    fn odd_values_are_read_or_refused() {
        assert_eq!(read(b"1e-3"), Some(1e-3));
        assert_eq!(read(b"nan").map(f32::is_nan), Some(true));
        assert_eq!(read(b"123456789012345678"), Some(123_456_789_012_345_678.0));
        assert_eq!(
            (read(b"-"), read(b"."), read(b""), read(b"1x")),
            (None, None, None, None)
        );
    }
}
