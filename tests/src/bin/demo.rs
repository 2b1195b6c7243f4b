//! `cargo demo`: a computation that loses its slot and none of its work.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::demo::main()
}
