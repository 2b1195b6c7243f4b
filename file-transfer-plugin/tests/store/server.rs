//! `criu-transfer serve`, started and ended.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::http::Client;

/// A store that runs. Dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Serves a directory to anybody on loopback.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, &["--anonymous"])
    }

    /// Serves a directory with options.
    pub(crate) fn start_with(dir: &Path, options: &[&str]) -> Self {
        Self::spawn(Self::command(dir, options), dir)
    }

    /// Serves a directory by way of another command, which is given this one.
    pub(crate) fn start_by(mut way: Command, dir: &Path, options: &[&str]) -> Self {
        let command = Self::command(dir, options);
        way.arg(command.get_program()).args(command.get_args());
        Self::spawn(way, dir)
    }

    /// Runs a command that serves.
    pub(crate) fn spawn(mut command: Command, dir: &Path) -> Self {
        let log = dir.with_extension("log");
        let errors = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .unwrap();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line
            .trim_end()
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("{:?}", std::fs::read_to_string(&log)))
            .parse()
            .unwrap();
        Self {
            child,
            address,
            log,
        }
    }

    /// The command that serves a directory.
    pub(crate) fn command(dir: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_criu-transfer"));
        command.arg("serve");
        if !options.contains(&"--objects") {
            command.arg("--dir").arg(dir);
        }
        // The machine's own disk may be nearly full; that is another test's subject.
        for (option, value) in [("--listen", "127.0.0.1:0"), ("--low-water", "1M")] {
            if !options.contains(&option) {
                command.args([option, value]);
            }
        }
        command.args(options).stdin(Stdio::null());
        command
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Kills it as a power cut would, but for the kernel.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; the test has failed by something better then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so, and fails when it is not within half a minute.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that a test cannot run here; with REQUIRE=all it fails.
pub(crate) fn skip(why: &str) {
    assert!(
        std::env::var("REQUIRE").as_deref() != Ok("all"),
        "{why}, and REQUIRE=all"
    );
    eprintln!("SKIPPED: {why}");
}

/// Whether a program is here, or could be installed from the package of its name.
pub(crate) fn have(program: &str) -> bool {
    have_package(&[program], program).is_some()
}

/// One of some programs, or the last one from its package. Only where REQUIRE=all wants it, as a browser is 64 MB.
pub(crate) fn have_package<'a>(programs: &[&'a str], package: &str) -> Option<&'a str> {
    let runs = |program: &&&str| {
        let search = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&search).any(|dir| dir.join(program).is_file())
    };
    let apt = |args: &[&str]| {
        Command::new("apt-get")
            .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let wanted = std::env::var("REQUIRE").as_deref() == Ok("all");
    if !programs.iter().any(|program| runs(&program)) && wanted {
        let _ = apt(&["update"]) && apt(&["install", "--yes", "--no-install-recommends", package]);
    }
    let found = programs.iter().find(runs).copied();
    if found.is_none() {
        skip(&format!("none of {programs:?} is here"));
    }
    found
}
