//! Fresh zeroed memory straight from the system: mappings that cost nothing until touched, on huge pages once full.
//!
//! A row or an index line is anywhere, so on ordinary pages most look-ups would also wait for the page tables.

use std::ptr::NonNull;

pub const PAGE: usize = 4096;
pub const HUGE_PAGE: usize = 2 << 20;

/// Bytes that the system could give now without taking them from others, or than the container may have; all there are
/// where it does not tell.
pub fn available() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = number_after(&told, "MemAvailable:").map_or(u64::MAX, |found| found * 1024);
    let group = |file: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok();
    kilobytes.min(left_in_group(group).unwrap_or(u64::MAX))
}

/// The number behind a word that a line begins with.
fn number_after(told: &str, word: &str) -> Option<u64> {
    let rest = told.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What the process's control group (version 2) may still take, by the files that `read` has of it: pages of files count as
/// free, since they are given up first.
fn left_in_group(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let (most, now) = (number("memory.max")?, number("memory.current")?);
    let parts = read("memory.stat")?;
    let files = number_after(&parts, "active_file ")? + number_after(&parts, "inactive_file ")?;
    Some(most.saturating_sub(now.saturating_sub(files)))
}

/// A zeroed range of memory on 2 MiB, given back when dropped.
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is memory and nothing else; who may read or write it is decided by its users.
unsafe impl Send for Mapping {}
// SAFETY: as above; `Mapping` itself gives out an address and is never written.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(all(unix, not(miri)))]
mod system {
    use super::*;
    #[cfg(target_os = "linux")]
    use std::sync::{OnceLock, mpsc::Sender};

    impl Mapping {
        /// `bytes` of zeros, or None if the system has no more.
        pub fn zeroed(bytes: usize) -> Option<Mapping> {
            let bytes = bytes.next_multiple_of(HUGE_PAGE);
            let slack = HUGE_PAGE - PAGE;
            // SAFETY: a new anonymous private mapping at an address of the system's choice touches nobody's memory.
            let raw = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    bytes + slack,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            };
            if raw == libc::MAP_FAILED {
                return None;
            }
            let start = raw as usize;
            let base = start.next_multiple_of(HUGE_PAGE);
            let (before, after) = (base - start, start + slack - base);
            // SAFETY: both ends and the middle lie inside the mapping that was just made, on whole pages.
            unsafe {
                if before > 0 {
                    libc::munmap(raw, before);
                }
                if after > 0 {
                    libc::munmap((base + bytes) as *mut libc::c_void, after);
                }
            }
            Some(Mapping {
                base: NonNull::new(base as *mut u8)?,
                bytes,
            })
        }

        /// Has the 2 MiB number `part` of a mapping, filled by now, brought onto a huge page by and by: in a thread of
        /// its own, since the kernel may first have to compact memory for milliseconds. Nothing happens beyond its
        /// end, or on a system that cannot. Others may read and write meanwhile.
        pub fn make_huge(&self, part: usize) {
            #[cfg(target_os = "linux")]
            if (part + 1) * HUGE_PAGE <= self.bytes
                && let Some(collapser) = COLLAPSER.get_or_init(collapser)
            {
                // A thread that is gone (after a fork) only leaves the pages small.
                let _ = collapser.send(self.base.as_ptr() as usize + part * HUGE_PAGE);
            }
        }
    }

    #[cfg(target_os = "linux")]
    impl Mapping {
        /// Has what is touched from now on come on huge pages, where the system has them.
        pub fn prefer_huge(&self) {
            // SAFETY: advice about pages of this mapping, which keep what is in them.
            unsafe { libc::madvise(self.base.as_ptr().cast(), self.bytes, libc::MADV_HUGEPAGE) };
        }

        /// Takes the first `bytes` from the system now, on huge pages where it has them, rather than as they are touched.
        /// False if it has not so much. Systems that know no such call give them as they are touched.
        pub fn take(&self, bytes: usize) -> bool {
            let at = self.base.as_ptr().cast();
            let bytes = bytes.next_multiple_of(PAGE).min(self.bytes);
            self.prefer_huge();
            // SAFETY: advice about pages of this mapping, which keep what is in them.
            unsafe {
                libc::madvise(at, bytes, libc::MADV_POPULATE_WRITE) == 0
                    || std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    impl Mapping {
        pub fn prefer_huge(&self) {}

        pub fn take(&self, _bytes: usize) -> bool {
            true
        }
    }

    #[cfg(target_os = "linux")]
    static COLLAPSER: OnceLock<Option<Sender<usize>>> = OnceLock::new();

    #[cfg(target_os = "linux")]
    fn collapser() -> Option<Sender<usize>> {
        let (sender, parts) = std::sync::mpsc::channel::<usize>();
        let collapse = move || {
            for at in parts {
                // SAFETY: advice. What is there stays as it is; if the mapping has been given back meanwhile there is
                // nothing, or memory of somebody else, which is none the worse on a huge page.
                unsafe { libc::madvise(at as *mut libc::c_void, HUGE_PAGE, libc::MADV_COLLAPSE) };
            }
        };
        let named = std::thread::Builder::new().name("penstock-pages".into());
        named.spawn(collapse).ok().map(|_| sender)
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: exactly the range that `zeroed` kept; the owner of its contents is gone.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
        }
    }
}

#[cfg(not(all(unix, not(miri))))]
mod system {
    use super::*;
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    impl Mapping {
        pub fn zeroed(bytes: usize) -> Option<Mapping> {
            let bytes = bytes.next_multiple_of(PAGE);
            let layout = Layout::from_size_align(bytes, PAGE).ok()?;
            // SAFETY: the layout is not empty, or the answer is None.
            let base = if bytes == 0 {
                return None;
            } else {
                unsafe { alloc_zeroed(layout) }
            };
            Some(Mapping {
                base: NonNull::new(base)?,
                bytes,
            })
        }

        pub fn make_huge(&self, _part: usize) {}

        pub fn prefer_huge(&self) {}

        pub fn take(&self, _bytes: usize) -> bool {
            true
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the layout that `zeroed` allocated with.
            unsafe {
                dealloc(
                    self.base.as_ptr(),
                    Layout::from_size_align_unchecked(self.bytes, PAGE),
                )
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::left_in_group;

    #[test]
    fn pages_of_files_are_left_to_a_group() {
        let left = |most: &str| {
            left_in_group(|file| {
                let said = match file {
                    "memory.max" => most,
                    "memory.current" => "900\n",
                    "memory.stat" => "anon 500\nactive_file 100\ninactive_file 250\n",
                    _ => return None,
                };
                Some(said.to_owned())
            })
        };
        assert_eq!(left("1000\n"), Some(450));
        assert_eq!(left("500\n"), Some(0));
        assert_eq!(left("max\n"), None);
        assert_eq!(left_in_group(|_| None), None);
    }
}
