//! Threads, trees of processes, groups, sessions, limits.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Barrier, Condvar, Mutex};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgid, getpid, getppid, getsid, setpgid, setsid};

use super::{Program, again, freeze};

pub(super) const PROGRAMS: &[(&str, Program)] = &[
    ("plain", plain),
    ("threads", threads),
    ("tree", tree),
    ("branch", branch),
    ("leaf", leaf),
    ("groups", groups),
    ("own-group", own_group),
    ("own-session", own_session),
    ("stopped", stopped),
    ("zombie", zombie),
    ("ends", || std::process::exit(3)),
    ("orphan", orphan),
    ("leaves-one", leaves_one),
    ("limits", limits),
    ("affinity", affinity),
    ("dies", dies),
    ("code-85", code_85),
    ("memory", memory),
];

/// Nothing of its own; and nothing of ours: no signal is blocked.
fn plain() -> Result<()> {
    let blocked = SigSet::thread_get_mask()?;
    ensure!(blocked == SigSet::empty(), "{blocked:?} are blocked");
    freeze()?;
    let blocked = SigSet::thread_get_mask()?;
    ensure!(blocked == SigSet::empty(), "{blocked:?} are blocked");
    Ok(())
}

/// Eight threads, each with a name, a sum of its own and a turn in a ring.
fn threads() -> Result<()> {
    const COUNT: u64 = 8;
    let turn = Arc::new((Mutex::new(0_u64), Condvar::new()));
    let ready = Arc::new(Barrier::new(COUNT as usize + 1));
    let thawed = Arc::new(Barrier::new(COUNT as usize + 1));
    let mut all = Vec::new();
    for me in 0..COUNT {
        let (turn, ready, thawed) = (turn.clone(), ready.clone(), thawed.clone());
        let run = move || -> Result<u64> {
            let mut sum: u64 = (0..=me).sum();
            ready.wait();
            thawed.wait();
            let (lock, changed) = &*turn;
            for round in 0..50 {
                let mut now = lock.lock().expect("nobody panics");
                while *now != round * COUNT + me {
                    now = changed.wait(now).expect("nobody panics");
                }
                *now += 1;
                sum += round;
                changed.notify_all();
            }
            let name = std::thread::current().name().map(str::to_owned);
            ensure!(name == Some(format!("worker-{me}")), "{name:?}");
            Ok(sum)
        };
        all.push(
            std::thread::Builder::new()
                .name(format!("worker-{me}"))
                .spawn(run)?,
        );
    }
    ready.wait();
    freeze()?;
    thawed.wait();
    for (me, thread) in (0..COUNT).zip(all) {
        let sum = thread.join().ok().context("a thread panicked")??;
        ensure!(sum == me * (me + 1) / 2 + 1225, "thread {me} has {sum}");
    }
    Ok(())
}

fn piped(name: &str) -> Result<Child> {
    let mut command = again(name)?;
    Ok(command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?)
}

fn ask(child: &mut Child, question: &str) -> Result<String> {
    let input = child.stdin.as_mut().context("no pipe")?;
    writeln!(input, "{question}")?;
    let mut answer = String::new();
    let output = child.stdout.as_mut().context("no pipe")?;
    // One byte at a time: what is read too much would be lost with the buffer.
    let mut byte = [0; 1];
    while output.read(&mut byte)? == 1 && byte[0] != b'\n' {
        answer.push(char::from(byte[0]));
    }
    Ok(answer)
}

/// Ten processes on three levels that talk through pipes.
fn tree() -> Result<()> {
    let mut branches = (0..3)
        .map(|_| piped("branch"))
        .collect::<Result<Vec<_>>>()?;
    let pids: Vec<String> = branches
        .iter_mut()
        .map(|branch| ask(branch, "who"))
        .collect::<Result<_>>()?;
    // Asked, and answered only after the thaw.
    for branch in &mut branches {
        writeln!(branch.stdin.as_mut().context("no pipe")?, "who")?;
    }
    freeze()?;
    for (branch, before) in branches.iter_mut().zip(&pids) {
        for _ in 0..2 {
            let after = ask(branch, "who")?;
            ensure!(after == *before, "{after:?} was {before:?}");
        }
        drop(branch.stdin.take());
        // The answer to the last question of the three.
        let mut rest = String::new();
        branch
            .stdout
            .take()
            .context("no pipe")?
            .read_to_string(&mut rest)?;
        ensure!(rest.trim_end() == before, "{rest:?}");
        ensure!(branch.wait()?.code() == Some(5));
    }
    Ok(())
}

fn branch() -> Result<()> {
    let mut leaves = [piped("leaf")?, piped("leaf")?];
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut all = format!("{} {}", getpid(), getppid());
        for leaf in &mut leaves {
            all = format!("{all} {}", ask(leaf, &line)?);
        }
        println!("{all}");
    }
    for mut leaf in leaves {
        drop(leaf.stdin.take());
        ensure!(leaf.wait()?.success());
    }
    std::process::exit(5);
}

fn leaf() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{}<{}", getpid(), getppid());
    }
    std::process::exit(0);
}

