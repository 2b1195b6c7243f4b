//! `cargo run -p tests --bin load`: many jobs on one access point, evicted at once.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::load::main()
}
