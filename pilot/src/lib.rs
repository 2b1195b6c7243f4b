//! One worker node: what it can do, and saying so.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`](main) | the command line |
//! | `pages` | manual pages and completions |
//! | `probe` | whether a job can really be frozen and thawed here, by doing it |
//! | `specimen` | the tiny job that the probe freezes, and the abilities that it proves |
//! | `advertise` | the answer as attributes of the slot's ad |
//! | `exceptions` | sites for which it is switched off |
//! | `glidein` | the same as a custom script of glideinWMS |
//! | `supervise` | a pilot that lets its jobs out before it ends |
//! | `whereabouts` | which slots can go on with a job, and what refuses it on the others |
//! | [`event_log`] | what HTCondor wrote of its jobs |
//! | `report` | what became of every second of a pool's jobs |
//! | `ads` | what the access point and the collector say, from HTCondor's tools or files |
//! | `status` | how the jobs that want to survive stand |
//! | `explain` | what stands against freezing a job |
//! | `units` | times and sizes for people |
//! | `configure` | HTCondor configuration, printed with its reasons, and checked |

#![forbid(unsafe_code)]

mod cli;
mod pages;

mod probe;
mod specimen;

mod advertise;
mod configure;
mod exceptions;
mod glidein;
mod supervise;

mod ads;
mod explain;
mod status;
mod units;
mod whereabouts;

pub mod event_log;
mod report;

pub use cli::main;
