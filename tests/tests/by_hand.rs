//! `criu-starter` as a person uses it: no HTCondor, no privilege, a directory and a shell.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::host::Host;
use tests::users::User;
use tests::wait;

use crate::place::{COUNT, LIMIT, Place, STARTER, TRANSFER, each_line_once, on_both_criu};

on_both_criu!(
    after_term_one_file_is_left_and_it_is_all_that_is_needed,
    an_image_goes_to_a_store_and_comes_from_there,
    an_image_that_is_to_be_small_is,
    an_image_is_taken_when_somebody_asks_for_it,
    what_would_prevent_a_freeze_is_said_while_the_job_runs,
    files_that_the_job_closed_to_itself_travel,
    signals_reach_the_job_as_they_would_without_us,
    a_stopped_job_is_frozen_and_goes_on,
    the_job_finds_limits_mask_directory_and_name_as_they_were_given,
    a_job_that_dies_at_once_when_it_is_thawed_leaves_its_image,
);

fn after_term_one_file_is_left_and_it_is_all_that_is_needed(host: &Host) -> Result<()> {
    let mut here = Place::with(host, "d1", COUNT)?;
    here.run()?;
    here.wait_for("line 20")?;
    here.freeze()?;
    let mut there = here.moved("d2")?;
    there.run()?;
    there.wait_for("line 60")?;
    there.finish()?;
    each_line_once(&(here.read("out") + &there.read("out")))?;
    let numbers = fs::read_to_string(there.path("numbers"))?;
    let lines = numbers.lines().count();
    ensure!(fs::read_to_string(there.path("result"))? == format!("{lines} lines\n"));
    Ok(())
}

/// A few megabytes of a shell's memory.
const MEMORABLE: &str = "#!/bin/bash\nnoise=$(head -c 12000000 /dev/urandom | base64 -w 0)\n";

