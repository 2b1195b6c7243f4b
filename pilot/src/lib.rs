//! One worker node: what it can do, and saying so.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`](main) | the command line |
//! | `probe` | whether a job can really be frozen and thawed here, by doing it |
//! | `specimen` | the tiny job that the probe freezes, and the abilities that it proves |
//! | `advertise` | the answer as attributes of the slot's ad |
//! | `glidein` | the same as a custom script of glideinWMS |
//! | `whereabouts` | which slots can go on with a job, and what refuses it on the others |
//! | [`event_log`] | what HTCondor wrote of its jobs |
//! | `report` | what became of every second of a pool's jobs |
//! | `configure` | HTCondor configuration, printed with its reasons, and checked |

#![forbid(unsafe_code)]

mod cli;

mod probe;
mod specimen;

mod advertise;
mod configure;
mod glidein;

mod whereabouts;

pub mod event_log;
mod report;

pub use cli::main;
