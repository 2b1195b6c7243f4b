//! The door of `cargo xtask`; everything else is in the library.

fn main() -> std::process::ExitCode {
    tests::xtask::main()
}
