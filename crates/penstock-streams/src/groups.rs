//! How far a group of readers has come in a partition: a file each, replaced whole.
//!
//! 40 bytes, little-endian: `PENSTGRP`, format (4), CRC-32 of what follows (4), offset (8), when in ms (8), 8 zeros.

use std::io;

use penstock_disk::Disk;

use crate::fault::{Fault, Result};
use crate::writer::now_ms;

const MAGIC: &[u8; 8] = b"PENSTGRP";
const FORMAT: u32 = 1;
const SUFFIX: &str = ".group";
const UNNAMED: &str = "next-group";
/// Bytes of a group's name.
const MOST_NAME: usize = 100;
/// Groups of a partition.
const MOST_GROUPS: usize = 1000;

pub(crate) fn check(group: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if group.is_empty() || group.len() > MOST_NAME || !group.chars().all(plain) {
        let what = format!("group '{group}': 1 to {MOST_NAME} letters, digits, '.', '_' and '-'");
        return Err(Fault::Setting(what));
    }
    Ok(())
}

pub(crate) fn names(disk: &dyn Disk, label: &str) -> Result<Vec<String>> {
    let names = disk
        .names()
        .map_err(|error| Fault::io(label, "listing the folder", error))?;
    let group = |name: &String| name.strip_suffix(SUFFIX).map(str::to_owned);
    let mut groups: Vec<String> = names.iter().filter_map(group).collect();
    groups.sort_unstable();
    Ok(groups)
}

/// Whoever calls it holds a lock of the groups.
pub(crate) fn store(disk: &dyn Disk, label: &str, group: &str, offset: u64) -> Result<()> {
    let known = names(disk, label)?;
    if known.len() >= MOST_GROUPS && !known.iter().any(|name| name == group) {
        let what = format!("group '{group}': there are {MOST_GROUPS} groups already; forget some");
        return Err(Fault::Setting(what));
    }
    let mut rest = [0; 24];
    rest[..8].copy_from_slice(&offset.to_le_bytes());
    rest[8..16].copy_from_slice(&now_ms().to_le_bytes());
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&rest).to_le_bytes());
    bytes.extend_from_slice(&rest);
    let replace = || {
        let mut file = disk.create(UNNAMED)?;
        file.append(&bytes)?;
        file.sync()?;
        disk.rename(UNNAMED, &format!("{group}{SUFFIX}"))?;
        disk.sync_folder()
    };
    let file = format!("{label}/{group}{SUFFIX}");
    replace().map_err(|error| Fault::io(file, "storing a position", error))
}

pub(crate) fn load(disk: &dyn Disk, label: &str, group: &str) -> Result<Option<u64>> {
    let file = format!("{label}/{group}{SUFFIX}");
    let source = match disk.open(&format!("{group}{SUFFIX}")) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::io(file, "opening it", error)),
    };
    let mut bytes = [0; 40];
    let damaged = |what| Fault::NotALog {
        file: file.clone(),
        what,
    };
    if source.bytes() != 40 {
        return Err(damaged("not a group's position"));
    }
    let read = source.read(0, &mut bytes);
    read.map_err(|error| Fault::io(&*file, "reading it", error))?;
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
    if bytes[..8] != *MAGIC || number(12) != crc32fast::hash(&bytes[16..]) {
        return Err(damaged("a group's position, but damaged"));
    }
    if number(8) != FORMAT {
        let (found, known) = (number(8), FORMAT);
        return Err(Fault::Version { file, found, known });
    }
    Ok(Some(u64::from_le_bytes(
        bytes[16..24].try_into().expect("8 bytes"),
    )))
}

pub(crate) fn forget(disk: &dyn Disk, label: &str, group: &str) -> Result<()> {
    match disk.remove(&format!("{group}{SUFFIX}")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::io(
            format!("{label}/{group}{SUFFIX}"),
            "removing it",
            error,
        )),
        _ => Ok(()),
    }
}
