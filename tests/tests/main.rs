//! Tests on real pools.
#![forbid(unsafe_code)]

mod bundle;
mod cpus;
mod demo;
mod glidein;
mod pilot_advertise;
mod pilot_configure;
mod pilot_probe;
mod pool;
mod programs;
mod survive;
mod traces;
