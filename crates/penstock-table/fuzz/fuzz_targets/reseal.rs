/// Makes every checksum of an artefact right, so that what lies behind them is read. Bytes without a frame stay as they are.
pub fn reseal(bytes: &mut [u8]) -> Option<()> {
    let long = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(word.try_into().ok()?) as usize)
    };
    let end = bytes.len().checked_sub(64)?;
    let seal = |unit: &mut [u8]| {
        let sum = xxhash_rust::xxh3::xxh3_64(&unit[..56]);
        unit[56..64].copy_from_slice(&sum.to_le_bytes());
    };
    seal(bytes.get_mut(..64)?);
    let (contents, count) = (long(bytes, end)?, long(bytes, end + 8)?);
    for number in 0..count.min(bytes.len() / 48) {
        let at = contents.checked_add(number * 48)?;
        bytes.get(at..at.checked_add(48)?)?;
        let (offset, length) = (long(bytes, at + 16)?, long(bytes, at + 24)?);
        let padded = length.checked_next_multiple_of(64)?;
        let sum = xxhash_rust::xxh3::xxh3_64(bytes.get(offset..offset.checked_add(padded)?)?);
        bytes
            .get_mut(at + 32..at + 40)?
            .copy_from_slice(&sum.to_le_bytes());
    }
    let sum = xxhash_rust::xxh3::xxh3_64(bytes.get(contents..end)?);
    bytes[end + 16..end + 24].copy_from_slice(&sum.to_le_bytes());
    seal(&mut bytes[end..]);
    Some(())
}
