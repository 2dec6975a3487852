//! Thread pools that tables share: one for each number of threads, alive as long as a table uses it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rayon::ThreadPool;

static POOLS: Mutex<Vec<(usize, Weak<ThreadPool>)>> = Mutex::new(Vec::new());

/// The pool of `threads` threads; None for one, which needs none, and if the system cannot make them.
pub(crate) fn pool(threads: usize) -> Option<Arc<ThreadPool>> {
    if threads <= 1 {
        return None;
    }
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.retain(|(_, pool)| pool.strong_count() > 0);
    let alive = pools.iter().find(|(number, _)| *number == threads);
    if let Some(pool) = alive.and_then(|(_, pool)| pool.upgrade()) {
        return Some(pool);
    }
    let made = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = Arc::new(made.ok()?);
    pools.push((threads, Arc::downgrade(&pool)));
    Some(pool)
}
