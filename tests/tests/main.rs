//! Tests on real pools.
#![forbid(unsafe_code)]

mod glidein;
mod pool;
mod traces;
