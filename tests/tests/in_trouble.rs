//! What a slot may run out of while a job is frozen or thawed: the job goes on, and keeps what was saved before.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::host::Host;
use tests::users::User;
use tests::wait;

use crate::place::{COUNT, LIMIT, Place, STARTER, each_line_once, on_both_criu};

on_both_criu!(
    a_disk_that_fills_up_in_mid_dump_costs_one_image,
    memory_in_huge_pages_is_restored_from_files,
    a_supervisor_that_is_killed_is_not_the_jobs_end,
);

/// Counts until `go` is there, and knows its memory again: of `MEMORY`, which must be bytes.
const REMEMBERS: &str = r#"#!/usr/bin/python3
import hashlib, mmap, os, time
memory = MEMORY
before = hashlib.sha256(memory).digest()
line = 0
while not os.path.exists('go'):
    line += 1
    print('line', line, flush=True)
    time.sleep(0.02)
open('result', 'w').close()
raise SystemExit(7 if hashlib.sha256(memory).digest() == before else 1)
"#;

fn remembers(memory: &str) -> String {
    REMEMBERS.replacen("MEMORY", memory, 1)
}

fn printed(place: &Place<'_>) -> usize {
    place.read("out").lines().count()
}

fn a_disk_that_fills_up_in_mid_dump_costs_one_image(host: &Host) -> Result<()> {
    let mut here = Place::make(host, "full")?;
    let uid = User::Pilot.uid();
    // Room for the job, its libraries, one image and half of another.
    let options = format!("size=110m,mode=0755,uid={uid},gid={uid}");
    let mount = ["mount", "-t", "tmpfs", "-o", &options, "none", &here.dir];
    host.run(User::Root, "/", &mount)?;
    let job = remembers("os.urandom(40 << 20)");
    host.write(format!("{}/job", here.dir), job, User::Pilot, 0o755)?;
    here.run()?;
    here.wait_for("line 5")?;
    let dir = here.dir.clone();
    let dump = [STARTER, "dump", "--keep-running", &dir];
    let dumped = here.ask(&dump)?;
    ensure!(dumped.status.success(), "{dumped:?}: {}", here.story());
    let older = fs::read(here.path("checkpoint.criu"))?;

    let dumped = here.ask(&dump)?;
    ensure!(
        dumped.status.code() == Some(125),
        "{dumped:?}: {}",
        here.story()
    );
    let said = String::from_utf8(dumped.stderr)?;
    ensure!(said.contains("No space left"), "{said}");
    here.wait_for(&format!("line {}", printed(&here) + 20))?;
    ensure!(
        fs::read(here.path("checkpoint.criu"))? == older,
        "the older image was touched"
    );
    let left = here.names()?;
    ensure!(
        left == [".criu", "checkpoint.criu"],
        "left behind: {left:?}"
    );
    let line = printed(&here);
    here.finish()?;
    each_line_once(&here.read("out"))?;

    let mut there = Place::make(host, "full-before")?;
    let image = format!("{}/checkpoint.criu", there.dir);
    host.write(image, older, User::Pilot, 0o644)?;
    there.run()?;
    there.wait_for(&format!("line {line}"))?;
    there.finish()
}

/// Lets the kernel make huge pages when a process asks for them, and none before.
struct HugePages {
    before: String,
    _alone: MutexGuard<'static, ()>,
}

impl HugePages {
    const MOST: &str = "/proc/sys/vm/nr_overcommit_hugepages";

    fn allow() -> Result<HugePages> {
        // The machine's, and so every test's.
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = fs::read_to_string(Self::MOST).context("a kernel without huge pages")?;
        fs::write(Self::MOST, "8")?;
        Ok(HugePages {
            before,
            _alone: alone,
        })
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // Nobody misses them.
        let _ = fs::write(Self::MOST, &self.before);
    }
}

/// CRIU cannot take them from a pipe, so the thaw has to begin a second time.
fn memory_in_huge_pages_is_restored_from_files(host: &Host) -> Result<()> {
    let _pages = HugePages::allow()?;
    // MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB
    let memory = "mmap.mmap(-1, 4 << 20, flags=0x40022)\nmemory[:] = os.urandom(4 << 20)";
    let mut here = Place::with(host, "huge", &remembers(memory))?;
    here.run()?;
    here.wait_for("line 5")?;
    here.freeze()?;
    let line = printed(&here) + 20;
    let mut there = here.moved("huge-too")?;
    there.run()?;
    there.wait_for(&format!("line {line}"))?;
    ensure!(
        there.read("err").contains("once more, from files"),
        "{}",
        there.story()
    );
    there.finish()?;
    each_line_once(&(here.read("out") + &there.read("out")))
}

/// As a starter sees it, whose memory limit may strike the supervisor and not the job.
fn a_supervisor_that_is_killed_is_not_the_jobs_end(host: &Host) -> Result<()> {
    let mut here = Place::with(host, "killed", COUNT)?;
    let ad = format!("{}/.job.ad", here.dir);
    let variables = [
        format!("_CONDOR_JOB_AD={ad}"),
        format!("_CONDOR_SCRATCH_DIR={}", here.dir),
    ];
    host.write(
        &ad,
        "WantCRIU = true\nNumJobStarts = 0\n",
        User::Pilot,
        0o644,
    )?;
    let variables = variables.each_ref().map(String::as_str);
    here.start(&[&["env"], &variables[..], &[STARTER, "run", "--", "./job"]].concat())?;
    here.wait_for("line 5")?;
    let is_there = |here: &Place<'_>| -> Result<bool> {
        let found = here.ask(&["pgrep", "-fx", "/bin/bash ./job"])?;
        Ok(found.status.success())
    };
    ensure!(is_there(&here)?, "pgrep does not see the job");
    let keeper = here.supervisor()?;
    let below = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
    let supervisor = Pid::from_raw(below.trim().parse()?);
    kill(supervisor, Signal::SIGKILL)?;
    let status = here.end()?;
    ensure!(status.code() == Some(87), "{status}: {}", here.story());
    let reason = fs::read_to_string(here.path(".job_wrapper_failure"))?;
    ensure!(
        reason.contains("the supervisor died of SIGKILL"),
        "{reason}"
    );
    // Two copies at once would be worse than a lost slot.
    wait::until("the end of what ran under it", LIMIT, || {
        Ok((!is_there(&here)?).then_some(()))
    })
}
