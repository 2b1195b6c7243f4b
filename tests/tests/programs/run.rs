//! One row: started by hand in one directory, frozen by TERM, thawed in another, checked to the end.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tests::host::Host;
use tests::specimens::SCRIPTS;
use tests::users::User;
use tests::{turns, wait};

use super::table::{Ends, Outcome, Row, Start};

/// Far above what any step of a row takes on two busy cores.
const LIMIT: Duration = Duration::from_secs(180);

/// Where our programs are on the host.
pub(super) const BIN: &str = "/usr/local/bin";

const FROZEN: i32 = 85;

/// A place on the host for one life of a row, with what it printed beside it.
struct Place<'a> {
    stop: Stop<'a>,
    dir: String,
}

impl<'a> Place<'a> {
    /// A row's next place, always another.
    fn new(row: &Row, index: usize, stop: Stop<'a>) -> Place<'a> {
        // Several rows of a name may meet on one host.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let part = ["first/scratch", "second/otherwise/named", "third"][index];
        Place {
            stop,
            dir: format!("/home/pilot/{part}/{number}/{}", row.name()),
        }
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.stop.host.path(format!("{}/{name}", self.dir))
    }

    fn printed(&self, stream: &str) -> String {
        let path = self.stop.host.path(format!("{}.{stream}", self.dir));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.stop.host.path(&self.dir))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn make(&self) -> Result<()> {
        let parent = Path::new(&self.dir).parent().context("a parent")?;
        for dir in [parent, Path::new(&self.dir)] {
            self.stop.host.make_dir(dir, self.stop.user, 0o755)?;
        }
        Ok(())
    }

    /// The files that a row begins with.
    fn provide(&self, row: &Row) -> Result<()> {
        let write = |name: &str, text: &str| {
            let name = format!("{}{name}", self.dir);
            self.stop.host.write(name, text, self.stop.user, 0o755)
        };
        if let Start::Script(_, name) = row.start {
            let script = SCRIPTS.iter().find(|(known, _)| *known == name);
            let (_, text) = script.with_context(|| format!("no script {name}"))?;
            write(&format!("/{name}"), text)?;
        }
        if row.name() == "stdin" {
            write(".in", "first and the rest\n")?;
        }
        Ok(())
    }

    /// Has the job that runs here frozen, and nothing left but its image.
    fn freeze(&self, child: &mut Child) -> Result<()> {
        self.wait_for("tick ", child)?;
        terminate(self.stop.host, child)?;
        let status = self.wait_end(child)?;
        ensure!(
            status.code() == Some(FROZEN),
            "frozen with {status}: {}",
            self.story()
        );
        let left = self.names()?;
        ensure!(left == ["checkpoint.criu"], "left behind: {left:?}");
        Ok(())
    }

    /// The image, and it alone, goes to the next place.
    fn hand_over(&self, next: &Place<'_>) -> Result<()> {
        let (image, moved) = (
            self.outside("checkpoint.criu"),
            next.outside("checkpoint.criu"),
        );
        fs::copy(&image, &moved)?;
        fs::remove_file(image)?;
        let uid = Some(next.stop.user.uid());
        chown(&moved, uid, uid)?;
        Ok(())
    }

    fn start(&self, row: &Row, server: &str) -> Result<Child> {
        let stream =
            |name: &str| fs::File::create(self.stop.host.path(format!("{}.{name}", self.dir)));
        let mut command = self.stop.host.command(self.stop.user, &self.dir)?;
        command
            .arg(format!("SERVER={server}"))
            .args([&format!("{}/criu-starter", self.stop.bin), "run"])
            .args(self.stop.options)
            .arg("--");
        match row.start {
            Start::Specimen(name) => command.args([&format!("{BIN}/specimens"), name]),
            Start::Program(name) => command.arg(format!("{}/{name}", self.stop.bin)),
            Start::Script(program, name) => command.args([program, name]),
        };
        let input = self.stop.host.path(format!("{}.in", self.dir));
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

/// Where a row is started, or thawed.
#[derive(Clone, Copy)]
pub(super) struct Stop<'a> {
    pub(super) host: &'a Host,
    pub(super) user: User,
    /// Where our programs are.
    pub(super) bin: &'static str,
    /// Words after `run`.
    pub(super) options: &'static [&'static str],
}

impl<'a> Stop<'a> {
    /// As an ordinary user without any capability.
    pub(super) fn at(host: &'a Host) -> Self {
        Self {
            host,
            user: User::Pilot,
            bin: BIN,
            options: &[],
        }
    }

    /// By root, as root.
    pub(super) fn as_root(self) -> Self {
        Self {
            user: User::Root,
            options: &["--as-root"],
            ..self
        }
    }
}

/// Starts and freezes a row; where its image is, as a path on the machine.
pub(super) fn freeze(row: &Row, stop: Stop<'_>) -> Result<PathBuf> {
    let place = Place::new(row, 0, stop);
    place.make()?;
    place.provide(row)?;
    let mut child = place.start(row, "")?;
    place.wait_for("ready", &mut child)?;
    place.freeze(&mut child)?;
    Ok(place.outside("checkpoint.criu"))
}

/// Starts a row at the first stop, freezes and thaws it from each to the next; an error says what was otherwise.
pub(super) fn check(row: &Row, outcome: Outcome, route: &[Stop<'_>], server: &str) -> Result<()> {
    let _turn = turns::take();
    let places = route.iter().enumerate();
    let places = places.map(|(index, stop)| Place::new(row, index, *stop));
    let places: Vec<Place<'_>> = places.collect();
    for place in &places {
        place.make()?;
    }
    let (here, later) = places.split_first().context("a route has a beginning")?;
    here.provide(row)?;

    let mut printed = String::new();
    let mut child = here.start(row, server)?;
    here.wait_for("ready", &mut child)?;
    if let Outcome::Refused(because) = outcome {
        here.wait_for("tick ", &mut child)?;
        terminate(here.stop.host, &child)?;
        return refused(row, because, here, &mut child);
    }
    let mut here = here;
    for there in later {
        here.freeze(&mut child)?;
        here.hand_over(there)?;
        printed += &here.printed("out");
        child = there.start(row, server)?;
        here = there;
    }
    here.wait_for("tick ", &mut child)?;
    fs::write(here.outside(".criu/srv/go"), "")?;
    let status = here.wait_end(&mut child)?;
    ensure!(
        ended(status) == row.ends,
        "ended with {status}: {}",
        here.story()
    );
    let left = here.names()?;
    ensure!(
        left.iter().any(|name| name == "go") && !left.iter().any(|name| name.contains("criu")),
        "left behind: {left:?}"
    );
    each_line_once(&(printed + &here.printed("out")))
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
        Start::Specimen(_) | Start::Program(_) => Ends::Signal(15),
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
