//! A pool: one access point and some execution points, up in seconds, down always.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::condor_config;
use crate::host::{Host, Role};
use crate::machine;
use crate::roots::{self, HtCondor};
use crate::spec::Spec;
use crate::state::{self, Process};
use crate::users::User;
use crate::{logs, wait};

/// In the pool's directory while it lives, so that a list of processes shows their names and not their texts.
const SCRIPTS: [(&str, &str); 3] = [
    ("guard.sh", include_str!("../scripts/guard.sh")),
    ("keeper.sh", include_str!("../scripts/keeper.sh")),
    ("host.sh", include_str!("../scripts/host.sh")),
];

/// How long daemons may take to find each other; far above what they take.
const UP_LIMIT: Duration = Duration::from_secs(60);

/// What a pool consists of, as its directory remembers it.
#[derive(Debug, Serialize, Deserialize)]
struct Layout {
    version: HtCondor,
    hosts: Vec<Host>,
    slots: u32,
}

/// A running pool. When the value that brought it up is dropped, or its process dies in whatever way, the pool is over.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    dir: PathBuf,
    layout: Layout,
    /// Ends the pool when the pipe to its standard input is closed.
    guard: Option<Child>,
}

impl Pool {
    /// Brings up a pool that ends with this value.
    pub fn up(spec: &Spec) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::start(
            &format!("test-{}-{number}", std::process::id()),
            spec,
            false,
        )
    }

    /// Brings up a pool that lives until [`down`] is called with its name.
    pub fn up_detached(name: &str, spec: &Spec) -> Result<Self> {
        Self::start(name, spec, true)
    }

    /// A pool that somebody brought up.
    pub fn attach(name: &str) -> Result<Self> {
        let dir = state::pools_dir().join(check_name(name)?);
        if !state::is_alive(&dir) {
            bail!("no pool {name} is up; `pool up --name {name}` brings one up");
        }
        let text = fs::read(dir.join("pool.json"))
            .with_context(|| format!("pool {name} is not up yet"))?;
        let layout = serde_json::from_slice(&text)
            .with_context(|| format!("read the state of pool {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            dir,
            layout,
            guard: None,
        })
    }

    fn start(name: &str, spec: &Spec, detached: bool) -> Result<Self> {
        machine::need(machine::FOR_A_POOL)?;
        let root = roots::get(spec.root)?;
        let pools = state::pools_dir();
        let mut pool = {
            let _lock = state::lock(&pools)?;
            state::clean_leftovers(&pools)?;
            let pools = pools.canonicalize()?;
            let dir = pools.join(check_name(name)?);
            for path in [&dir, &root] {
                if path.to_string_lossy().contains([',', ':', '\\']) {
                    bail!(
                        "overlay mounts cannot name {}: it holds a comma, colon or backslash",
                        path.display()
                    );
                }
            }
            if dir.exists() {
                bail!("pool {name} is already up; `pool down --name {name}` ends it");
            }
            for below in ["init", "log", "hosts", "shared"] {
                fs::create_dir_all(dir.join(below))
                    .with_context(|| format!("create {}", dir.display()))?;
            }
            for (name, script) in SCRIPTS {
                fs::write(dir.join(name), script).with_context(|| format!("write {name}"))?;
            }
            fs::write(dir.join("owner"), Process::current()?.to_string())?;
            let layout = Layout::new(spec, &dir);
            let guard = Some(start_guard(&dir, detached)?);
            Self {
                name: name.to_owned(),
                dir,
                layout,
                guard,
            }
        };
        if let Err(error) = pool.bring_up(spec, &root) {
            let error = error.context(format!("bring up a pool with HTCondor {}", spec.version));
            return Err(match pool.end() {
                Ok(()) => error,
                Err(end) => error.context(format!("and then end it: {end:#}")),
            });
        }
        if detached {
            fs::write(pool.dir.join("ready"), "")?;
            pool.guard = None;
        }
        Ok(pool)
    }

    fn bring_up(&self, spec: &Spec, root: &Path) -> Result<()> {
        let keeper = wait::until("the pool's keeper", Duration::from_secs(10), || {
            let guard = Process::noted(&self.dir.join("guard"));
            if guard.is_some_and(|guard| !guard.is_alive()) {
                bail!("the pool's guard has ended");
            }
            Ok(Process::noted(&self.dir.join("keeper")))
        })
        .with_context(|| fs::read_to_string(self.dir.join("log/guard")).unwrap_or_default())?;
        for host in self.hosts() {
            host.start(keeper, root)?;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("read the clock")?
            .as_secs();
        for host in self.hosts() {
            host.wait_started()?;
            host.furnish(self.hosts())?;
        }
        if spec.bare {
            return Ok(());
        }
        self.ap().start_condor(
            spec.version,
            &condor_config::access_point(self.ap(), &spec.config),
        )?;
        for (host, ep) in self.eps().iter().zip(&spec.eps) {
            if !ep.criu {
                host.remove("/usr/sbin/criu")?;
            }
            for install in &ep.installs {
                let bytes = fs::read(&install.from)
                    .with_context(|| format!("read {}", install.from.display()))?;
                host.write(
                    Path::new(host.libexec()).join(&install.to),
                    bytes,
                    host.daemons(),
                    0o755,
                )?;
            }
            if let Some(size) = &ep.disk {
                host.mount_disk(&format!("{}/execute", host.condor_dir()), size)?;
            }
            host.start_condor(spec.version, &condor_config::execution_point(host, ep, now))?;
        }
        // What is written last makes the pool known to other processes.
        fs::write(
            self.dir.join("pool.json"),
            serde_json::to_vec(&self.layout)?,
        )?;
        self.wait_slots()
    }

    /// Waits until the schedd and all slots are known to the collector.
    fn wait_slots(&self) -> Result<()> {
        let wanted = self.layout.slots as usize;
        let mut seen = String::new();
        wait::until(&format!("a schedd and {wanted} slots"), UP_LIMIT, || {
            let query = ["condor_status", "-any", "-af", "MyType", "Name"];
            // Fails as long as there is no collector.
            seen = self.ap().run(User::Root, "/", &query).unwrap_or_default();
            let count = |kind: &str| {
                seen.lines()
                    .filter(|line| line.split(' ').next() == Some(kind))
                    .count()
            };
            // A machine's ad calls itself Machine, or Slot in later versions, with one more for the daemon itself.
            let slots = seen.lines().filter(|line| line.contains(" slot")).count();
            Ok((count("Scheduler") > 0 && slots >= wanted).then_some(()))
        })
        .with_context(|| format!("the collector knows:\n{seen}\n{}", logs::of_pool(self)))
    }

    /// The collector's ad of one slot of `host`, as text; none while it knows of none.
    pub fn slot_ad(&self, host: &Host) -> Result<Option<String>> {
        let only = format!("Machine == \"{}\"", host.full_name());
        let query = [
            "condor_status",
            "-limit",
            "1",
            "-long",
            "-constraint",
            &only,
        ];
        let ad = self.ap().run(User::Root, "/", &query)?;
        Ok((!ad.trim().is_empty()).then_some(ad))
    }

    /// Waits until the ad of a slot of `host` is as `condition` wants it, and gives what that made of it.
    pub fn wait_slot<T>(
        &self,
        host: &Host,
        what: &str,
        condition: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let mut last = None;
        wait::until(
            &format!("{what} in a slot's ad of {}", host.name),
            UP_LIMIT,
            || {
                last = self.slot_ad(host)?;
                Ok(last.as_deref().and_then(&condition))
            },
        )
        .with_context(|| {
            format!(
                "the ad is\n{}\n{}",
                last.unwrap_or_default(),
                logs::of_pool(self)
            )
        })
    }

    /// Ends the pool: when this returns, no process, mount or directory of it is left.
    pub fn down(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if let Some(mut guard) = self.guard.take()
            && let Some(pipe) = guard.stdin.take()
        {
            drop(pipe);
            // A guard that ends has removed the pool; what one that does not end left over is removed below.
            let _ = wait::until("the guard", Duration::from_secs(30), || {
                Ok(guard.try_wait()?)
            });
        }
        if self.dir.exists() {
            state::destroy(&self.dir)
        } else {
            Ok(())
        }
    }

    /// The release that it runs.
    pub fn version(&self) -> HtCondor {
        self.layout.version
    }

    /// What all its hosts have as `/shared`, on the machine.
    pub fn shared(&self) -> PathBuf {
        self.dir.join("shared")
    }

    /// All hosts, the access point first.
    pub fn hosts(&self) -> &[Host] {
        &self.layout.hosts
    }

    /// The access point.
    pub fn ap(&self) -> &Host {
        &self.layout.hosts[0]
    }

    /// The execution points.
    pub fn eps(&self) -> &[Host] {
        &self.layout.hosts[1..]
    }

    /// The host of that name, with or without domain.
    pub fn host(&self, name: &str) -> Result<&Host> {
        let found = self
            .hosts()
            .iter()
            .find(|host| host.name == name || host.full_name() == name);
        found.with_context(|| {
            let names: Vec<&str> = self.hosts().iter().map(|host| host.name.as_str()).collect();
            format!(
                "no host {name} in pool {}, only {}",
                self.name,
                names.join(", ")
            )
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.guard.is_some()
            && let Err(error) = self.end()
        {
            eprintln!("pool {} is not wholly gone: {error:#}", self.name);
        }
    }
}

impl Layout {
    fn new(spec: &Spec, dir: &Path) -> Self {
        let first = if spec.bare { "node" } else { "ap" };
        let mut hosts = vec![Host::new(dir, first, 1, Role::AccessPoint)];
        for (index, ep) in (1_u8..).zip(&spec.eps) {
            hosts.push(Host::new(dir, &format!("ep{index}"), index + 1, ep.role));
        }
        Self {
            version: spec.version,
            hosts,
            slots: spec.eps.iter().map(|ep| ep.slots).sum(),
        }
    }
}

/// Ends the pool of that name, in whatever state it is; whether there was one.
pub fn down(name: &str) -> Result<bool> {
    let pools = state::pools_dir();
    let dir = pools.join(check_name(name)?);
    let _lock = state::lock(&pools)?;
    let was = dir.exists();
    state::destroy(&dir)?;
    Ok(was)
}

fn check_name(name: &str) -> Result<&str> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
        bail!("a pool's name has letters, digits, - and _ only, not {name:?}");
    }
    Ok(name)
}

fn start_guard(dir: &Path, detached: bool) -> Result<Child> {
    let log = fs::File::create(dir.join("log/guard"))?;
    // setsid, so that a Ctrl-C that ends the owner leaves the guard to clean up behind it.
    Command::new("setsid")
        .env("PATH", machine::PATH)
        .args(["bash", "-u"])
        .arg(dir.join("guard.sh"))
        .arg(dir)
        .arg(if detached { "detached" } else { "attached" })
        .stdin(if detached {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .context("run setsid bash")
}
