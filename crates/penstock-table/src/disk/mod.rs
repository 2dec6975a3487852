//! Where artefacts are written: a folder that can lose power at any instant. `real.rs` is one, `simulated.rs` plays one.

mod real;
pub mod simulated;

use std::io;

pub use real::Folder;

/// A folder of files. Names are plain file names.
pub trait Disk: Send + Sync {
    /// A new empty file, in place of any of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn Unfinished>>;
    fn open(&self, name: &str) -> io::Result<Box<dyn Source>>;
    /// In place of whatever `to` was; lasting once the folder is synced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync_folder(&self) -> io::Result<()>;
    fn names(&self) -> io::Result<Vec<String>>;
}

/// A file that is being written, from its beginning to its end.
pub trait Unfinished: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

/// Bytes that can be read at any place.
pub trait Source: Send + Sync {
    fn bytes(&self) -> u64;
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
}

impl Source for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(at).ok();
        let found = from.and_then(|at| self.get(at..)?.get(..out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
