//! The checkpoint image and its way to the access point and back.
//!
//! | module | what it knows |
//! |---|---|
//! | [`attributes`] | the names of our ad attributes |
//! | [`fingerprint`] | what a slot offers, what an image needs, and whether one admits the other |
//! | [`monitor`] | progress of long work |
//!
//! Without default features there is only the pure part: serde and classad, nothing that touches a file.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    expect(clippy::unwrap_used, reason = "a test fails by panicking")
)]

pub mod attributes;

pub mod fingerprint;

pub mod monitor;
