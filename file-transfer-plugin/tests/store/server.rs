//! `criu-transfer serve`, started and ended.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
        let log = dir.with_extension("log");
        let errors = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .unwrap();
        let mut child = Self::command(dir, options)
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
        command
            .arg("serve")
            .arg("--dir")
            .arg(dir)
            // The machine's own disk may be nearly full; that is another test's subject.
            .args(["--listen", "127.0.0.1:0", "--low-water", "1M"])
            .args(options)
            .stdin(Stdio::null());
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
