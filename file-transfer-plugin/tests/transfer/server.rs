//! `criu-transfer`, as a service and as a program.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The program, with nothing of this process's environment that could be a token.
pub(crate) fn criu_transfer() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_criu-transfer"));
    command
        .stdin(Stdio::null())
        .env_remove("_CONDOR_CREDS")
        .env_remove("BEARER_TOKEN")
        .env("CRIU_TRANSFER_PATIENCE", "2");
    command
}

/// Its exit code, and what it printed.
pub(crate) fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// A store that runs. Dropped, it is killed.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::at(dir, "127.0.0.1:0")
    }

    pub(crate) fn at(dir: &Path, listen: &str) -> Self {
        Self::with(dir, listen, &[])
    }

    pub(crate) fn with(dir: &Path, listen: &str, options: &[&str]) -> Self {
        let mut child = criu_transfer()
            .args(["serve", "--anonymous", "--low-water", "1M"])
            .args(["--listen", listen, "--dir"])
            .arg(dir)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").unwrap();
        Self {
            address: address.parse().unwrap(),
            child,
        }
    }

    pub(crate) fn url(&self, job: &str) -> String {
        url(self.address, job)
    }
}

pub(crate) fn url(address: SocketAddr, job: &str) -> String {
    format!("criu://{address}/{job}?tls=no")
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; the test has failed by something better then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
