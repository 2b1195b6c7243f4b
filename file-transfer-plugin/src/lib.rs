//! The checkpoint image and its way to the access point and back.
//!
//! | module | what it knows |
//! |---|---|
//! | [`attributes`] | the names of our ad attributes |
//! | [`fingerprint`] | what a slot offers, what an image needs, and whether one admits the other |
//! | [`host`] (feature `host`) | what this machine is made of |
//! | [`monitor`] | progress of long work |
//! | [`manifest`] (feature `archive`) | the first file in `checkpoint.criu`: all of the others, and how the job goes on |
//! | [`pack`] | trees -> chunks -> `checkpoint.criu` |
//! | [`unpack`] | `checkpoint.criu` -> verified chunks -> trees |
//! | [`cli`] (feature `cli`) | the command line of `criu-transfer` |
//!
//! Without default features there is only the pure part: serde and classad, nothing that touches a file.
#![forbid(unsafe_code)]

pub mod attributes;

pub mod fingerprint;

#[cfg(feature = "host")]
pub mod host;

pub mod monitor;

#[cfg(feature = "archive")]
pub mod manifest;

#[cfg(feature = "archive")]
mod layout;

#[cfg(feature = "archive")]
mod frame;

#[cfg(feature = "archive")]
mod workers;

#[cfg(feature = "archive")]
pub mod pack;

#[cfg(feature = "archive")]
pub mod unpack;

#[cfg(feature = "cli")]
pub mod cli;
