//! What the measurements have in common: processes full of memory, and figures taken in pairs.

mod subjects;

pub use subjects::{Bare, Ours, STARTER};

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::host::Host;
use crate::roots::Root;
use crate::users::User;
use crate::wait;

/// Kinds of memory that [`Job`] knows, beside [`LAMMPS`].
pub const KINDS: [&str; 6] = ["noise", "half", "sines", "particles", "objects", JVM];

/// Python's kinds, by name.
const PYTHON: (&str, &str) = ("memory.py", include_str!("memory.py"));

/// That of Rhino, which runs JavaScript on a JVM: Java itself would have to be compiled.
const JVM: &str = "jvm";
const RHINO: (&str, &str) = ("jvm.js", include_str!("jvm.js"));
const RHINO_CLASSES: &str = "/usr/share/java/js.jar";
const RHINO_MAIN: &str = "org.mozilla.javascript.tools.shell.Main";

/// Molecular dynamics, as one process: MPI is told that there are no others, and opens no sockets for them.
pub const LAMMPS: &str = "lammps";
const MELT: (&str, &str) = ("lammps.in", include_str!("lammps.in"));
const ALONE: &str = "OMPI_MCA_btl=self";

/// Both ends of a connection, and what takes a stream of images.
pub const SCRIPTS: [(&str, &str); 2] = [
    ("link.py", include_str!("link.py")),
    ("stream.py", include_str!("stream.py")),
];

/// To fill a gigabyte with python's objects on a busy machine.
const FILLING: Duration = Duration::from_secs(600);

/// Far above what a restore takes.
const THAWING: Duration = Duration::from_secs(300);

/// A process with a given amount of one kind of memory, in a directory of its own.
#[derive(Debug)]
pub struct Job<'h> {
    host: &'h Host,
    user: User,
    /// On the host.
    pub dir: String,
    words: Vec<String>,
    /// What its process is called.
    comm: &'static str,
}

impl<'h> Job<'h> {
    /// In the directory `name`, which is made.
    pub fn new(host: &'h Host, user: User, name: &str, kind: &str, megabytes: u32) -> Result<Self> {
        ensure!(
            kind == LAMMPS || KINDS.contains(&kind),
            "no such kind of memory: {kind}"
        );
        let dir = format!("{}/{name}", user.home());
        host.make_dir(&dir, user, 0o755)?;
        let (name, program) = match kind {
            JVM => RHINO,
            LAMMPS => MELT,
            _ => PYTHON,
        };
        host.write(format!("{dir}/{name}"), program, user, 0o644)?;
        let size = megabytes.to_string();
        let heap = format!("-Xmx{}m", 2 * megabytes);
        let (comm, words) = match kind {
            JVM => {
                let classes = ["-classpath", RHINO_CLASSES, RHINO_MAIN];
                let java = ["/usr/bin/java", &heap];
                ("java", [&java[..], &classes, &[name, &size]].concat())
            }
            LAMMPS => {
                let lmp = ["/usr/bin/env", ALONE, "/usr/bin/lmp"];
                let args = ["-in", name, "-var", "mb", &size];
                ("lmp", [&lmp[..], &args].concat())
            }
            _ => ("python3", vec!["/usr/bin/python3", name, kind, &size]),
        };
        let words = words.into_iter().map(str::to_owned).collect();
        Ok(Self {
            host,
            user,
            dir,
            words,
            comm,
        })
    }

    /// Starts it, behind the words of whatever is to start it; returns when its memory is full.
    pub fn start(&self, before: &[&str], beats: &str) -> Result<Child> {
        let stream = |what: &str| fs::File::create(self.path(what));
        let mut child = self
            .host
            .command(self.user, &self.dir)?
            .args(before)
            .args(&self.words)
            .stdout(stream("../out")?)
            .stderr(stream("../err")?)
            .spawn()?;
        self.wait_beat(beats, "", FILLING, &mut child)?;
        Ok(child)
    }

