//! Parquet's hybrid of runs and packed bits: levels, and indices into dictionaries.

use super::{Result, Unreadable};

const DAMAGED: Unreadable = Unreadable::Damaged("a page's levels or indices are damaged");

/// One run: a value that repeats, or values packed one after another.
pub(super) enum Run<'a> {
    Same(u32, usize),
    /// The bytes, and how many values of them count.
    Packed(&'a [u8], usize),
}

/// The runs of `count` numbers of `width` bits.
pub(super) struct Runs<'a> {
    data: &'a [u8],
    width: usize,
    left: usize,
}

impl<'a> Runs<'a> {
    pub fn new(data: &'a [u8], width: usize, count: usize) -> Runs<'a> {
        Runs {
            data,
            width,
            left: count,
        }
    }

    pub fn next(&mut self) -> Result<Option<Run<'a>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let (mut head, mut shift) = (0u64, 0);
        loop {
            let (&byte, rest) = self.data.split_first().ok_or(DAMAGED)?;
            self.data = rest;
            head |= u64::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
            if shift > 56 {
                return Err(DAMAGED);
            }
        }
        let many = (head >> 1) as usize;
        if head & 1 == 0 {
            let bytes = self.width.div_ceil(8);
            let (value, rest) = self.data.split_at_checked(bytes).ok_or(DAMAGED)?;
            self.data = rest;
            let value = value
                .iter()
                .rev()
                .fold(0, |all, &b| all << 8 | u32::from(b));
            let many = many.min(self.left);
            if many == 0 {
                return Err(DAMAGED);
            }
            self.left -= many;
            return Ok(Some(Run::Same(value, many)));
        }
        // Groups of eight. A last one may be cut short by a frugal writer: what counts must be there.
        let count = many.checked_mul(8).ok_or(DAMAGED)?.min(self.left);
        let bytes = many
            .checked_mul(self.width)
            .ok_or(DAMAGED)?
            .min(self.data.len());
        if count == 0 || bytes * 8 < count * self.width {
            return Err(DAMAGED);
        }
        let (packed, rest) = self.data.split_at(bytes);
        self.data = rest;
        self.left -= count;
        Ok(Some(Run::Packed(packed, count)))
    }

    /// All of them, one by one.
    pub fn each(mut self, mut each: impl FnMut(u32)) -> Result<()> {
        while let Some(run) = self.next()? {
            match run {
                Run::Same(value, many) => (0..many).for_each(|_| each(value)),
                Run::Packed(data, count) => {
                    (0..count).for_each(|at| each(number(data, self.width, at)));
                }
            }
        }
        Ok(())
    }

    /// Whether all of them are `value`.
    pub fn all(mut self, value: u32) -> Result<bool> {
        while let Some(run) = self.next()? {
            let same = match run {
                Run::Same(found, _) => found == value,
                Run::Packed(data, count) if matches!(self.width, 1 | 2) => {
                    let whole = count * self.width / 8;
                    let byte =
                        (value as u8).wrapping_mul(if self.width == 1 { 0xff } else { 0x55 });
                    data[..whole].iter().all(|&b| b == byte)
                        && (whole * 8 / self.width..count)
                            .all(|at| number(data, self.width, at) == value)
                }
                Run::Packed(data, count) => {
                    (0..count).all(|at| number(data, self.width, at) == value)
                }
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The places of the zeros among numbers of one bit.
    pub fn each_zero(mut self, mut each: impl FnMut(usize)) -> Result<()> {
        debug_assert_eq!(self.width, 1);
        let mut at = 0;
        while let Some(run) = self.next()? {
            match run {
                Run::Same(value, many) => {
                    if value == 0 {
                        (at..at + many).for_each(&mut each);
                    }
                    at += many;
                }
                Run::Packed(data, count) => {
                    for (word, bytes) in data.chunks(8).enumerate() {
                        let mut eight = [0xff; 8];
                        eight[..bytes.len()].copy_from_slice(bytes);
                        let mut zeros = !u64::from_le_bytes(eight);
                        while zeros != 0 {
                            let place = word * 64 + zeros.trailing_zeros() as usize;
                            if place >= count {
                                break;
                            }
                            each(at + place);
                            zeros &= zeros - 1;
                        }
                    }
                    at += count;
                }
            }
        }
        Ok(())
    }
}

/// Number `at` of packed ones of `width` bits, 0..=32.
#[inline(always)]
fn number(data: &[u8], width: usize, at: usize) -> u32 {
    let bit = at * width;
    let mut eight = [0; 8];
    let bytes = &data[(bit / 8).min(data.len())..];
    let there = bytes.len().min(8);
    eight[..there].copy_from_slice(&bytes[..there]);
    (u64::from_le_bytes(eight) >> (bit % 8) & ((1 << width) - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8], width: usize, count: usize) -> Result<Vec<u32>> {
        let mut found = vec![];
        Runs::new(data, width, count).each(|value| found.push(value))?;
        Ok(found)
    }

    #[test]
    fn runs_and_packed_groups_are_the_formats_own_example() {
        // The example of Parquet's encodings page: 0 to 7 in three bits.
        let packed = [3, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        assert_eq!(read(&packed, 3, 8).unwrap(), (0..8).collect::<Vec<_>>());
        assert_eq!(read(&[10, 6], 3, 5).unwrap(), [6; 5]);
        assert_eq!(read(&[0x98, 0x01, 1], 1, 76).unwrap(), [1; 76]);
        assert!(
            read(&[10], 3, 5).is_err()
                && read(&[3, 1], 3, 8).is_err()
                && read(&[0, 1], 1, 2).is_err()
        );
    }

    #[test]
    fn zeros_are_found_across_runs() {
        // 8 packed (0b1111_0110), then three zeros, then five ones.
        let data = [3, 0b1111_0110, 6, 0, 10, 1];
        let mut found = vec![];
        Runs::new(&data, 1, 16)
            .each_zero(|at| found.push(at))
            .unwrap();
        assert_eq!(found, [0, 3, 8, 9, 10]);
        assert!(!Runs::new(&data, 1, 16).all(1).unwrap());
        assert!(Runs::new(&[7, 0xff, 0xff, 0x03], 1, 18).all(1).unwrap());
        assert!(
            Runs::new(&[5, 0xaa, 0xaa, 0xaa, 0x0a], 2, 14)
                .all(2)
                .unwrap()
        );
    }
}
