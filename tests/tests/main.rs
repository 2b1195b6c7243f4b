//! Tests on real pools.
#![forbid(unsafe_code)]

mod bundle;
mod by_hand;
mod cpus;
mod demo;
mod glidein;
mod images;
mod images_home;
mod pilot_advertise;
mod pilot_configure;
mod pilot_probe;
mod pilot_supervise;
mod pool;
mod programs;
mod report;
mod store_lane;
mod survive;
mod traces;
