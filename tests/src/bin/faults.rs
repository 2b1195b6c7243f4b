//! `cargo run -p tests --bin faults`: every stage with every fault, on real pools.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::faults::main()
}
