//! `cargo run -p tests --bin evictions`: every way to lose a slot, on real pools.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tests::evictions::main()
}
