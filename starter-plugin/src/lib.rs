//! One job on one slot: started, frozen and thawed with nothing but its own user.
//!
//! The modules in the order in which a job passes through them:
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`](main) | the command line |
//! | `prepare` | the starter's hook: this program before the job's |
//! | `job` | ads, environment and signal, as the starter hands them over |
//! | `sandbox`, `stubborn` | the scratch directory, so arranged that one file leaves it |
//! | `outputs` | the outputs that the job's submit file names, at an eviction |
//! | `present` | what a thawed job's environment does not tell it |
//! | `restore` | which image to go on from |
//! | `launch`, `namespaces` | the job's own little machine |
//! | `as_root` | jobs that root runs as root, by hand |
//! | `preflight` | what would make a dump fail, or succeed and its restore be wrong |
//! | `baseline` | which of the CPU's instructions the job gets to see |
//! | `libraries` | files from outside the sandbox, which travel with the job |
//! | `mapped` | names for mapped files that have lost theirs |
//! | `nameless` | files for shared memory whose name is gone |
//! | `unkept` | what CRIU does not bring back |
//! | `store`, `transfer` | the lane through a store, by a `criu-transfer` beside us |
//! | `init` | pid 1 in it: starts, restores, dumps, reaps |
//! | `thaw` | from an image to a job that runs |
//! | `keeper` | what HTCondor waits for: a killed supervisor is not the job's end |
//! | `supervise` | the outer process: how the job begins, what a slot owes to the queue |
//! | `running` | how a job begins: fresh, or thawed |
//! | `watch`, `signals` | what comes meanwhile: signals, requests, time |
//! | `schedule`, `period` | when an image is due |
//! | `budget`, `measure`, `plan` | how long the slot waits, what is to be saved, and what fits |
//! | `checkpoint` | from a running job to a committed image, and on, or to its end |
//! | `memory` | how much of it a tree has |
//! | `imaging`, `again` | which images are taken, and how they get home |
//! | `shipping` | how they get to the store, and what becomes of those that do not |
//! | `by_hand`, `control` | requests of people and scripts, and who hears them |
//! | `relay` | the job's output, once each and in order |
//! | `vacate` | from a dumped tree to an announced archive |
//! | `criu` | CRIU's command line, images and errors |
//!
//! Two processes of ours live beside a job: the outer supervisor, which is in no
//! namespace of the job's, and pid 1 inside. In HTCondor the supervisor's keeper,
//! the starter's child, waits for it. Pid 1 has
//! one thread, and the outer one has others only while images pass through it.

#![deny(unsafe_code)]

mod cli;
mod exit_code;

mod prepare;

mod baseline;
mod job;
mod outputs;
mod present;
mod sandbox;
mod stubborn;

mod restore;
mod store;
mod transfer;

mod as_root;
mod launch;
mod namespaces;

mod init;
mod keeper;
mod libraries;
mod mapped;
mod nameless;
mod preflight;
mod running;
mod signals;
mod supervise;
mod thaw;
mod unkept;
mod watch;

mod period;
mod schedule;

mod budget;
mod measure;
mod plan;

mod again;
mod checkpoint;
mod imaging;
mod memory;
mod shipping;

mod by_hand;
mod control;

mod relay;
mod vacate;

mod chirp;
mod criu;

mod channel;
mod log;
mod sys;

pub use cli::main;
