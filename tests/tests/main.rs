//! Tests on real pools.
#![forbid(unsafe_code)]

mod demo;
mod pool;
mod survive;
mod traces;
