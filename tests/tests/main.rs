//! Tests on real pools.
#![forbid(unsafe_code)]

mod at_work;
mod autoclusters;
mod both_lanes;
mod bundle;
mod by_hand;
mod counting;
mod cpus;
mod demo;
mod glidein;
mod images;
mod images_home;
mod in_trouble;
mod outputs;
mod pilot_advertise;
mod pilot_configure;
mod pilot_probe;
mod pilot_supervise;
mod place;
mod pool;
mod prepare;
mod programs;
mod report;
mod shared;
mod store_lane;
mod survive;
mod traces;
