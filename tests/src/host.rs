//! A host: namespaces of its own over an overlay of a distribution root, with one network card on its pool's bridge.
//!
//! Its files are read and written from outside, through `/proc/INIT/root`; its programs are run by `nsenter`.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::state::Process;
use crate::users::User;
use crate::{machine, wait};

/// Domain of all hosts, and HTCondor's `UID_DOMAIN`.
pub const DOMAIN: &str = "pool";

/// Network bits of [`Host::address`]. Every pool has the same subnet: its bridge is in a network namespace that nobody else sees.
const NETWORK_BITS: u8 = 24;

/// Whatever the caller left open (a jobserver, a test runner's pipes) is no business of a host's processes; CRIU would even refuse
/// to freeze a job that has inherited such a descriptor.
const CLOSE_INHERITED: &str = r#"
for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    if ((fd > 2)); then eval "exec $fd>&-"; fi
done
exec "$@""#;

/// What a host does in its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Collector, negotiator, schedd; users submit here.
    AccessPoint,
    /// Runs jobs; its daemons are root's, as in a site's own pool.
    Root,
    /// Runs jobs; its daemons are an ordinary user's without any capability, as in a glidein.
    Glidein,
}

/// One host of a pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    /// Its name without the domain.
    pub name: String,
    /// Its address on the pool's bridge.
    pub address: Ipv4Addr,
    /// What it is for.
    pub role: Role,
    /// The machine's directory of the pool.
    pool: PathBuf,
}

