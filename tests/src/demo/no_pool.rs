//! The job without HTCondor: `criu-starter` by hand, between two hosts that are namespaces and a directory each.
//!
//! ```text
//! left: run -> freeze (TERM) -> checkpoint.criu ──> right: run -> freeze -> checkpoint.criu ──> left: run -> end
//! ```
//!
//! An ordinary user can do all of it. A host ends with the pipe that its orders come through, thus with this process.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::screen::Row;
use super::sieve::{self, Work};
use super::stage::{self, ARCHIVE, Stage, Told};
use super::watch::{Image, Look, World};
use crate::events::Exit;
use crate::{binaries, machine, wait};

/// What `criu-starter` ends with after a complete image.
const FROZEN: i32 = 85;

/// Lines of each log in a failure.
const TAIL: usize = 30;

/// A machine as far as a job can tell.
struct Host {
    name: &'static str,
    dir: PathBuf,
    orders: Option<ChildStdin>,
    process: Child,
}

impl Host {
    fn start(name: &'static str, dir: PathBuf, command: &[String]) -> Result<Self> {
        fs::create_dir_all(dir.join("scratch"))
            .with_context(|| format!("create {}", dir.display()))?;
        let said = File::create(dir.join("host"))?;
        // setsid, so that a Ctrl-C is the demo's alone; the host ends with its pipe.
        let mut process = Command::new("setsid")
            .args(["unshare", "--user", "--map-root-user", "--mount", "--uts"])
            // No network of its own: in one that belongs to a user namespace, CRIU 4.2 cannot tell what the kernel has.
            .args(["--ipc", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "--", "sh", "-euc"])
            .args([
                include_str!("../../scripts/demo-host.sh"),
                "demo-host",
                name,
            ])
            .arg(&dir)
            .args(command)
            // Not in an HTCondor job, even if the demo is run in one.
            .env_clear()
            .env("PATH", machine::PATH)
            .stdin(Stdio::piped())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("run setsid unshare")?;
        let orders = process.stdin.take();
        Ok(Self {
            name,
            dir,
            orders,
            process,
        })
    }

    fn order(&mut self, order: &str) -> Result<()> {
        let said = || fs::read_to_string(self.dir.join("host")).unwrap_or_default();
        let orders = self.orders.as_mut().context("a host takes orders")?;
        writeln!(orders, "{order}")
            .with_context(|| format!("host {} is gone: {}", self.name, said().trim()))
    }

    fn read(&self, file: &str) -> Option<String> {
        let bytes = fs::read(self.dir.join(file)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.orders.take());
        let ended = wait::until("a host to end", Duration::from_secs(10), || {
            Ok(self.process.try_wait()?)
        });
        if ended.is_err() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        // A host that never came up has not removed it.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Both hosts, and the job on one of them.
pub struct NoPool {
    hosts: [Host; 2],
    /// Starts so far; odd ones are on the first host.
    starts: usize,
    returns: usize,
    told: Told,
    /// What the earlier starts printed.
    printed: String,
    /// The hosts' directories, removed when they are.
    _dir: Directory,
}

/// A directory that goes with its value.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl NoPool {
    /// Makes the hosts and starts the job on the first.
    pub fn start(work: Work) -> Result<Self> {
        machine::need(&[
            ("unshare", "util-linux"),
            ("setsid", "util-linux"),
            ("hostname", "hostname"),
        ])?;
        let starter = starter_with_criu()?;
        let parent = machine::target_dir().join("demo");
        fs::create_dir_all(&parent).with_context(|| format!("create {}", parent.display()))?;
        let dir = parent.canonicalize()?.join(std::process::id().to_string());
        let dir = Directory(dir);
        let mut command = vec![
            starter.to_string_lossy().into_owned(),
            "run".to_owned(),
            "--".to_owned(),
            "./sieve".to_owned(),
        ];
        command.extend(work.arguments());
        let mut world = Self {
            hosts: [
                Host::start("left", dir.0.join("left"), &command)?,
                Host::start("right", dir.0.join("right"), &command)?,
            ],
            starts: 0,
            returns: 0,
            told: Told::default(),
            printed: String::new(),
            _dir: dir,
        };
        let program = world.scratch("sieve");
        fs::copy(binaries::sieve()?, &program)
            .with_context(|| format!("write {}", program.display()))?;
        world.begin()?;
        Ok(world)
    }

    fn begin(&mut self) -> Result<()> {
        self.starts += 1;
        self.told = Told::default();
        let order = format!("run {}", self.starts);
        self.host_mut().order(&order)
    }

    fn host(&self) -> &Host {
        &self.hosts[self.starts.saturating_sub(1) % 2]
    }

    fn host_mut(&mut self) -> &mut Host {
        &mut self.hosts[self.starts.saturating_sub(1) % 2]
    }

    fn scratch(&self, file: &str) -> PathBuf {
        self.host().dir.join("scratch").join(file)
    }

    /// The image goes to the other host, whose `criu-starter` finds it there.
    fn move_on(&mut self) -> Result<()> {
        let from = self.scratch(ARCHIVE);
        self.printed += &self.of_this_start("out").unwrap_or_default();
        let to = self.hosts[self.starts % 2].dir.join("scratch");
        let twin = to.join("arriving");
        fs::copy(&from, &twin).with_context(|| format!("copy {}", from.display()))?;
        fs::rename(&twin, to.join(ARCHIVE)).context("put the image in its place")?;
        fs::remove_file(&from).with_context(|| format!("remove {}", from.display()))?;
        self.begin()
    }

    fn of_this_start(&self, stream: &str) -> Option<String> {
        self.host().read(&format!("{stream}-{}", self.starts))
    }

    fn exit_code(&self) -> Option<i32> {
        self.of_this_start("code")?.trim().parse().ok()
    }
}

/// `criu-starter`, sure to have a CRIU: one beside it that root made of a distribution's, or the machine's own.
fn starter_with_criu() -> Result<PathBuf> {
    let dir = binaries::dir()?;
    let starter = dir.join("criu-starter");
    if rustix::process::geteuid().is_root() {
        binaries::bundle_criu(dir)?;
    }
    let found = Command::new(&starter)
        .arg("criu-version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {}", starter.display()))?;
    if !found.status.success() {
        bail!(
            "no CRIU here ({}): install 4.1 or later (Debian 13: sudo apt-get install criu), or run this once as root, which makes one",
            String::from_utf8_lossy(&found.stderr).trim()
        );
    }
    Ok(starter)
}

