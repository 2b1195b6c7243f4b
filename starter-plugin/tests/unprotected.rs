//! A slot that HTCondor takes for one that can freeze, and that cannot: the job ends as it would without us.
//!
//! No CRIU has the version that is asked for here, so that this is the same on every machine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What the starter would find if the job were to go back to the queue.
const GIVEN_BACK: &str = ".job_wrapper_failure";

fn start(scratch: &Path, job: &[&str]) -> Child {
    fs::write(
        scratch.join(".job.ad"),
        "WantCRIU = true\nNumJobStarts = 0\n",
    )
    .unwrap();
    Command::new(env!("CARGO_BIN_EXE_criu-starter"))
        .args(["run", "--criu", "99.0.0", "--"])
        .args(job)
        .current_dir(scratch)
        .env("_CONDOR_JOB_AD", scratch.join(".job.ad"))
        .env("_CONDOR_SCRATCH_DIR", scratch)
        .env_remove("_CONDOR_MACHINE_AD")
        .env_remove("_CONDOR_WRAPPER_ERROR_FILE")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn ended(job: &[&str]) -> ExitStatus {
    let scratch = tempfile::tempdir().unwrap();
    let status = start(scratch.path(), job).wait().unwrap();
    assert!(!scratch.path().join(GIVEN_BACK).exists(), "{job:?}");
    status
}

#[test]
fn its_code_is_the_jobs() {
    assert_eq!(ended(&["sh", "-c", "exit 3"]).code(), Some(3));
}

#[test]
fn a_job_that_dies_of_a_signal_does_not_go_round_and_round() {
    assert_eq!(ended(&["sh", "-c", "kill -SEGV $$"]).signal(), Some(11));
    assert_eq!(ended(&["sh", "-c", "kill -KILL $$"]).signal(), Some(9));
}

#[test]
fn a_program_that_is_not_there_is_not_tried_elsewhere() {
    assert_eq!(ended(&["./nothing"]).code(), Some(127));
}

#[test]
fn signals_reach_it() {
    let scratch = tempfile::tempdir().unwrap();
    let script = "trap 'exit 9' TERM; touch ready; while :; do sleep 0.01; done";
    let mut child = start(scratch.path(), &["sh", "-c", script]);
    let until = Instant::now() + Duration::from_secs(30);
    while !scratch.path().join("ready").exists() {
        assert!(Instant::now() < until, "it did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert!(!scratch.path().join(GIVEN_BACK).exists());
}
