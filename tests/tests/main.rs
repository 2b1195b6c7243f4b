//! Tests on real pools.
#![forbid(unsafe_code)]

mod demo;
mod glidein;
mod images;
mod pilot_advertise;
mod pilot_configure;
mod pilot_probe;
mod pool;
mod programs;
mod report;
mod survive;
mod traces;
