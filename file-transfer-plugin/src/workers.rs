//! How many threads share the work, and how they share it.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard};
use std::thread;

/// Above this more threads do not help: reading and writing is what takes the time then, and each costs memory.
const MOST: usize = 16;

/// The number of threads for a request of `asked`, where 0 leaves the choice to us.
pub(crate) fn threads(asked: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    // A few more than cores: some wait for their turn or for the disk.
    if asked > 0 {
        asked.min(MOST)
    } else {
        (cores + cores.div_ceil(2)).min(MOST)
    }
}

/// Does the same on so many threads, and returns when they are gone: a scope alone waits for their work only, and whoever
/// forks next must have one thread.
pub(crate) fn on_threads(count: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        for one in all {
            if let Err(panic) = one.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// Locks. What is behind our locks is right at each moment, so a panic elsewhere need not become a second one here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