impl Host {
    pub(crate) fn new(pool: &Path, name: &str, index: u8, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 77, 0, index),
            role,
            pool: pool.to_owned(),
        }
    }

    /// Its full name, as HTCondor prints it.
    pub fn full_name(&self) -> String {
        format!("{}.{DOMAIN}", self.name)
    }

    /// Starts its init; [`Self::wait_started`] says when it can be used.
    pub(crate) fn start(&self, keeper: Process, root: &Path) -> Result<()> {
        let log = self.pool.join("log").join(&self.name);
        let log = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let note = self.init_note();
        if note.exists() {
            fs::remove_file(&note).with_context(|| format!("remove {}", note.display()))?;
        }
        // setsid, so that a Ctrl-C meant for the caller is not the host's.
        let mut child = Command::new("setsid")
            .env("PATH", machine::PATH)
            .args([
                "nsenter",
                "--target",
                &keeper.pid.to_string(),
                "--mount",
                "--net",
                "--pid",
                "--",
            ])
            .args(["unshare", "--mount", "--net", "--pid", "--uts", "--ipc"])
            .args(["--fork", "--kill-child", "--propagation", "private", "--"])
            .args(["bash", "-eu"])
            .arg(self.pool.join("host.sh"))
            .arg(&self.pool)
            .arg(&self.name)
            .arg(keeper.pid.to_string())
            .arg(root)
            .arg(format!("{}/{NETWORK_BITS}", self.address))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run nsenter")?;
        // It ends when the host does; this thread is there to reap it.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// Waits until the host's init runs.
    pub(crate) fn wait_started(&self) -> Result<()> {
        wait::until(
            &format!("host {}", self.name),
            Duration::from_secs(15),
            || Ok(Process::noted(&self.init_note())),
        )
        .map(drop)
        .with_context(|| {
            let log =
                fs::read_to_string(self.pool.join("log").join(&self.name)).unwrap_or_default();
            format!("host {} did not start: {}", self.name, log.trim())
        })
    }

    /// Accounts, names, no DNS: what every host has, whatever its role.
    pub(crate) fn furnish(&self, hosts: &[Self]) -> Result<()> {
        let mut passwd = fs::read_to_string(self.path("/etc/passwd"))?;
        let mut group = fs::read_to_string(self.path("/etc/group"))?;
        for user in [User::Alice, User::Bob, User::Pilot] {
            let (name, uid, home) = (user.name(), user.uid(), user.home());
            passwd += &format!("{name}:x:{uid}:{uid}::{home}:/bin/bash\n");
            group += &format!("{name}:x:{uid}:\n");
            self.make_dir(&home, user, 0o755)?;
        }
        self.write("/etc/passwd", passwd, User::Root, 0o644)?;
        self.write("/etc/group", group, User::Root, 0o644)?;
        let mut names = "127.0.0.1 localhost\n".to_owned();
        for host in hosts {
            names += &format!("{} {} {}\n", host.address, host.full_name(), host.name);
        }
        self.write("/etc/hosts", names, User::Root, 0o644)?;
        self.write(
            "/etc/hostname",
            format!("{}\n", self.name),
            User::Root,
            0o644,
        )?;
        // A name server that does not answer costs each daemon half a minute at its start.
        self.write("/etc/resolv.conf", "", User::Root, 0o644)?;
        self.write(
            "/etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n",
            User::Root,
            0o644,
        )
    }

    /// The host's init, as the machine knows it.
    pub fn init(&self) -> Result<Process> {
        Process::noted(&self.init_note())
            .filter(|init| init.is_alive())
            .with_context(|| format!("host {} does not run", self.name))
    }

    fn init_note(&self) -> PathBuf {
        self.pool.join("init").join(&self.name)
    }

    /// A file of the host, as a path on the machine. Absolute symbolic links inside would lead out of the host: take care.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let pid = Process::noted(&self.init_note()).map_or(0, |init| init.pid);
        let inside = inside.as_ref();
        Path::new(&format!("/proc/{pid}/root")).join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Reads a file of the host.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<String> {
        let path = path.as_ref();
        let bytes = fs::read(self.path(path))
            .with_context(|| format!("read {} on {}", path.display(), self.name))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes a file of the host, with owner and mode.
    pub fn write(
        &self,
        path: impl AsRef<Path>,
        bytes: impl AsRef<[u8]>,
        user: User,
        mode: u32,
    ) -> Result<()> {
        let path = path.as_ref();
        let put = || {
            let outside = self.path(path);
            if let Some(parent) = outside.parent() {
                fs::create_dir_all(parent)?;
            }
            let mut file = fs::File::create(&outside)?;
            file.write_all(bytes.as_ref())?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            chown(&outside, Some(user.uid()), Some(user.uid()))
        };
        put().with_context(|| format!("write {} on {}", path.display(), self.name))
    }

    /// Makes a directory of the host and those above it; owner and mode are the last one's.
    pub fn make_dir(&self, path: impl AsRef<Path>, user: User, mode: u32) -> Result<()> {
        let path = path.as_ref();
        let put = || {
            let outside = self.path(path);
            fs::create_dir_all(&outside)?;
            fs::set_permissions(&outside, fs::Permissions::from_mode(mode))?;
            chown(&outside, Some(user.uid()), Some(user.uid()))
        };
        put().with_context(|| format!("make directory {} on {}", path.display(), self.name))
    }

    /// Removes a file of the host if it is there.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        match fs::remove_file(self.path(path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {} on {}", path.display(), self.name))
            }
            _ => Ok(()),
        }
    }

    /// A command on the host, as `user` in `dir`; the caller adds the program and its arguments.
    pub fn command(&self, user: User, dir: &str) -> Result<Command> {
        let init = self.init()?;
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &init.pid.to_string(),
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--",
        ]);
        if user != User::Root {
            let uid = user.uid();
            command.args([
                "setpriv",
                &format!("--reuid={uid}"),
                &format!("--regid={uid}"),
                "--clear-groups",
            ]);
        }
        if user == User::Pilot {
            // What a glidein has on a worker node: nothing, and no way to get it.
            command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]);
        }
        command.args(["bash", "-c", CLOSE_INHERITED, "bash"]);
        let name = user.name();
        command
            .args(["env", "--ignore-environment", &format!("--chdir={dir}")])
            .args([
                format!("HOME={}", user.home()),
                format!("USER={name}"),
                format!("LOGNAME={name}"),
            ])
            .args([format!("PATH={}", machine::PATH), "LANG=C.UTF-8".to_owned()]);
        if let Some(term) = std::env::var_os("TERM").and_then(|term| term.into_string().ok()) {
            command.arg(format!("TERM={term}"));
        }
        if self.role == Role::Glidein {
            command.arg(format!("CONDOR_CONFIG={}", self.config_file()));
        }
        command.stdin(Stdio::null()).env("PATH", machine::PATH);
        Ok(command)
    }

    /// Runs a program of the machine's in the host's network, for what the host's root has no program for.
    pub fn run_on_its_network(&self, args: &[&str]) -> Result<()> {
        run_in_network(self.init()?.pid, args).with_context(|| format!("for {}", self.name))
    }

    /// The same where the cables of all hosts come together.
    pub(crate) fn run_on_the_switch(&self, args: &[&str]) -> Result<()> {
        let keeper = Process::noted(&self.pool.join("keeper")).context("the pool has no keeper")?;
        run_in_network(keeper.pid, args).with_context(|| format!("for {}", self.name))
    }

    /// Runs a program to its end on the host; what it printed, or an error with that.
    pub fn run(&self, user: User, dir: &str, args: &[&str]) -> Result<String> {
        let ended = self
            .command(user, dir)?
            // A tool whose daemon hangs would hang the test.
            .args(["timeout", "--kill-after=5", "60"])
            .args(args)
            .output()
            .context("run nsenter")?;
        let stdout = String::from_utf8_lossy(&ended.stdout);
        if !ended.status.success() {
            let stderr = String::from_utf8_lossy(&ended.stderr);
            bail!(
                "{} on {} ended with {}: {}{}",
                args.join(" "),
                self.name,
                ended.status,
                stdout,
                stderr.trim()
            );
        }
        Ok(stdout.into_owned())
    }
}

fn run_in_network(pid: u32, args: &[&str]) -> Result<()> {
    let ended = Command::new("nsenter")
        .args(["--target", &pid.to_string(), "--net", "--"])
        .args(args)
        .env("PATH", machine::PATH)
        .stdin(Stdio::null())
        .output()
        .context("run nsenter")?;
    if !ended.status.success() {
        let stderr = String::from_utf8_lossy(&ended.stderr);
        bail!("{}: {}", args.join(" "), stderr.trim());
    }
    Ok(())
}
