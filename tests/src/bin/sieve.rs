//! `sieve`: the job that the demo freezes and thaws.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::demo::sieve::main()
}
