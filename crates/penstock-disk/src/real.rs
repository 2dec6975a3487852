//! A folder of this machine.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use memmap2::Mmap;

use super::{Disk, Lock, Source, Unfinished};

/// A folder, made if it is not there.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Folder> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Disk for Folder {
    fn create(&self, name: &str) -> io::Result<Box<dyn Unfinished>> {
        Ok(Box::new(File::create(self.0.join(name))?))
    }

    fn extend(&self, name: &str) -> io::Result<Box<dyn Unfinished>> {
        let file = OpenOptions::new().append(true).open(self.0.join(name))?;
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Source>> {
        let file = File::open(self.0.join(name))?;
        let bytes = file.metadata()?.len();
        Ok(Box::new(Opened { file, bytes }))
    }

    fn map(&self, name: &str) -> io::Result<Box<dyn Source>> {
        let file = File::open(self.0.join(name))?;
        // SAFETY: files that are mapped are written no more. One that somebody cuts all the same is not read beyond its
        // end: every view asks for its length first.
        let bytes = unsafe { Mmap::map(&file) }?;
        Ok(Box::new(Mapped { file, bytes }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.0.join(name).try_exists()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        // Elsewhere a folder cannot be opened, and renames are in order by themselves.
        if cfg!(unix) {
            File::open(&self.0)?.sync_all()?;
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Lock>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.0.join(name))?;
        Ok(Box::new(file))
    }

    fn boot(&self) -> u128 {
        static BOOT: LazyLock<u128> = LazyLock::new(|| {
            let said = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            u128::from_str_radix(&said.trim().replace('-', ""), 16).unwrap_or(0)
        });
        *BOOT
    }
}

impl Unfinished for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl Lock for File {
    fn try_take(&mut self) -> io::Result<bool> {
        match self.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn release(&mut self) -> io::Result<()> {
        self.unlock()
    }
}

struct Mapped {
    file: File,
    bytes: Mmap,
}

impl Mapped {
    fn part(&self, at: u64, length: usize) -> io::Result<&[u8]> {
        let from = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let there = self.bytes_now()?.min(self.bytes.len() as u64) as usize;
        let part = self.bytes[..there]
            .get(from..)
            .and_then(|rest| rest.get(..length));
        part.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Source for Mapped {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(self.part(at, out.len())?);
        Ok(())
    }

    fn bytes_now(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn view<'a>(&'a self, at: u64, length: usize, _: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        self.part(at, length)
    }
}

struct Opened {
    file: File,
    bytes: u64,
}

impl Source for Opened {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn bytes_now(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    #[cfg(unix)]
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, out, at)
    }

    #[cfg(not(unix))]
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(out)
    }
}
