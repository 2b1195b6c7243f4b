//! `specimens`: small programs to be frozen and thawed, one a word.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::specimens::main()
}
