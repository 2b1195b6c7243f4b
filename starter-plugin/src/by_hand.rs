//! What people and scripts ask of a job: an image now, and what would prevent one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode as Code;

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

use crate::control::{self, Answer, Request};
use crate::exit_code::ExitCode;
use crate::preflight::{self, Reason};

/// `criu-starter dump`
pub(crate) fn dump(job: &OsStr, keep_running: bool) -> Code {
    let dumped = || -> Result<String> {
        let request = Request::Dump { keep_running };
        match control::ask(&scratch(job)?, request)? {
            Answer::Dumped {
                generation,
                bytes,
                frozen_seconds,
            } => Ok(format!(
                "checkpoint.criu: image {generation}, {bytes} bytes, the job stood still for {frozen_seconds:.3} s"
            )),
            Answer::NotDumped { reason } => bail!("{reason}"),
            Answer::Blockers(_) => bail!("the supervisor answered another question"),
        }
    };
    match dumped() {
        Ok(text) => {
            println!("{text}");
            Code::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// `criu-starter preflight`
pub(crate) fn preflight(pid: i32, json: bool) -> Code {
    let reasons = match blockers(pid) {
        Ok(reasons) => reasons,
        Err(error) => return failed(&error),
    };
    if json {
        // Strings and numbers: nothing that JSON could refuse.
        println!("{}", serde_json::json!({ "pid": pid, "blockers": reasons }));
    } else if reasons.is_empty() {
        println!("nothing that would prevent a freeze was found");
    } else {
        for reason in &reasons {
            println!("{}", reason.text);
        }
    }
    Code::from(u8::from(!reasons.is_empty()))
}

fn blockers(pid: i32) -> Result<Vec<Reason>> {
    let proc = Path::new("/proc");
    let cwd = std::fs::read_link(proc.join(format!("{pid}/cwd")))
        .with_context(|| format!("cannot look at process {pid}"))?;
    if let Some(scratch) = control::scratch_of(proc, pid) {
        return match control::ask(&scratch, Request::Preflight)? {
            Answer::Blockers(reasons) => Ok(reasons),
            other => bail!("the supervisor answered another question: {other:?}"),
        };
    }
    let job = preflight::Job {
        proc,
        root: Pid::from_raw(pid),
        own: vec![cwd, "/dev/shm".into(), "/tmp".into()],
        as_root: false,
    };
    Ok(preflight::blockers_of_tree(&job))
}

/// A directory, or that of a process.
fn scratch(job: &OsStr) -> Result<PathBuf> {
    let path = Path::new(job);
    let pid = job.to_str().and_then(|word| word.parse::<i32>().ok());
    match pid {
        Some(pid) if !path.exists() => control::scratch_of(Path::new("/proc"), pid)
            .with_context(|| format!("process {pid} belongs to no job of ours")),
        _ => Ok(path.to_owned()),
    }
}

fn failed(error: &anyhow::Error) -> Code {
    eprintln!("criu-starter: {error:#}");
    ExitCode::Failed.into()
}
