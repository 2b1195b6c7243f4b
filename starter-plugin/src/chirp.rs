//! Attributes of the job, set through the starter's chirp proxy.
//!
//! `set_job_attr_delayed` on a name that begins with `Chirp` needs no opt-in in
//! the job and is in the job ad when the job goes idle (HTCondor 23.9 to 25.14).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The starter answers at once, or is busy with a transfer for minutes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the starter.
pub(crate) struct Chirp(BufReader<TcpStream>);

impl Chirp {
    /// Where the starter said that its proxy is, if it did.
    pub(crate) fn from_environment() -> Option<PathBuf> {
        std::env::var_os("_CONDOR_CHIRP_CONFIG").map(PathBuf::from)
    }

    /// Connects and shows the cookie.
    pub(crate) fn connect(config: &Path) -> Result<Chirp> {
        let text = fs::read_to_string(config)
            .with_context(|| format!("cannot read {}", config.display()))?;
        let mut words = text.split_whitespace();
        let (Some(host), Some(port), Some(cookie)) = (words.next(), words.next(), words.next())
        else {
            bail!("{} does not name a proxy", config.display());
        };
        let port: u16 = port.parse().context("the proxy's port is no number")?;
        let stream =
            TcpStream::connect((host, port)).context("cannot reach the starter's proxy")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut chirp = Chirp(BufReader::new(stream));
        chirp.ask(&format!("cookie {cookie}\n"))?;
        Ok(chirp)
    }

    /// Sets an attribute of the job to an expression.
    pub(crate) fn set(&mut self, name: &str, expression: &str) -> Result<()> {
        let line = format!("set_job_attr_delayed {name} {}\n", escape(expression));
        self.ask(&line)
            .with_context(|| format!("cannot set {name}"))
    }

    fn ask(&mut self, line: &str) -> Result<()> {
        self.0.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        (&mut self.0).take(256).read_line(&mut answer)?;
        match answer.trim().parse::<i64>() {
            Ok(code) if code >= 0 => Ok(()),
            Ok(code) => bail!("the starter refused it ({code})"),
            Err(_) => bail!("the starter's answer is not chirp: {answer:?}"),
        }
    }
}

/// Words of the protocol are separated by blanks.
fn escape(word: &str) -> String {
    let mut out = String::with_capacity(word.len() + 8);
    for c in word.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            ' ' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_expression_is_one_word_on_the_wire() {
        assert_eq!(escape("\"a b\""), "\"a\\ b\"");
        assert_eq!(escape("x\\y\n"), "x\\\\y\\n");
    }

    #[test]
    fn a_refusal_is_an_error_that_names_the_attribute() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream);
            let mut seen = Vec::new();
            for answer in ["0\n", "-3\n"] {
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                seen.push(line);
                lines.get_mut().write_all(answer.as_bytes()).unwrap();
            }
            seen
        });
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        fs::write(&config, format!("127.0.0.1 {port} secret\n")).unwrap();
        let mut chirp = Chirp::connect(&config).unwrap();
        let error = chirp.set("ChirpX", "1").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "cannot set ChirpX: the starter refused it (-3)"
        );
        assert_eq!(server.join().unwrap()[1], "set_job_attr_delayed ChirpX 1\n");
    }
}