fn an_image_goes_to_a_store_and_comes_from_there(host: &Host) -> Result<()> {
    let url = "criu://127.0.0.1:9622/mine?tls=no";
    let words = [STARTER, "run", "--store", url, "--", "./job"];
    let mut here = Place::with(host, "store-1", &format!("{MEMORABLE}{COUNT}"))?;
    let nowhere = [STARTER, "run", "--store", "criu://ap", "--", "./job"];
    here.start(&nowhere)?;
    ensure!(here.end()?.code() == Some(125), "{}", here.story());
    // Nothing is begun as long as nobody knows whether there is an image.
    here.start(&words)?;
    ensure!(here.end()?.code() == Some(87), "{}", here.story());
    ensure!(here.read("err").contains("cannot reach 127.0.0.1:9622"));
    ensure!(here.names()? == ["job"], "{:?}", here.names()?);

    let mut store = host
        .command(User::Pilot, "/home/pilot")?
        .args([TRANSFER, "serve", "--anonymous", "--low-water", "1M"])
        .args(["--listen", "127.0.0.1:9622", "--dir", "by-hand-images"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(store.stdout.take().context("a pipe")?).read_line(&mut line)?;
    ensure!(line.starts_with("listening on"), "{line}");

    here.start(&words)?;
    here.wait_for("line 20")?;
    here.signal(Signal::SIGTERM)?;
    ensure!(here.end()?.code() == Some(85), "{}", here.story());
    ensure!(here.names()?.is_empty(), "{:?}", here.names()?);
    let log = here.read("err");
    let ahead = log.lines().find_map(|line| {
        let (_, rest) = line
            .split_once("stage=\"stored\"")?
            .1
            .split_once("ahead_bytes=")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    ensure!(ahead > Some(1 << 20), "{ahead:?} bytes went ahead: {log}");
    let mut there = Place::make(host, "store-2")?;
    there.start(&words)?;
    there.wait_for("line 60")?;
    there.finish()?;
    each_line_once(&(here.read("out") + &there.read("out")))?;
    store.kill()?;
    store.wait()?;
    Ok(())
}

/// Text, which no two times is the same.
const TALKATIVE: &str = r#"#!/usr/bin/python3
import time
text = [f'{number} of a great many words that were all there before' for number in range(400_000)]
print('ready', flush=True)
while True:
    time.sleep(0.02)
"#;

fn an_image_that_is_to_be_small_is(host: &Host) -> Result<()> {
    let mut here = Place::with(host, "small", TALKATIVE)?;
    here.start(&[STARTER, "run", "--small", "--", "./job"])?;
    here.wait_for("ready")?;
    here.freeze()?;
    let inspected = here.ask(&[
        TRANSFER,
        "inspect",
        "--json",
        &format!("{}/checkpoint.criu", here.dir),
    ])?;
    let manifest: serde_json::Value = serde_json::from_slice(&inspected.stdout)?;
    let frames = manifest["contents"]["frames"]
        .as_array()
        .context("a list")?;
    let sum = |what: usize| -> u64 { frames.iter().filter_map(|frame| frame[what].as_u64()).sum() };
    let (raw, packed) = (sum(1), sum(2));
    ensure!(raw > 40 << 20, "only {raw} bytes");
    ensure!(packed < raw / 2, "{packed} of {raw} bytes");
    Ok(())
}

fn an_image_is_taken_when_somebody_asks_for_it(host: &Host) -> Result<()> {
    let mut here = Place::with(host, "asked", COUNT)?;
    here.run()?;
    here.wait_for("line 10")?;
    let dumped = here.ask(&[STARTER, "dump", "--keep-running", &here.dir])?;
    ensure!(dumped.status.success(), "{dumped:?}: {}", here.story());
    let said = String::from_utf8(dumped.stdout)?;
    ensure!(said.starts_with("checkpoint.criu: image 1, "), "{said}");
    let first = fs::read(here.path("checkpoint.criu"))?;
    let so_far = here.read("out").lines().count();
    here.wait_for(&format!("line {}", so_far + 20))?;

    // By the number of a process, and for good.
    let dumped = here.ask(&[STARTER, "dump", &here.pid_on_host()?])?;
    ensure!(dumped.status.success(), "{dumped:?}: {}", here.story());
    ensure!(here.end()?.code() == Some(85), "{}", here.story());
    ensure!(here.names()? == ["checkpoint.criu"]);

    let mut there = here.moved("asked-second")?;
    there.start(&[STARTER, "restore"])?;
    let next = here.read("out").lines().count() + 20;
    there.wait_for(&format!("line {next}"))?;
    there.finish()?;
    each_line_once(&(here.read("out") + &there.read("out")))?;

    // The one that was taken in passing is as good.
    let mut earlier = Place::make(host, "asked-first")?;
    host.write(
        format!("{}/checkpoint.criu", earlier.dir),
        first,
        User::Pilot,
        0o644,
    )?;
    earlier.start(&[STARTER, "restore"])?;
    earlier.wait_for(&format!("line {next}"))?;
    earlier.finish()?;

    let mut nothing = Place::make(host, "asked-nothing")?;
    nothing.start(&[STARTER, "restore"])?;
    ensure!(nothing.end()?.code() == Some(125));
    ensure!(
        nothing
            .read("err")
            .contains("no checkpoint.criu to go on from")
    );
    ensure!(nothing.names()?.is_empty(), "{:?}", nothing.names()?);
    let refused = nothing.ask(&[STARTER, "dump", &nothing.dir])?;
    ensure!(refused.status.code() == Some(125));
    Ok(())
}

/// Memory that nobody can keep, and a file that stays behind.
const BLOCKED: &str = r#"#!/usr/bin/python3
import ctypes, os, time
outside = open('/var/tmp/by-hand-outside', 'w')
memfd = os.memfd_create('ring')
os.truncate(memfd, 4096)
import mmap
shared = mmap.mmap(memfd, 4096)
print('ready', flush=True)
while not os.path.exists('go'):
    time.sleep(0.02)
open('result', 'w').close()
raise SystemExit(7)
"#;

fn what_would_prevent_a_freeze_is_said_while_the_job_runs(host: &Host) -> Result<()> {
    let mut here = Place::with(host, "blocked", BLOCKED)?;
    here.run()?;
    here.wait_for("ready")?;
    let pid = here.pid_on_host()?;
    let plain = here.ask(&[STARTER, "preflight", &pid])?;
    ensure!(plain.status.code() == Some(1), "{plain:?}");
    let text = String::from_utf8(plain.stdout)?;
    ensure!(
        text.contains("mapped a memfd (ring)") && text.contains("/var/tmp/by-hand-outside"),
        "{text}"
    );
    let json = here.ask(&[STARTER, "preflight", "--json", &pid])?;
    let value: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    let blockers = value["blockers"].as_array().context("a list")?;
    ensure!(blockers.len() == 2, "{value}");
    ensure!(
        blockers.iter().all(|blocker| blocker["pid"] == 2),
        "{value}"
    );
    // It says so by itself, too, and an image is refused with the same sentence.
    here.wait_log("cannot be frozen: process 2")?;
    let dumped = here.ask(&[STARTER, "dump", "--keep-running", &here.dir])?;
    ensure!(dumped.status.code() == Some(125), "{dumped:?}");
    ensure!(String::from_utf8(dumped.stderr)?.contains("memfd"));
    here.finish()?;

    // A process that is none of ours.
    let other = here.ask(&[
        "sh",
        "-c",
        &format!("exec 9>>/var/tmp/by-hand-outside; {STARTER} preflight $$"),
    ])?;
    ensure!(other.status.code() == Some(1), "{other:?}");
    ensure!(String::from_utf8(other.stdout)?.contains("/var/tmp/by-hand-outside"));
    let nobody = here.ask(&[STARTER, "preflight", "4000000"])?;
    ensure!(nobody.status.code() == Some(125), "{nobody:?}");
    Ok(())
}

const CLOSED: &str = r#"#!/bin/bash
umask 077
echo secret >secret
mkdir -p shut/deep cache
echo inside >shut/deep/file
echo package >cache/package
chmod 000 secret shut
chmod 555 cache
echo ready
until [ -e go ]; do sleep 0.02; done
[ "$(stat -c %a secret shut cache | tr '\n' ' ')" = "0 0 555 " ] || exit 1
chmod 700 secret shut
[ "$(cat secret shut/deep/file cache/package | tr '\n' ' ')" = "secret inside package " ] || exit 2
chmod 000 secret shut
echo fine >result
exit 7
"#;

fn files_that_the_job_closed_to_itself_travel(host: &Host) -> Result<()> {
    let mut here = Place::with(host, "closed", CLOSED)?;
    here.run()?;
    here.wait_for("ready")?;
    let dumped = here.ask(&[STARTER, "dump", "--keep-running", &here.dir])?;
    ensure!(dumped.status.success(), "{dumped:?}: {}", here.story());
    here.freeze()?;
    let mut there = here.moved("closed-too")?;
    there.run()?;
    there.wait_log("from=\"image\"")?;
    there.finish()?;
    let left = there.names()?;
    ensure!(
        ["cache", "secret", "shut"]
            .iter()
            .all(|name| left.contains(&(*name).to_owned())),
        "{left:?}"
    );
    // The host's own directory is removed with the pool: open it again.
    here.ask(&["chmod", "-R", "u+rwx", &there.dir])?;
    Ok(())
}

const SIGNALS: &str = r#"#!/bin/bash
for signal in HUP INT QUIT USR1 USR2; do trap "echo got $signal" $signal; done
echo ready
until [ -e go ]; do sleep 0.02; done
echo fine >result
exit 7
"#;

fn signals_reach_the_job_as_they_would_without_us(host: &Host) -> Result<()> {
    let mut here = Place::with(host, "signals", SIGNALS)?;
    here.run()?;
    here.wait_for("ready")?;
    let each = [
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
    ];
    for (signal, name) in each {
        here.signal(signal)?;
        here.wait_for(&format!("got {name}"))?;
    }
    here.freeze()?;
    let mut there = here.moved("signals-too")?;
    there.run()?;
    there.wait_log("from=\"image\"")?;
    for (signal, name) in each {
        there.signal(signal)?;
        there.wait_for(&format!("got {name}"))?;
    }
    there.finish()?;

    // Without a handler it is the end, and ours is the same.
    let mut dies = Place::with(host, "dies", "#!/bin/bash\necho ready\nsleep 100\n")?;
    dies.start(&[
        "bash",
        "-c",
        &format!("{STARTER} run -- sleep 100 & wait $!; echo ended $?"),
    ])?;
    dies.wait_log("stage=\"running\"")?;
    let supervisor = dies.supervisor_below_shell()?;
    kill(supervisor, Signal::SIGUSR1)?;
    dies.wait_for("ended 138")?;
    Ok(())
}

fn state_of(pid: Pid) -> Result<char> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("State:\t"))
        .and_then(|state| state.chars().next());
    state.context("no state")
}

/// The job below a supervisor and its pid 1.
fn job_of(supervisor: Pid) -> Result<Pid> {
    let mut pid = supervisor;
    for _ in 0..2 {
        let below = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let first = below.split_whitespace().next().context("no child")?;
        pid = Pid::from_raw(first.parse()?);
    }
    Ok(pid)
}

fn a_stopped_job_is_frozen_and_goes_on(host: &Host) -> Result<()> {
    let mut here = Place::with(host, "stopped", COUNT)?;
    here.run()?;
    here.wait_for("line 10")?;
    let supervisor = here.supervisor()?;
    let job = job_of(supervisor)?;
    here.signal(Signal::SIGTSTP)?;
    for pid in [job, supervisor] {
        wait::until(
            "a stop",
            LIMIT,
            || Ok((state_of(pid)? == 'T').then_some(())),
        )?;
    }
    here.signal(Signal::SIGCONT)?;
    // nsenter stops itself where its child stops, as a shell would.
    let outermost = here.child.as_ref().context("it runs")?.id();
    kill(Pid::from_raw(i32::try_from(outermost)?), Signal::SIGCONT)?;
    let so_far = here.read("out").lines().count();
    here.wait_for(&format!("line {}", so_far + 20))?;

    // Stopped by somebody else, it is frozen so, and goes on when it is told to.
    kill(job, Signal::SIGSTOP)?;
    wait::until(
        "a stop",
        LIMIT,
        || Ok((state_of(job)? == 'T').then_some(())),
    )?;
    here.freeze()?;
    let mut there = here.moved("stopped-too")?;
    there.run()?;
    there.wait_log("from=\"image\"")?;
    let job = job_of(there.supervisor()?)?;
    ensure!(state_of(job)? == 'T', "it was not stopped any more");
    there.signal(Signal::SIGCONT)?;
    let so_far = here.read("out").lines().count();
    there.wait_for(&format!("line {}", so_far + 20))?;
    there.finish()?;
    each_line_once(&(here.read("out") + &there.read("out")))
}

const LOOKS: &str = r#"#!/bin/bash
tell() {
    echo "$0 $1 $(umask) $(ulimit -n) $(ulimit -s) $(nice) $PWD $GIVEN"
}
tell first
until [ -e go ]; do sleep 0.02; done
tell last
echo fine >result
exit 7
"#;

fn the_job_finds_limits_mask_directory_and_name_as_they_were_given(host: &Host) -> Result<()> {
    let given = format!(
        "umask 027; ulimit -n 777; ulimit -s 4321; export GIVEN='a b' _CONDOR_SLOT=\"$1\"; \
         exec nice -n 3 {STARTER} run -- ./job"
    );
    // This test may itself be one that gives way.
    let own = std::process::Command::new("nice").output()?;
    let nice: i32 = String::from_utf8(own.stdout)?.trim().parse()?;
    let nice = nice + 3;
    let expected = |word: &str| format!("./job {word} 0027 777 4321 {nice} /srv a b");
    let mut here = Place::with(host, "given", LOOKS)?;
    here.start(&["bash", "-c", &given, "-", "slot1"])?;
    here.wait_for(&expected("first"))?;
    let present = |place: &Place<'_>| fs::read_to_string(place.inside(".criu/environment"));
    ensure!(present(&here)?.contains("export _CONDOR_SLOT='slot1'\n"));
    here.freeze()?;
    let mut there = here.moved("given-too")?;
    there.start(&["bash", "-c", &given, "-", "slot2"])?;
    there.wait_log("from=\"image\"")?;
    // What the job holds is of its first start; what is so here is in the file.
    ensure!(present(&there)?.contains("export _CONDOR_SLOT='slot2'\n"));
    fs::write(there.inside("go"), "")?;
    there.wait_for(&expected("last"))?;
    ensure!(there.end()?.code() == Some(7));
    Ok(())
}

/// Dies of SIGILL when it finds that time has passed it by.
const FRAIL: &str = r#"#!/usr/bin/python3
import os, signal, time
boot = time.clock_gettime(time.CLOCK_REALTIME)
print('ready', flush=True)
while True:
    time.sleep(0.02)
    now = time.clock_gettime(time.CLOCK_REALTIME)
    if now - boot > 4.0 and not os.path.exists('go'):
        os.kill(os.getpid(), signal.SIGILL)
    if os.path.exists('go'):
        open('result', 'w').close()
        raise SystemExit(7)
    boot = now
"#;

fn a_job_that_dies_at_once_when_it_is_thawed_leaves_its_image(host: &Host) -> Result<()> {
    let mut here = Place::with(host, "frail", FRAIL)?;
    here.run()?;
    here.wait_for("ready")?;
    here.freeze()?;
    // The clock of the day goes on while it is frozen, which is how it knows.
    std::thread::sleep(Duration::from_millis(4200));
    let image = fs::read(here.path("checkpoint.criu"))?;
    here.run()?;
    let status = here.end()?;
    ensure!(status.code() == Some(87), "{status}: {}", here.story());
    ensure!(
        here.read("err")
            .contains("died of SIGILL in its first 5 seconds")
    );
    ensure!(here.names()? == ["checkpoint.criu"]);
    ensure!(
        fs::read(here.path("checkpoint.criu"))? == image,
        "the image was touched"
    );
    ensure!(status.signal().is_none());
    Ok(())
}
