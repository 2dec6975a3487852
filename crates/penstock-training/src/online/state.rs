//! Numbers as little-endian bytes, and back: what of a trainer a cut has beside the tables' rows.

#[derive(Default)]
pub(crate) struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn u64(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    pub fn f64(&mut self, number: f64) {
        self.u64(number.to_bits());
    }

    pub fn floats(&mut self, floats: &[f32]) {
        self.u64(floats.len() as u64);
        self.bytes
            .extend(floats.iter().flat_map(|x| x.to_le_bytes()));
    }
}

/// None where the bytes end too soon.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    pub fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    pub fn f64(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits)
    }

    pub fn floats(&mut self) -> Option<Vec<f32>> {
        let bytes = usize::try_from(self.u64()?).ok()?.checked_mul(4)?;
        let (floats, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        let (words, _) = floats.as_chunks();
        Some(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }
}
