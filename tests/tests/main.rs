//! Tests on real pools.
#![forbid(unsafe_code)]

mod demo;
mod glidein;
mod pool;
mod survive;
mod traces;
