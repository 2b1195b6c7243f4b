//! One row: started by hand in one directory, frozen by TERM, thawed in another, checked to the end.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tests::host::Host;
use tests::specimens::SCRIPTS;
use tests::users::User;
use tests::wait;

use super::table::{Ends, Outcome, Row, Start};

/// Far above what any step of a row takes on two busy cores.
const LIMIT: Duration = Duration::from_secs(60);

/// Where our programs are on the host.
pub(super) const BIN: &str = "/usr/local/bin";

const FROZEN: i32 = 85;

/// A place on the host for one life of a row, with what it printed beside it.
struct Place<'a> {
    host: &'a Host,
    dir: String,
}

impl Place<'_> {
    fn outside(&self, name: &str) -> PathBuf {
        self.host.path(format!("{}/{name}", self.dir))
    }

    fn printed(&self, stream: &str) -> String {
        let path = self.host.path(format!("{}.{stream}", self.dir));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.host.path(&self.dir))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn start(&self, row: &Row, server: &str) -> Result<Child> {
        let stream = |name: &str| fs::File::create(self.host.path(format!("{}.{name}", self.dir)));
        let mut command = self.host.command(User::Pilot, &self.dir)?;
        command
            .arg(format!("SERVER={server}"))
            .args([&format!("{BIN}/criu-starter"), "run", "--"]);
        match row.start {
            Start::Specimen(name) => command.args([&format!("{BIN}/specimens"), name]),
            Start::Script(program, name) => command.args([program, name]),
        };
        let input = self.host.path(format!("{}.in", self.dir));
        if input.exists() {
            command.stdin(fs::File::open(input)?);
        }
        command
            .stdout(stream("out")?)
            .stderr(stream("err")?)
            .spawn()
            .context("run nsenter")
    }

    /// Waits for a line of the job's output.
    fn wait_for(&self, line: &str, child: &mut Child) -> Result<()> {
        wait::until(&format!("{line:?} in {}", self.dir), LIMIT, || {
            if self.printed("out").lines().any(|l| l.starts_with(line)) {
                return Ok(Some(()));
            }
            if let Some(status) = child.try_wait()? {
                // What it printed last may have come just now.
                if self.printed("out").lines().any(|l| l.starts_with(line)) {
                    return Ok(Some(()));
                }
                bail!("it ended with {status}");
            }
            Ok(None)
        })
        .with_context(|| self.story())
    }

    fn wait_end(&self, child: &mut Child) -> Result<ExitStatus> {
        wait::until(&format!("the end of {}", self.dir), LIMIT, || {
            Ok(child.try_wait()?)
        })
        .inspect_err(|_| {
            let _ = child.kill();
        })
        .with_context(|| self.story())
    }

    fn story(&self) -> String {
        let (out, err) = (self.printed("out"), self.printed("err"));
        format!("{}\nstdout:\n{}stderr:\n{err}", self.dir, shortened(&out))
    }
}

/// A page of ticks says nothing.
fn shortened(text: &str) -> String {
    let interesting: Vec<&str> = text.lines().filter(|l| !l.starts_with("tick ")).collect();
    interesting.join("\n") + "\n"
}

/// Freezes and thaws one row; an error says what was otherwise.
pub(super) fn check(row: &Row, outcome: Outcome, host: &Host, server: &str) -> Result<()> {
    let place = |part: &str| Place {
        host,
        dir: format!("/home/pilot/{part}/{}", row.name()),
    };
    let (here, there) = (place("first/scratch"), place("second/otherwise/named"));
    for place in [&here, &there] {
        host.make_dir(
            Path::new(&place.dir).parent().context("a parent")?,
            User::Pilot,
            0o755,
        )?;
        host.make_dir(&place.dir, User::Pilot, 0o755)?;
    }
    if let Start::Script(_, name) = row.start {
        let (_, text) = SCRIPTS
            .iter()
            .find(|(known, _)| *known == name)
            .with_context(|| format!("no script {name}"))?;
        host.write(format!("{}/{name}", here.dir), text, User::Pilot, 0o755)?;
    }
    if row.name() == "stdin" {
        let input = format!("{}.in", here.dir);
        host.write(input, "first and the rest\n", User::Pilot, 0o644)?;
    }

    let mut first = here.start(row, server)?;
    here.wait_for("ready", &mut first)?;
    here.wait_for("tick ", &mut first)?;
    terminate(host, &first)?;
    if let Outcome::Refused(because) = outcome {
        return refused(row, because, &here, &mut first);
    }
    let status = here.wait_end(&mut first)?;
    ensure!(
        status.code() == Some(FROZEN),
        "frozen with {status}: {}",
        here.story()
    );
    let left = here.names()?;
    ensure!(left == ["checkpoint.criu"], "left behind: {left:?}");
    fs::rename(
        here.outside("checkpoint.criu"),
        there.outside("checkpoint.criu"),
    )?;

    let mut second = there.start(row, server)?;
    there.wait_for("tick ", &mut second)?;
    fs::write(there.outside(".criu/srv/go"), "")?;
    let status = there.wait_end(&mut second)?;
    ensure!(
        ended(status) == row.ends,
        "ended with {status}: {}",
        there.story()
    );
    let left = there.names()?;
    ensure!(
        left.iter().any(|name| name == "go") && !left.iter().any(|name| name.contains("criu")),
        "left behind: {left:?}"
    );
    each_line_once(&(here.printed("out") + &there.printed("out")))
}

/// The job was told to leave, runs on, and finds itself whole.
fn refused(row: &Row, because: &str, here: &Place<'_>, child: &mut Child) -> Result<()> {
    wait::until("a refusal", LIMIT, || {
        let said = here.printed("err").contains("could not be frozen");
        Ok((said || child.try_wait()?.is_some()).then_some(()))
    })
    .with_context(|| here.story())?;
    let said = here.printed("err");
    ensure!(said.contains(because), "another reason: {}", here.story());
    // A script takes TERM for `go`; a specimen dies of it, as it would without us.
    let status = here.wait_end(child)?;
    let expected = match row.start {
        Start::Specimen(_) => Ends::Signal(15),
        Start::Script(..) => row.ends,
    };
    ensure!(
        ended(status) == expected,
        "ended with {status}: {}",
        here.story()
    );
    let left = here.names()?;
    ensure!(
        !left.iter().any(|name| name.contains("criu")),
        "left behind: {left:?}"
    );
    Ok(())
}

fn each_line_once(text: &str) -> Result<()> {
    let mut expected = vec!["ready".to_owned()];
    let ticks = text
        .lines()
        .filter(|line| line.starts_with("tick "))
        .count();
    expected.extend((1..=ticks).map(|tick| format!("tick {tick}")));
    expected.push("done".to_owned());
    ensure!(text.lines().eq(&expected), "the output is\n{text}");
    Ok(())
}

fn ended(status: ExitStatus) -> Ends {
    match (status.code(), status.signal()) {
        // nsenter and bash pass a death on as the shell does.
        (Some(code), _) if code > 128 => Ends::Signal(code - 128),
        (Some(code), _) => Ends::Code(code),
        (None, signal) => Ends::Signal(signal.unwrap_or(0)),
    }
}

/// TERM for the supervisor alone: it is the child that nsenter has become or started.
fn terminate(host: &Host, child: &Child) -> Result<()> {
    let mut pid = child.id();
    loop {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))
            .with_context(|| format!("process {pid} on {}", host.name))?;
        if name.trim() == "criu-starter" {
            break;
        }
        let below = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        pid = below
            .split_whitespace()
            .next()
            .context("no supervisor")?
            .parse()?;
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    Ok(())
}
