//! The checkpoint image and its way to the access point and back.
//!
//! | module | what it knows |
//! |---|---|
//! | [`attributes`] | the names of our ad attributes |
//! | [`fingerprint`] | what a slot offers, what an image needs, and whether one admits the other |
//! | [`host`] (feature `host`) | what this machine is made of |
//! | [`monitor`] | progress of long work |
//! | [`rig`] (feature `archive`) | where a build for tests can be made to stand still |
//! | [`manifest`] (feature `archive`) | the first file in `checkpoint.criu`: all of the others, and how the job goes on |
//! | [`pack`] | trees -> chunks -> `checkpoint.criu` |
//! | [`unpack`] | `checkpoint.criu` -> verified chunks -> trees |
//! | [`protocol`] (feature `archive`) | what a client and the store say to each other |
//! | [`remote`] (feature `remote`) | a store: its URL, whose token, which connection, how much patience |
//! | [`ship`] | `checkpoint.criu` -> the chunks that a store lacks -> a committed image |
//! | [`fetch`] | an image in a store -> verified chunks -> `checkpoint.criu` |
//! | [`plugin`] | HTCondor's file-transfer plugin |
//! | [`store`] (feature `store`) | the images of many jobs, on an access point |
//! | [`inspect`] (feature `inspect`) | what is in an archive, without unpacking it |
//! | [`cli`] (feature `cli`) | the command line of `criu-transfer` |
//!
//! Without default features there is only the pure part: serde and classad, nothing that touches a file.
//!
//! What a supervisor does with it:
//!
//! ```no_run
//! # #[cfg(feature = "archive")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use file_transfer_plugin::fingerprint::Fingerprint;
//! use file_transfer_plugin::manifest::{Head, Limits, Resume};
//! use file_transfer_plugin::monitor::Log;
//! use file_transfer_plugin::pack::{Options, Tree, pack};
//! use file_transfer_plugin::unpack::Archive;
//! # use std::path::Path;
//! # let slot_ad = classad::ClassAd::new();
//! # let (images, srv, out) = (Path::new("images"), Path::new("srv"), Path::new("checkpoint.criu"));
//!
//! let slot = Fingerprint::from_slot_ad(&slot_ad)?;
//! let head = Head { generation: 1, created: 1_790_000_000, fingerprint: slot.clone(), resume: Resume::default() };
//! let trees = [Tree { prefix: "images", dir: images }, Tree { prefix: "srv", dir: srv }];
//! let packed = pack(&trees, head, out, &Options::default(), &Log)?;
//!
//! // On another host, with the digest from the job's ad:
//! let archive = Archive::open(out, &Limits::default())?.expect(packed.digest)?;
//! if slot.admits(&archive.manifest().head.fingerprint).is_ok() {
//!     archive.unpack(&[("images", images), ("srv", srv)], &Log)?;
//! }
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "archive"))]
//! # fn main() {}
//! ```
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

#[cfg(any(feature = "remote", feature = "store"))]
mod buffers;

#[cfg(feature = "archive")]
pub mod rig;

#[cfg(feature = "archive")]
pub mod pack;

#[cfg(feature = "archive")]
pub mod unpack;

#[cfg(feature = "archive")]
pub mod protocol;

#[cfg(feature = "remote")]
pub mod remote;

#[cfg(feature = "remote")]
pub mod ship;

#[cfg(feature = "remote")]
pub mod fetch;

#[cfg(feature = "remote")]
pub mod plugin;

#[cfg(feature = "inspect")]
pub mod inspect;

#[cfg(feature = "store")]
pub mod store;

#[cfg(feature = "cli")]
pub mod cli;