/// A child that leads a group, and one that leads a session.
fn groups() -> Result<()> {
    let mut group = piped("own-group")?;
    let mut session = piped("own-session")?;
    let look = |children: &mut [&mut Child; 2]| -> Result<Vec<String>> {
        children.iter_mut().map(|child| ask(child, "who")).collect()
    };
    let before = look(&mut [&mut group, &mut session])?;
    freeze()?;
    let after = look(&mut [&mut group, &mut session])?;
    ensure!(before == after, "{after:?} were {before:?}");
    for mut child in [group, session] {
        drop(child.stdin.take());
        ensure!(child.wait()?.success());
    }
    Ok(())
}

fn own_group() -> Result<()> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    tell_ids()
}

fn own_session() -> Result<()> {
    setsid()?;
    tell_ids()
}

fn tell_ids() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{} {} {}", getpid(), getpgid(None)?, getsid(None)?);
    }
    std::process::exit(0);
}

/// A stopped child stays stopped and can be continued.
fn stopped() -> Result<()> {
    let mut child = piped("leaf")?;
    ask(&mut child, "who")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    kill(pid, Signal::SIGSTOP)?;
    waitid(Id::Pid(pid), WaitPidFlag::WSTOPPED)?;
    freeze()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    ensure!(stat.contains(") T "), "{stat}");
    kill(pid, Signal::SIGCONT)?;
    ask(&mut child, "who")?;
    drop(child.stdin.take());
    ensure!(child.wait()?.success());
    Ok(())
}

/// A child that has ended and was not waited for.
fn zombie() -> Result<()> {
    let child = again("ends")?.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    freeze()?;
    let status = waitpid(pid, None)?;
    ensure!(status == WaitStatus::Exited(pid, 3), "{status:?}");
    Ok(())
}

/// Processes whose parents have ended, one before the freeze and one after it, and an end nobody waits for.
fn orphan() -> Result<()> {
    let before = left_alone()?;
    freeze()?;
    kill(before, None).context("the orphan is gone")?;
    let after = left_alone()?;
    for orphan in [before, after] {
        let status = std::fs::read_to_string(format!("/proc/{orphan}/status"))?;
        // Another freeze would find it too.
        let mine = format!("\nPPid:\t{}\n", getpid());
        ensure!(status.contains(&mine), "it left the tree:\n{status}");
        kill(orphan, Signal::SIGKILL)?;
    }
    Ok(())
}

fn left_alone() -> Result<Pid> {
    let mut parent = again("leaves-one")?.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(parent.stdout.take().context("no pipe")?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    parent.wait()?;
    Ok(Pid::from_raw(line.trim().parse()?))
}

fn leaves_one() -> Result<()> {
    let child = std::process::Command::new("sleep")
        .arg("1000")
        .stdout(Stdio::null())
        .spawn()?;
    println!("{}", child.id());
    std::process::exit(0);
}

/// Resource limits, file mode mask, working directory, environment.
fn limits() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, 123, hard)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_STACK, 4 << 20, 8 << 20)?;
    umask(Mode::from_bits_retain(0o027));
    std::fs::create_dir("below")?;
    std::env::set_current_dir("below")?;
    freeze()?;
    ensure!(getrlimit(Resource::RLIMIT_NOFILE)?.0 == 123);
    ensure!(getrlimit(Resource::RLIMIT_CORE)? == (0, 0));
    ensure!(getrlimit(Resource::RLIMIT_STACK)? == (4 << 20, 8 << 20));
    ensure!(umask(Mode::empty()) == Mode::from_bits_retain(0o027));
    ensure!(std::env::current_dir()?.ends_with("srv/below"));
    Ok(())
}

/// One CPU for the process, another for one of its threads where there are two.
fn affinity() -> Result<()> {
    let here = Pid::from_raw(0);
    let all = sched_getaffinity(here)?;
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|&cpu| all.is_set(cpu) == Ok(true))
        .collect();
    let only = |cpu: usize| -> Result<CpuSet> {
        let mut set = CpuSet::new();
        set.set(cpu)?;
        Ok(set)
    };
    let (first, last) = (only(cpus[0])?, only(cpus[cpus.len() - 1])?);
    sched_setaffinity(here, &last)?;
    let thawed = Arc::new(Barrier::new(2));
    let of_thread = thawed.clone();
    let thread = std::thread::spawn(move || -> Result<bool> {
        sched_setaffinity(here, &first)?;
        of_thread.wait();
        of_thread.wait();
        Ok(sched_getaffinity(here)? == first)
    });
    thawed.wait();
    freeze()?;
    thawed.wait();
    ensure!(sched_getaffinity(here)? == last, "the process lost its CPU");
    let kept = thread.join().ok().context("the thread panicked")??;
    ensure!(kept, "the thread lost its CPU");
    Ok(())
}

fn dies() -> Result<()> {
    freeze()?;
    kill(getpid(), Signal::SIGUSR1)?;
    Ok(())
}

fn code_85() -> Result<()> {
    freeze()?;
    std::process::exit(85);
}

/// Pages that are not to be told from noise.
fn memory() -> Result<()> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<u64> = (0..4 << 20).map(|_| next()).collect();
    let sum = |words: &[u64]| {
        words
            .iter()
            .fold(0_u64, |sum, word| sum.rotate_left(5) ^ word)
    };
    let before = sum(&words);
    freeze()?;
    ensure!(sum(&words) == before, "other bytes");
    Ok(())
}
