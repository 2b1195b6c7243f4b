//! `criu-transfer gc`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::store::gc::{Policy, collect};

/// Removes what nobody will ask for again from a store's directory.
///
/// A store that runs does it by itself; with --dry-run its directory can be looked at all the same.
#[derive(Debug, Args)]
pub(super) struct Gc {
    /// The store's directory
    #[arg(long)]
    dir: PathBuf,
    /// Says what would go, and why, and removes nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// Which images go; also of `serve`.
#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    /// Images that were committed longer ago go; 0 stands for never
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    days: u32,
    /// Images whose jobs left the queue go: asks condor_q, which must see the jobs of all users
    #[arg(long)]
    ask_schedd: bool,
}

impl PolicyArgs {
    pub(super) fn policy(&self) -> Policy {
        Policy {
            age: (self.days > 0).then_some(i64::from(self.days) * 86_400),
            ask_schedd: self.ask_schedd,
        }
    }
}

pub(super) fn gc(args: &Gc, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut lines = Ok(());
    let mut count = 0;
    let mut tell = |item| {
        count += 1;
        if lines.is_ok() {
            let verb = if args.dry_run { "would go" } else { "goes" };
            lines = writeln!(out, "{verb}: {item}");
        }
    };
    collect(&args.dir, &args.policy.policy(), args.dry_run, &mut tell)?;
    lines?;
    Ok(writeln!(out, "{count} in all")?)
}
