//! `criu-transfer`: see the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    file_transfer_plugin::cli::main()
}
