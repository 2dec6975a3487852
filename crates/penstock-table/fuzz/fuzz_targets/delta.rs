//! Any bytes as a record of a chain: an error or a record whose every row can be read, and no panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_table::delta::{Content, Record};
use xxhash_rust::xxh3::xxh3_64;

/// So that what is behind the checksum is reached too.
fn reseal(bytes: &mut [u8]) {
    let Some((head, body)) = bytes.split_at_mut_checked(64) else { return };
    head[..8].copy_from_slice(b"PENSTDLT");
    head[8..10].copy_from_slice(&1_u16.to_le_bytes());
    head[48..52].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let mut whole = head[..56].to_vec();
    whole.extend(xxh3_64(body).to_le_bytes());
    head[56..].copy_from_slice(&xxh3_64(&whole).to_le_bytes());
}

fuzz_target!(|data: &[u8]| {
    let _ = Record::read(data);
    let mut bytes = data.to_vec();
    reseal(&mut bytes);
    let Ok(record) = Record::read(&bytes) else { return };
    match record.content {
        Content::Rows { blocks, .. } => {
            for block in &blocks {
                let mut row = vec![0.0; block.dim];
                (0..block.rows()).for_each(|number| block.load(number, &mut row));
                assert_eq!(block.keys().len(), block.rows());
            }
        }
        Content::Commit(commit) => assert!(!commit.covers(&[1]) || commit.parts == 1),
        _ => {}
    }
});
