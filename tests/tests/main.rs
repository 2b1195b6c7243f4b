//! Tests on real pools.
#![forbid(unsafe_code)]

mod by_hand;
mod demo;
mod evictions;
mod glidein;
mod images;
mod images_home;
mod outputs;
mod pilot_advertise;
mod pilot_configure;
mod pilot_probe;
mod pool;
mod prepare;
mod programs;
mod report;
mod survive;
mod traces;
