//! Real pools of HTCondor and CRIU on one machine, for the tests and the demo.
//!
//! | module | takes -> gives |
//! |---|---|
//! | [`require`] | machine -> "this test can run here", or why not |
//! | [`machine`] | machine -> the commands that the rest calls |
//! | [`roots`] | a distribution's name -> an unpacked root with HTCondor and CRIU, cached |
#![forbid(unsafe_code)]

pub mod require;

pub mod machine;

mod lock;

pub mod roots;
