//! Tests on real pools.
#![forbid(unsafe_code)]

mod pool;
mod programs;
mod survive;
mod traces;
