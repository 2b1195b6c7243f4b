//! Tests on real pools.
#![forbid(unsafe_code)]

mod glidein;
mod pool;
mod survive;
mod traces;