    /// A path of its directory, seen from the machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.host.path(format!("{}/{name}", self.dir))
    }

    /// How far it has counted; `beats` is the directory in which it does. Empty while there is no such file, or a file whose
    /// contents are still to come out of an image.
    pub fn beat(&self, beats: &str) -> String {
        let beat = fs::read_to_string(self.path(beats).join("beat")).unwrap_or_default();
        let beat = beat.trim_end();
        let counted = beat.len() == 12 && beat.bytes().all(|byte| byte.is_ascii_digit());
        if counted {
            beat.to_owned()
        } else {
            String::new()
        }
    }

    /// Has it overwrite one part in twenty of its memory, the `first` ones or `scattered`.
    pub fn change(&self, which: &str) -> Result<()> {
        let path = self.path(".criu/srv/change");
        fs::write(self.path(".criu/srv/change.new"), which)?;
        fs::rename(self.path(".criu/srv/change.new"), &path)?;
        wait::until("the change", THAWING, || Ok((!path.exists()).then_some(())))
    }

    /// Waits, closely, until it has counted on from `before`, or until `by` has failed.
    pub fn wait_beat(
        &self,
        beats: &str,
        before: &str,
        limit: Duration,
        by: &mut Child,
    ) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            let beat = self.beat(beats);
            if !beat.is_empty() && beat.as_str() != before {
                return Ok(());
            }
            let ended = by.try_wait()?.filter(|status| !status.success());
            if ended.is_some() || Instant::now() > until {
                let said = fs::read_to_string(self.path("../err")).unwrap_or_default();
                bail!("the job does not run ({ended:?}): {said}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until it counts after a restore: three steps, as a file that is being unpacked may seem to take one.
    pub fn wait_thawed(&self, beats: &str, by: &mut Child) -> Result<()> {
        for _ in 0..3 {
            self.wait_beat(beats, &self.beat(beats), THAWING, by)?;
        }
        Ok(())
    }
}

/// What the host of such a job is made of.
pub fn root(kind: &str) -> Root {
    match kind {
        LAMMPS => Root::Lammps,
        _ => Root::Languages,
    }
}

/// A command on a host, to its end; the seconds that it took.
pub fn timed(command: &mut Command) -> Result<f64> {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(seconds)
}

/// The processes below one of ours that have one of these names.
pub fn processes_below(root: u32, names: &[&str]) -> Vec<i32> {
    let mut found = Vec::new();
    let mut left = vec![root as i32];
    while let Some(pid) = left.pop() {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if names.contains(&comm.trim()) {
            found.push(pid);
        }
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let list = list.unwrap_or_default();
        left.extend(
            list.split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    found
}

/// What processes take from the first look on.
#[derive(Debug, Default)]
pub struct Usage(BTreeMap<i32, Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The largest memory that it has had, in KB.
    memory: u64,
    /// Hundredths of a second of CPU, when it was seen first and last.
    cpu: Option<(u64, u64)>,
}

impl Usage {
    /// Looks at them once; one that is gone counts as it was seen last.
    pub fn look(&mut self, pids: &[i32]) {
        for pid in pids {
            let read =
                |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let status = read("status");
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let memory = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
            let seen = self.0.entry(*pid).or_default();
            seen.memory = seen.memory.max(memory.unwrap_or(0));
            let stat = read("stat");
            let Some((_, after)) = stat.rsplit_once(')') else {
                continue;
            };
            // utime and stime.
            let numbers = after.split_whitespace().skip(11).take(2);
            let ticks = numbers
                .filter_map(|number| number.parse::<u64>().ok())
                .sum();
            let first = seen.cpu.map_or(ticks, |(first, _)| first);
            seen.cpu = Some((first, ticks));
        }
    }

    /// Memory in MB.
    pub fn megabytes(&self) -> u64 {
        self.0.values().map(|seen| seen.memory).sum::<u64>() / 1024
    }

    /// CPU in seconds.
    pub fn cpu(&self) -> f64 {
        let ticks = self.0.values().filter_map(|seen| seen.cpu);
        ticks.map(|(first, last)| last - first).sum::<u64>() as f64 / 100.0
    }
}

/// How often processes are looked at, which takes what they could have of the CPU.
const LOOKS: Duration = Duration::from_millis(50);

/// Waits for a child's end, closely, and looks at it now and then.
pub fn wait_end(child: &mut Child, mut look: impl FnMut()) -> Result<Option<i32>> {
    let mut next = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() >= next {
            look();
            next = Instant::now() + LOOKS;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The middle of values and how far half of them are around it.
pub fn spread(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() - 1) * part / 4];
    format!(
        "{:.digits$} ({:.digits$} to {:.digits$})",
        at(2),
        at(1),
        at(3)
    )
}
