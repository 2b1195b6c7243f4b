//! The door of `criu-pilot`; everything else is in the library.

fn main() -> std::process::ExitCode {
    pilot::main()
}
