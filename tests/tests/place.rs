//! A host for what a person does by hand, and a directory on it with a job.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::binaries;
use tests::host::Host;
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::Spec;
use tests::users::User;
use tests::wait;

use crate::shared::Shared;

/// Far above what any step takes on two busy cores.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const STARTER: &str = "/usr/local/bin/criu-starter";
pub(crate) const TRANSFER: &str = "/usr/local/bin/criu-transfer";
const SPECIMENS: &str = "/usr/local/bin/specimens";

/// Counts until `go` is there.
pub(crate) const COUNT: &str = r#"#!/bin/bash
for ((i = 1; ; i++)); do
    echo "$i" >>numbers
    echo "line $i"
    [ -e go ] && break
    sleep 0.02
done
echo "$i lines" >result
exit 7
"#;

macro_rules! on_both_criu {
    ($($name:ident),+ $(,)?) => {
        mod criu_4_1_1 { $(#[test] fn $name() { crate::place::on(tests::roots::HtCondor::V23_9, super::$name); })+ }
        mod criu_4_2_1 { $(#[test] fn $name() { crate::place::on(tests::roots::HtCondor::V25, super::$name); })+ }
    };
}
pub(crate) use on_both_criu;

static POOLS: Shared = Shared::new(up);

pub(crate) fn on(version: HtCondor, test: fn(&Host) -> Result<()>) {
    POOLS.on(version, |pool| test(pool.ap()));
}

fn up(version: HtCondor) -> Result<Pool> {
    let pool = Pool::up(&Spec::bare(version))?;
    let install = |program: &Path, to: &str| -> Result<()> {
        pool.ap().write(to, fs::read(program)?, User::Root, 0o755)
    };
    install(&binaries::dir()?.join("criu-starter"), STARTER)?;
    install(&binaries::dir()?.join("criu-transfer"), TRANSFER)?;
    install(&binaries::specimens()?, SPECIMENS)?;
    Ok(pool)
}

/// A directory with a job in it.
pub(crate) struct Place<'a> {
    pub(crate) host: &'a Host,
    pub(crate) dir: String,
    pub(crate) child: Option<Child>,
}

impl<'a> Place<'a> {
    pub(crate) fn make(host: &'a Host, name: &str) -> Result<Place<'a>> {
        let dir = format!("/home/pilot/by-hand-{name}");
        host.make_dir(&dir, User::Pilot, 0o755)?;
        Ok(Place {
            host,
            dir,
            child: None,
        })
    }

    /// With `job`, a script.
    pub(crate) fn with(host: &'a Host, name: &str, job: &str) -> Result<Place<'a>> {
        let place = Place::make(host, name)?;
        host.write(format!("{}/job", place.dir), job, User::Pilot, 0o755)?;
        Ok(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.host.path(format!("{}/{name}", self.dir))
    }

    /// The job's directory while it runs.
    pub(crate) fn inside(&self, name: &str) -> PathBuf {
        self.path(&format!(".criu/srv/{name}"))
    }

    pub(crate) fn start(&mut self, words: &[&str]) -> Result<()> {
        let stream = |what: &str| fs::File::create(self.host.path(format!("{}.{what}", self.dir)));
        let child = self
            .host
            .command(User::Pilot, &self.dir)?
            // A script that has these tests in its background has SIGINT ignored, and a job would keep that.
            .args(["env", "--default-signal"])
            .args(words)
            .stdout(stream("out")?)
            .stderr(stream("err")?)
            .spawn()
            .context("run nsenter")?;
        self.child = Some(child);
        Ok(())
    }

    pub(crate) fn run(&mut self) -> Result<()> {
        self.start(&[STARTER, "run", "--", "./job"])
    }

    /// Another command beside it.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Output> {
        self.host
            .command(User::Pilot, "/home/pilot")?
            .args(words)
            .output()
            .context("run nsenter")
    }

    pub(crate) fn read(&self, what: &str) -> String {
        let path = self.host.path(format!("{}.{what}", self.dir));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    pub(crate) fn wait_for(&mut self, line: &str) -> Result<()> {
        let seen = wait::until(&format!("{line:?}"), LIMIT, || {
            if self.read("out").lines().any(|found| found == line) {
                return Ok(Some(()));
            }
            let child = self.child.as_mut().context("it was not started")?;
            let ended = child.try_wait()?;
            ensure!(
                ended.is_none() || self.read("out").lines().any(|found| found == line),
                "it ended with {ended:?}"
            );
            Ok(None)
        });
        seen.with_context(|| self.story())
    }

    pub(crate) fn wait_log(&self, words: &str) -> Result<()> {
        wait::until(&format!("{words:?} in the log"), LIMIT, || {
            Ok(self.read("err").contains(words).then_some(()))
        })
        .with_context(|| self.story())
    }

    pub(crate) fn end(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("it was not started")?;
        let status = wait::until("its end", LIMIT, || Ok(child.try_wait()?));
        status.with_context(|| self.story())
    }

    /// Lets the counting job end, and looks at what it leaves.
    pub(crate) fn finish(&mut self) -> Result<()> {
        fs::write(self.inside("go"), "")?;
        let status = self.end()?;
        ensure!(status.code() == Some(7), "{status}: {}", self.story());
        ensure!(self.names()?.contains(&"result".to_owned()));
        ensure!(
            !self.names()?.iter().any(|name| name.contains("criu")),
            "left behind: {:?}",
            self.names()?
        );
        Ok(())
    }

    pub(crate) fn story(&self) -> String {
        format!(
            "{}\nstdout:\n{}stderr:\n{}",
            self.dir,
            self.read("out"),
            self.read("err")
        )
    }

    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.host.path(&self.dir))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The supervisor: the child that nsenter has become or started.
    pub(crate) fn supervisor(&self) -> Result<Pid> {
        let mut pid = self.child.as_ref().context("it was not started")?.id();
        loop {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
            if name.trim() == "criu-starter" {
                return Ok(Pid::from_raw(i32::try_from(pid)?));
            }
            let below = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            let first = below.split_whitespace().next().context("no supervisor")?;
            pid = first.parse()?;
        }
    }

    /// The supervisor where a shell started it.
    pub(crate) fn supervisor_below_shell(&self) -> Result<Pid> {
        wait::until("a supervisor", LIMIT, || Ok(self.supervisor().ok()))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.supervisor()?, signal)?)
    }

    /// As the host numbers it.
    pub(crate) fn pid_on_host(&self) -> Result<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.supervisor()?))?;
        let numbers = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .context("no NSpid")?;
        Ok(numbers
            .split_whitespace()
            .last()
            .context("no pid")?
            .to_owned())
    }

    pub(crate) fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.end()?;
        ensure!(status.code() == Some(85), "{status}: {}", self.story());
        ensure!(
            self.names()? == ["checkpoint.criu"],
            "left behind: {:?}",
            self.names()?
        );
        Ok(())
    }

    /// Another directory with this one's image and nothing else.
    pub(crate) fn moved(&self, name: &str) -> Result<Place<'a>> {
        let there = Place::make(self.host, name)?;
        fs::rename(self.path("checkpoint.criu"), there.path("checkpoint.criu"))?;
        Ok(there)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // With nsenter's death the supervisor's is certain only if it hears of it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn each_line_once(text: &str) -> Result<()> {
    let lines = text.lines().count();
    let expected = (1..=lines).map(|i| format!("line {i}"));
    ensure!(text.lines().eq(expected), "the output is\n{text}");
    Ok(())
}
