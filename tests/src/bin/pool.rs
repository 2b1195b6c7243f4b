//! `pool`: a pool of HTCondor on this machine, for people.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::cli::main()
}