impl World for NoPool {
    fn look(&mut self) -> Result<Look> {
        self.told = Told::read(&self.of_this_start("log").unwrap_or_default());
        let mut stage = self.told.stage();
        let mut exit = None;
        match self.exit_code() {
            // The first look after a freeze shows it, the second moves the image.
            Some(FROZEN) if self.returns < self.starts => {
                self.returns += 1;
                stage = Stage::Leaving;
            }
            Some(FROZEN) => {
                self.move_on()?;
                stage = Stage::Starting;
            }
            // A shell's answer to a death by signal.
            Some(code @ 129..=192) => exit = Some(Exit::Signal(code - 128)),
            Some(code) => exit = Some(Exit::Code(code)),
            None => {
                let host = self.host_mut();
                if let Some(status) = host.process.try_wait()? {
                    let said = host.read("host").unwrap_or_default();
                    bail!("host {} ended with {status}: {}", host.name, said.trim());
                }
            }
        }
        if exit.is_some() {
            stage = Stage::Ended;
        }
        // What the job has printed, live; the relayed copy once its directory is gone.
        let output = fs::read_to_string(self.scratch(".criu/srv/.criu/stdout"))
            .ok()
            .or_else(|| self.of_this_start("out"))
            .unwrap_or_default();
        Ok(Look {
            host: Some(self.host().name.to_owned()),
            starts: self.starts,
            returns: self.returns,
            stage,
            moved: (stage == Stage::Packing)
                .then(|| stage::unfinished_archive(&self.scratch("")))
                .flatten(),
            progress: sieve::steps(&output).next_back(),
            exit,
        })
    }

    fn rows(&self, look: &Look, now: &str) -> Vec<Row> {
        self.hosts
            .iter()
            .map(|host| Row {
                name: host.name.to_owned(),
                what: "namespaces and a directory".to_owned(),
                now: (look.host.as_deref() == Some(host.name)).then(|| now.to_owned()),
            })
            .collect()
    }

    fn evict(&mut self) -> Result<String> {
        self.host_mut().order("freeze")?;
        Ok("SIGTERM to criu-starter".to_owned())
    }

    fn image(&mut self) -> Result<Result<Image, String>> {
        let image = || {
            Some(Image {
                bytes: self.told.bytes?,
                freeze_seconds: self.told.freeze_seconds?,
                pack_seconds: self.told.pack_seconds?,
                lane: "hand".to_owned(),
            })
        };
        Ok(image().ok_or_else(|| "criu-starter tells of none".to_owned()))
    }

    fn output(&mut self) -> Result<String> {
        let last = self.of_this_start("out").unwrap_or_default();
        ensure!(!last.is_empty(), "the job's last start printed nothing");
        Ok(format!("{}{last}", self.printed))
    }

    fn logs(&mut self) -> String {
        let mut text = String::new();
        for start in 1..=self.starts {
            let host = &self.hosts[(start - 1) % 2];
            let log = host.read(&format!("log-{start}")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            text += &format!("--- start {start} on {}\n{tail}\n", host.name);
        }
        text
    }
}
