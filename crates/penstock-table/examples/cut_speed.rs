//! What cuts cost: the pause of `prepare`, updates while a cut is open, writing, restoring, and lookups in snapshot and view.
//!
//! `cargo run --release --example cut_speed -- [rows] [folder]`. One thread, dim 16, row-wise Adagrad.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use penstock_table::disk::{Disk, Folder};
use penstock_table::hash::mix;
use penstock_table::{
    Change, Checkpoints, CutOptions, Engine, Keys, Optimizer, RowParts, Snapshot, Store,
    TableConfig, Update, View, prepare_snapshot,
};

const DIM: usize = 16;
const BATCH: u64 = 4096;

fn store() -> Store {
    let adagrad = Optimizer::RowwiseAdagrad {
        epsilon: 1e-8,
        initial: 0.0,
    };
    let mut store = Store::default();
    let config = TableConfig::new("speed", DIM, adagrad, 0.1);
    store
        .add_table(config, Engine::default())
        .expect("a sound table");
    store.add_slot(1, 0, Keys::Raw).expect("a new slot");
    store
}

/// This thread's processor time.
fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (wall, cpu) = (Instant::now(), thread_time());
    let done = work();
    let (cpu, wall) = (thread_time() - cpu, wall.elapsed());
    println!(
        "{what}: {:.3} ms of thread CPU, {:.3} ms",
        cpu.as_secs_f64() * 1e3,
        wall.as_secs_f64() * 1e3
    );
    done
}

/// `batches` batches of uniform keys; returns thread CPU a key.
fn updates(store: &mut Store, rows: u64, batches: u64, seed: u64) -> f64 {
    let grads = vec![0.01; BATCH as usize * DIM];
    let begun = thread_time();
    for batch in 0..batches {
        let keys: Vec<u64> = (0..BATCH)
            .map(|i| mix(seed ^ (batch * BATCH + i)) % rows)
            .collect();
        let update = Update {
            keys: &keys,
            grads: &grads,
            ..Update::default()
        };
        store.update(1, &update).expect("memory");
    }
    (thread_time() - begun).as_secs_f64() * 1e9 / (batches * BATCH) as f64
}

fn lookups(rows: u64, seconds: f64, lookup: impl Fn(&[u64], &mut [f32])) -> f64 {
    let mut out = vec![0.0; BATCH as usize * DIM];
    let (begun, mut keys, mut count) = (thread_time(), vec![0; BATCH as usize], 0u64);
    while (thread_time() - begun).as_secs_f64() < seconds {
        keys.iter_mut()
            .enumerate()
            .for_each(|(i, key)| *key = mix(count + i as u64) % rows);
        lookup(&keys, &mut out);
        count += BATCH;
    }
    count as f64 / (thread_time() - begun).as_secs_f64() / 1e6
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rows: u64 = arguments
        .next()
        .map_or(1_000_000, |rows| rows.parse().expect("a number of rows"));
    let path = PathBuf::from(
        arguments
            .next()
            .unwrap_or_else(|| "/tmp/penstock-cut-speed".into()),
    );
    let disk: Arc<dyn Disk> = Arc::new(Folder::new(&path).expect("a folder"));
    let mut live = store();
    let grads = vec![0.01; BATCH as usize * DIM];
    for first in (0..rows).step_by(BATCH as usize) {
        let keys: Vec<u64> = (first..(first + BATCH).min(rows)).collect();
        let update = Update {
            keys: &keys,
            grads: &grads[..keys.len() * DIM],
            ..Update::default()
        };
        live.update(1, &update).expect("memory");
    }
    println!("{rows} rows, dim {DIM}");
    let mut folder = Checkpoints::open(disk.clone(), "speed").expect("the folder");
    println!(
        "update, no cut: {:.0} ns a key",
        updates(&mut live, rows, 200, 1)
    );
    let options = CutOptions {
        copy_limit_bytes: 8 << 30,
        ..CutOptions::default()
    };
    for full in [true, false] {
        let kind = if full { "full" } else { "incremental" };
        let mut open = timed(&format!("{kind}: prepare"), || {
            folder
                .prepare(&mut live, kind, options)
                .expect("no cut is open")
        });
        println!("{kind}: {:?}", open.work());
        println!(
            "{kind}: update with the cut open: {:.0} ns a key",
            updates(&mut live, rows, 200, 2)
        );
        println!("{kind}: {} bytes copied", live.tables()[0].copied_bytes());
        let mut longest = Duration::ZERO;
        timed(&format!("{kind}: writing in steps of 20,000 rows"), || {
            loop {
                let begun = thread_time();
                let whole = open.step(&live, 20_000).expect("disk");
                longest = longest.max(thread_time() - begun);
                if whole {
                    break;
                }
            }
        });
        println!(
            "{kind}: longest step {:.3} ms of thread CPU",
            longest.as_secs_f64() * 1e3
        );
        let done = timed(&format!("{kind}: commit"), || {
            folder.commit(open, &mut live).expect("disk")
        });
        println!(
            "{kind}: {done:?}, {} bytes",
            std::fs::metadata(path.join(&done.file)).map_or(0, |file| file.len())
        );
    }
    timed("restore", || {
        folder
            .newest()
            .expect("sound")
            .expect("a cut")
            .restore(store(), 0..4096)
            .expect("sound")
    });
    let open =
        prepare_snapshot(&disk, "snapshot", "speed", &mut live, 1 << 30).expect("no cut is open");
    timed("snapshot: writing", || {
        open.commit(&mut live).expect("disk")
    });
    let snapshot = timed("snapshot: open", || {
        Snapshot::open(&path.join("snapshot"), None).expect("sound")
    });
    timed("snapshot: verify", || snapshot.verify().expect("sound"));
    let table = lookups(rows, 1.0, |keys, out| {
        live.lookup(1, keys, out).expect("a slot");
    });
    let mapped = lookups(rows, 1.0, |keys, out| {
        snapshot.lookup(1, keys, out).expect("sound");
    });
    println!("lookups: table {table:.1} M/s, snapshot {mapped:.1} M/s");
    let view = View::new(Arc::new(snapshot), 256 << 20).expect("memory");
    let read = |view: &View| {
        lookups(rows, 1.0, |keys, out| {
            view.lookup(1, keys, out).expect("sound");
        })
    };
    println!("lookups: view, nothing laid {:.1} M/s", read(&view));
    let row = RowParts {
        values: vec![1.0; DIM],
        state: vec![],
        count: 0,
        last_seen_s: 0,
        version: 0,
        score: 0.0,
    };
    let delta: Vec<Change> = (0..rows / 10)
        .map(|key| Change::Row(key * 10, row.clone()))
        .collect();
    timed("view: laying a tenth of the rows", || {
        view.apply(0, &delta).expect("room")
    });
    println!("lookups: view, a tenth laid {:.1} M/s", read(&view));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                view.apply(0, &delta).expect("room");
            }
        });
        println!(
            "lookups: view, while the same are laid again and again {:.1} M/s",
            read(&view)
        );
        done.store(true, Ordering::Relaxed);
    });
    // Only what this wrote.
    std::fs::remove_dir_all(&path).expect("the folder");
}
