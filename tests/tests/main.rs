//! Tests on real pools.
#![forbid(unsafe_code)]

mod pool;
mod survive;
mod traces;
