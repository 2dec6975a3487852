//! Where artefacts and logs are written: a folder that can lose power at any instant. `real.rs` is one, `simulated.rs`
//! plays one.

mod real;
pub mod simulated;

use std::io;

pub use real::Folder;

/// A folder of files. Names are plain file names.
pub trait Disk: Send + Sync {
    /// A new empty file, in place of any of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn Unfinished>>;
    /// A file that is there, to be written on at its end.
    fn extend(&self, name: &str) -> io::Result<Box<dyn Unfinished>>;
    fn open(&self, name: &str) -> io::Result<Box<dyn Source>>;
    /// A file that nobody writes any more: its bytes where they lie, if that can be.
    fn map(&self, name: &str) -> io::Result<Box<dyn Source>> {
        self.open(name)
    }
    fn exists(&self, name: &str) -> io::Result<bool>;
    /// In place of whatever `to` was; lasting once the folder is synced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync_folder(&self) -> io::Result<()>;
    fn names(&self) -> io::Result<Vec<String>>;
    /// The lock of that name, not taken yet; its file is made if it is not there.
    fn lock(&self, name: &str) -> io::Result<Box<dyn Lock>>;
    /// Another number after each loss of power; 0 where nobody knows.
    fn boot(&self) -> u128;
}

/// A file that is being written at its end.
pub trait Unfinished: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

/// Bytes that can be read at any place.
pub trait Source: Send + Sync {
    /// How many there were when it was opened.
    fn bytes(&self) -> u64;
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()>;

    /// How many there are now: files grow.
    fn bytes_now(&self) -> io::Result<u64> {
        Ok(self.bytes())
    }

    /// `length` bytes from `at`: where they lie, else read into `room`.
    fn view<'a>(&'a self, at: u64, length: usize, room: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        room.resize(length, 0);
        self.read(at, room)?;
        Ok(room)
    }
}

/// Held by one at a time of all that share the folder; a holder that dies lets go.
pub trait Lock: Send {
    /// Whether it was free, and is held from now.
    fn try_take(&mut self) -> io::Result<bool>;
    fn release(&mut self) -> io::Result<()>;
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
