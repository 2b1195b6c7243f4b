//! `cargo xtask`: what maintainers and CI do beside `cargo test`.

mod bundle;
mod check;
mod cpu_matrix;
mod musl;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cargo xtask check           formatting, lints, dependency arrows
  cargo xtask musl            build the static programs and run them on other systems
  cargo xtask bundle          the static programs and CRIU in one file, for glideins and nodes
  cargo xtask bundle --twice  the same, and that it is the same wherever it is built
  cargo xtask cpu-matrix      what a job that moves between CPUs does; some minutes
  cargo xtask cpu-matrix Haswell EPYC   the same between these two, as in the committed table";

/// What maintainers and CI do beside `cargo test`
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Formatting, clippy with warnings denied, documentation, dependency arrows
    Check,
    /// Build the static programs and run them here, on Debian 13, on Debian sid and in a root with no libc
    Musl,
    /// Make criu-pilot-x86_64.tar.gz: the static programs with a CRIU that needs nothing of the node
    Bundle {
        /// Build it once more from a copy of the sources elsewhere, and compare
        #[arg(long)]
        twice: bool,
    },
    /// Freeze programs on each of some CPUs, emulated ones and this one, and thaw each image on each of them
    ///
    /// What comes out is compared with the rule by which slots admit images, and with the committed table.
    CpuMatrix {
        /// Only these CPUs
        #[arg(value_name = "CPU")]
        only: Vec<String>,
        /// Keep what was measured in the committed table
        #[arg(long)]
        write: bool,
    },
}

/// Parses the command line and does it.
pub fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Check => check::run(),
        Task::Musl => musl::run(),
        Task::Bundle { twice } => bundle::run(twice),
        Task::CpuMatrix { only, write } => cpu_matrix::run(&only, write),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
