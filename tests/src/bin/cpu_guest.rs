//! `cpu-guest`: the first process on another CPU.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::cpus::guest::main()
}
