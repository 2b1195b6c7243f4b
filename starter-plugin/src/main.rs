//! The door of `criu-starter`; everything else is in the library.

fn main() -> std::process::ExitCode {
    starter_plugin::main()
}
