//! Submitting: a job's directory on the access point, its files and its submit description.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::job::Job;
use crate::pool::Pool;
use crate::users::User;

/// Names in a job's directory.
pub(crate) const LOG: &str = "job.log";
pub(crate) const OUTPUT: &str = "job.out";
pub(crate) const ERROR: &str = "job.err";

/// A submit description, with the files that go beside it.
#[derive(Debug, Clone)]
pub struct Submit {
    user: User,
    lines: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>, u32)>,
    count: u32,
}

impl Submit {
    /// Alice runs `executable`: a path on the execution points, or one relative to the job's directory that [`Self::program`] puts there.
    pub fn new(executable: &str) -> Self {
        let submit = Self {
            user: User::Alice,
            lines: Vec::new(),
            files: Vec::new(),
            count: 1,
        }
        .set("universe", "vanilla")
        .set("executable", executable)
        .set("log", LOG)
        .set("output", OUTPUT)
        .set("error", ERROR)
        .set("should_transfer_files", "YES")
        .set("request_cpus", "1")
        .set("request_memory", "64")
        .set("request_disk", "1024");
        if executable.starts_with('/') {
            submit.set("transfer_executable", "False")
        } else {
            submit
        }
    }

    /// A shell script as the job.
    pub fn script(text: &str) -> Self {
        Self::new("job.sh").program("job.sh", format!("#!/bin/sh\n{text}\n"))
    }

    /// Submitted by another user.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// So many jobs of one cluster; the first is the one that [`Pool::submit`] gives.
    #[must_use]
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// The job's arguments, in HTCondor's notation.
    #[must_use]
    pub fn arguments(self, arguments: &str) -> Self {
        self.set("arguments", arguments)
    }

    /// A command of the submit language; `+Name` for an attribute of the job. A later value replaces an earlier one.
    #[must_use]
    pub fn set(self, key: &str, value: impl Into<String>) -> Self {
        let mut replaced = self.without(key);
        replaced.lines.push((key.to_owned(), value.into()));
        replaced
    }

    /// Without a command that was set before.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.lines
            .retain(|(name, _)| !name.eq_ignore_ascii_case(key));
        self
    }

    /// A further clause for its requirements.
    #[must_use]
    pub fn requiring(self, clause: &str) -> Self {
        let before = self
            .lines
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("requirements"))
            .map(|(_, value)| format!("{value} && "));
        let all = before.unwrap_or_default() + "(" + clause + ")";
        self.set("requirements", all)
    }

    /// Only hosts of that name match.
    #[must_use]
    pub fn on_host(self, host: &str) -> Self {
        self.set(
            "requirements",
            format!("TARGET.Machine == \"{host}.{}\"", crate::host::DOMAIN),
        )
    }

    /// A file in the job's directory. It travels only if `transfer_input_files` says so.
    #[must_use]
    pub fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), bytes.into(), 0o644));
        self
    }

    /// An executable file in the job's directory.
    #[must_use]
    pub fn program(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), bytes.into(), 0o755));
        self
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.lines {
            text += &format!("{key} = {value}\n");
        }
        text + &format!("queue {}\n", self.count)
    }
}

impl Pool {
    /// Submits one job.
    pub fn submit(&self, submit: &Submit) -> Result<Job<'_>> {
        let dir = self.job_dir(submit.user)?;
        for (name, bytes, mode) in &submit.files {
            self.ap()
                .write(format!("{dir}/{name}"), bytes, submit.user, *mode)?;
        }
        self.ap()
            .write(format!("{dir}/job.sub"), submit.text(), submit.user, 0o644)?;
        let printed = self
            .ap()
            .run(submit.user, &dir, &["condor_submit", "-terse", "job.sub"])?;
        // "12.0 - 12.0"
        let id = printed
            .split_whitespace()
            .next()
            .context("condor_submit printed no job id")?;
        Ok(Job::new(self, id, dir, submit.user))
    }

    /// A new directory on the access point for one job of `user`.
    pub fn job_dir(&self, user: User) -> Result<String> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = format!("{}/job-{}-{number}", user.home(), std::process::id());
        self.ap().make_dir(&dir, user, 0o755)?;
        Ok(dir)
    }
}
