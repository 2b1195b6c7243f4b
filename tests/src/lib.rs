//! Real pools of HTCondor and CRIU on one machine, for the tests and the demo.
//!
//! | module | takes -> gives |
//! |---|---|
//! | [`mod@require`] | machine -> "this test can run here", or why not |
//! | [`machine`] | machine -> the commands that the rest calls |
//! | [`scratch`] | nothing -> a directory for a while |
//! | [`roots`] | a distribution's name -> an unpacked root with HTCondor and CRIU, cached |
//! | [`binaries`] | the workspace -> our programs, static, and a CRIU to go with them |
//! | [`bundle`] | our programs and that CRIU -> one file for a node |
//! | [`state`] | pools directory -> which pools live, which are leftovers; leftovers -> nothing |
//! | [`users`] | alice, bob and the pilot |
//! | [`host`] | root -> a host: namespaces over an overlay, on the pool's bridge |
//! | [`spec`] | what a caller wants -> [`spec::Spec`] |
//! | [`condor_config`] | what a host is to be -> HTCondor's configuration |
//! | `daemons` | a host and a configuration -> HTCondor's daemons on it |
//! | [`pool`] | [`spec::Spec`] -> a running [`pool::Pool`] |
//! | [`equipped`] | our programs on execution points and in jobs |
//! | [`store`] | a store for checkpoint images on an access point |
//! | [`submit`] | [`submit::Submit`] -> [`job::Job`] |
//! | [`events`] | event log -> [`events::Event`]s, by the pilot's own reader |
//! | [`job`] | a job -> its starts, evictions, end, output |
//! | [`specimens`] | small programs, each with one kind of state that a freeze must keep |
//! | [`cpus`] | emulated CPUs -> what a job that moves between them does |
//! | [`measured`] | a process full of memory, and figures in pairs |
//! | [`turns`] | whoever uses much CPU -> a turn of its own |
//! | [`wait`] | a condition and a limit -> its value, or the logs that matter ([`logs`]) |
//! | [`cli`] | the `pool` command |
//! | [`demo`] | the `cargo demo` command and its job |
//! | [`evictions`] | a way to lose a slot -> what becomes of a job: the `evictions` command |
//! | [`faults`] | a stage and a fault -> what becomes of a job: the `faults` command |
//! | [`load`] | many jobs, evicted at once: the `load` command |
//! | `markdown` | words -> a place in a table that a link leads to |
//! | [`xtask`] | the `cargo xtask` command |
//!
//! Nothing of a pool lies outside its keeper's namespaces but one directory, so killing one process ends all of it.
#![forbid(unsafe_code)]

pub mod require;

pub mod machine;

mod lock;

mod markdown;

pub mod scratch;

pub mod roots;

pub mod binaries;

pub mod bundle;

pub mod state;

pub mod users;

pub mod host;

pub mod spec;

pub mod condor_config;

mod daemons;

pub mod outage;

pub mod pool;

pub mod submit;

pub mod equipped;

pub mod store;

pub use pilot::event_log as events;

pub mod job;

pub mod specimens;

pub mod cpus;

pub mod measured;

pub mod turns;

pub mod wait;

pub mod logs;

pub mod cli;

pub mod demo;

pub mod evictions;

pub mod faults;

pub mod load;

pub mod xtask;
