//! Tests on real pools.
#![forbid(unsafe_code)]

mod autoclusters;
mod bundle;
mod by_hand;
mod cpus;
mod demo;
mod evictions;
mod glidein;
mod images;
mod images_home;
mod outputs;
mod pilot_advertise;
mod pilot_configure;
mod pilot_probe;
mod pilot_supervise;
mod pool;
mod prepare;
mod programs;
mod report;
mod store_lane;
mod survive;
mod traces;
