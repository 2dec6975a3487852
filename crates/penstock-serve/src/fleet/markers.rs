//! Crash markers: a small mapped file that says which bundles were running when the process died.
//!
//! A lane has a slot of 128 bytes: its bundle's digest (64 bytes of text), then one byte: 0 idle, 1 running, 2 crashed
//! here. The supervisor reads it after a crash. The signal handler tells the run that crashed from those beside it;
//! where a library crashed in a thread of its own, every slot that was running is left under suspicion.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Once};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;

const SLOT: usize = 128;
const STATE: usize = 64;
const SLOTS: usize = 2048;

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const CRASHED: u8 = 2;

thread_local! {
    /// The state byte of the run under way in this thread.
    static UNDER_WAY: Cell<*const AtomicU8> = const { Cell::new(std::ptr::null()) };
}

/// The file. Without one (`none`) markers mark nothing.
pub struct Markers {
    file: Option<Arc<Mapped>>,
}

struct Mapped {
    map: MmapRaw,
    free: Mutex<Vec<usize>>,
}

impl Markers {
    pub fn none() -> Markers {
        Markers { file: None }
    }

    /// Makes the file anew, only its owner's to read, and takes over the signals of crashes.
    pub fn create(path: &Path) -> io::Result<Markers> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.set_len((SLOT * SLOTS) as u64)?;
        let map = MmapOptions::new().map_raw(&file)?;
        on_crash_mark();
        let free = Mutex::new((0..SLOTS).rev().collect());
        Ok(Markers {
            file: Some(Arc::new(Mapped { map, free })),
        })
    }

    /// A slot for a lane of a bundle; a marker that marks nothing where all are taken.
    pub fn slot(&self, digest: &str) -> Marker {
        let taken = self.file.as_ref().and_then(|file| {
            let slot = file.free.lock().pop()?;
            let text = digest.as_bytes();
            let length = text.len().min(STATE);
            // SAFETY: the slot lies within the map, and was nobody's until now.
            unsafe {
                let start = file.map.as_mut_ptr().add(slot * SLOT);
                std::ptr::write_bytes(start, 0, SLOT);
                std::ptr::copy_nonoverlapping(text.as_ptr(), start, length);
            }
            Some((file.clone(), slot))
        });
        Marker { taken }
    }
}

/// A lane's slot, given back when dropped.
pub struct Marker {
    taken: Option<(Arc<Mapped>, usize)>,
}

impl Marker {
    fn state(&self) -> Option<&AtomicU8> {
        let (file, slot) = self.taken.as_ref()?;
        // SAFETY: within the map, which lives as long as `self`; only ever used as an atomic.
        Some(unsafe { AtomicU8::from_ptr(file.map.as_mut_ptr().add(slot * SLOT + STATE)) })
    }

    /// The bundle runs in this thread until what comes back is dropped.
    pub fn running(&self) -> Running<'_> {
        let state = self.state();
        if let Some(state) = state {
            state.store(RUNNING, Ordering::Relaxed);
            UNDER_WAY.set(state);
        }
        Running { state }
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        if let Some((file, slot)) = self.taken.take() {
            file.free.lock().push(slot);
        }
    }
}

pub struct Running<'a> {
    state: Option<&'a AtomicU8>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.state {
            UNDER_WAY.set(std::ptr::null());
            state.store(IDLE, Ordering::Relaxed);
        }
    }
}

/// Marks the crashing thread's slot, then lets the crash go on as it would have.
extern "C" fn crashed(signal: libc::c_int) {
    let state = UNDER_WAY.get();
    if !state.is_null() {
        // SAFETY: set by `running` of a marker that is borrowed until it is unset; a store of a byte.
        unsafe { (*state).store(CRASHED, Ordering::Relaxed) };
    }
    // SAFETY: both may be called in a handler. A fault happens again when the handler returns, an abort is raised anew.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        if signal != libc::SIGABRT {
            libc::raise(signal);
        }
    }
}

fn on_crash_mark() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGABRT,
        ] {
            // SAFETY: the handler does only what a handler may; it runs on the alternate stack that Rust gives threads.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = crashed as *const () as usize;
                action.sa_flags = libc::SA_ONSTACK;
                libc::sigemptyset(&mut action.sa_mask);
                libc::sigaction(signal, &action, std::ptr::null_mut());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(path: &Path) -> Vec<(String, u8)> {
        let bytes = std::fs::read(path).unwrap();
        let each = bytes.chunks(SLOT).map(|slot| {
            let digest = slot[..STATE]
                .iter()
                .take_while(|b| **b != 0)
                .copied()
                .collect();
            (String::from_utf8(digest).unwrap(), slot[STATE])
        });
        each.filter(|(digest, _)| !digest.is_empty()).collect()
    }

    #[test]
    fn the_file_says_which_bundles_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running");
        let markers = Markers::create(&path).unwrap();
        let (a, b) = (markers.slot("aa"), markers.slot("bb"));
        let run = a.running();
        assert_eq!(slots(&path), [("aa".into(), RUNNING), ("bb".into(), IDLE)]);
        drop(run);
        let _run = b.running();
        assert_eq!(slots(&path), [("aa".into(), IDLE), ("bb".into(), RUNNING)]);
    }

    #[test]
    fn slots_are_used_again_and_none_is_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let markers = Markers::create(&folder.path().join("running")).unwrap();
        for _ in 0..3 * SLOTS {
            drop(markers.slot("aa"));
        }
        let taken: Vec<Marker> = (0..SLOTS + 1).map(|_| markers.slot("aa")).collect();
        assert!(taken[SLOTS].state().is_none());
        drop(taken[SLOTS].running());
        drop(Markers::none().slot("aa").running());
    }

    /// The test binary itself, started again, crashes here.
    #[test]
    fn a_crash_marks_the_run_it_happened_in() {
        const PLACE: &str = "PENSTOCK_TEST_CRASH";
        if let Ok(path) = std::env::var(PLACE) {
            let markers = Markers::create(Path::new(&path)).unwrap();
            let (calm, bad) = (markers.slot("calm"), markers.slot("bad"));
            std::thread::scope(|scope| {
                let beside = scope.spawn(|| {
                    let _run = calm.running();
                    std::thread::park();
                });
                while calm.state().unwrap().load(Ordering::Relaxed) != RUNNING {
                    std::thread::yield_now();
                }
                let _run = bad.running();
                // SAFETY: ends the process, which is the point.
                unsafe { libc::raise(libc::SIGSEGV) };
                beside.join().unwrap();
            });
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running");
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "fleet::markers::tests::a_crash_marks_the_run_it_happened_in",
            ])
            .env(PLACE, &path)
            .output()
            .unwrap()
            .status;
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
        assert_eq!(
            slots(&path),
            [("calm".into(), RUNNING), ("bad".into(), CRASHED)]
        );
    }
}
