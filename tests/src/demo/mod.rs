//! The demo: a computation is evicted twice and goes on elsewhere, from the step at which it was.
//!
//! | module | takes -> gives |
//! |---|---|
//! | [`sieve`] | a range -> progress, a count, and whether it is right: the job |

pub mod sieve;
