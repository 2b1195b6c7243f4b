//! The door of `criu-pilot`; everything else is in the library.

/// musl's own has one lock, for which the threads of `where` wait most of their time.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    pilot::main()
}
