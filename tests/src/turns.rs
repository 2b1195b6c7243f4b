//! Turns for what uses all the CPU that it gets, so that tests which wait for something else are not kept from it.

use std::num::NonZero;
use std::sync::{Condvar, Mutex, PoisonError};

static TAKEN: Mutex<usize> = Mutex::new(0);
static RETURNED: Condvar = Condvar::new();

/// One of this process's turns; dropped, it is the next one's.
#[derive(Debug)]
pub struct Turn(());

/// Waits for a turn. There are two for each core: a program that is frozen and thawed waits half of the time.
///
/// Whoever has one must not ask for another.
pub fn take() -> Turn {
    let most = 2 * std::thread::available_parallelism().map_or(1, NonZero::get);
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut taken = RETURNED
        .wait_while(taken, |taken| *taken >= most)
        .unwrap_or_else(PoisonError::into_inner);
    *taken += 1;
    Turn(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        RETURNED.notify_one();
    }
}
