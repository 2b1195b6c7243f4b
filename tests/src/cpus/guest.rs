//! The first process of a guest: mounts, does what the plan says, reports, switches off.
//!
//! With an argument, a directory, it makes that its root instead, and the machine is left on.

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};
use nix::unistd::{Pid, pivot_root};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::report::{Line, Origin, Outcome, PLAN, Plan, Task};
use super::tree::{MODULES, OURS, PROGRAMS};
use crate::wait;

/// What runs the programs: nobody in particular.
const USER: u32 = 1000;

/// Far above what a step takes on an emulated CPU.
const LIMIT: Duration = Duration::from_secs(120);

const FROZEN: i32 = 85;
const NOT_HERE: i32 = 87;

/// Where this file is, programs end soon.
const GO: &str = "/go";

/// What the programs end with.
const RIGHT: i32 = 7;
const WRONG: i32 = 8;
const LACKS: i32 = 9;

/// The whole of `cpu-guest`.
pub fn main() -> ExitCode {
    let real = std::env::args_os().nth(1).map(PathBuf::from);
    let done = begin(real.as_deref()).and_then(|()| work());
    if let Err(error) = &done {
        eprintln!("cpu-guest: {error:#}");
    }
    if real.is_none() {
        nix::unistd::sync();
        // QEMU is told to take a reboot for the end.
        let Err(errno) = reboot(RebootMode::RB_AUTOBOOT);
        eprintln!("cpu-guest: cannot switch off: {errno}");
    }
    if done.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn begin(root: Option<&Path>) -> Result<()> {
    let none = None::<&str>;
    if let Some(root) = root {
        mount(Some(root), root, none, MsFlags::MS_BIND, none).context("bind the root")?;
        std::env::set_current_dir(root)?;
        pivot_root(".", ".").context("enter the root")?;
        umount2(".", MntFlags::MNT_DETACH).context("leave the machine's root")?;
    }
    std::env::set_current_dir("/")?;
    // A root of the kernel's making is like /tmp, and CRIU compares the modes of open directories.
    fs::set_permissions("/", fs::Permissions::from_mode(0o755))?;
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
    ] {
        fs::create_dir_all(at)?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), none)
            .with_context(|| format!("mount {at}"))?;
    }
    if root.is_none() {
        load_modules()?;
        loopback_up().context("switch the loopback device on")?;
    }
    Ok(())
}

/// CRIU finds out what TCP can by talking to itself, and fails where it cannot.
fn loopback_up() -> Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST: u16 = 1;
    const LOOPBACK: i32 = 1;
    const IFF_UP: u32 = 1;
    // struct nlmsghdr, then struct ifinfomsg.
    let mut message = 32_u32.to_ne_bytes().to_vec();
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8 + 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
    Ok(())
}

fn load_modules() -> Result<()> {
    let mut modules: Vec<PathBuf> = fs::read_dir(Path::new("/").join(MODULES))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    modules.sort();
    for module in modules {
        let mut flags = ModuleInitFlags::empty();
        if module
            .extension()
            .is_some_and(|extension| extension == "xz")
        {
            // MODULE_INIT_COMPRESSED_FILE, which `nix` does not name.
            flags = ModuleInitFlags::from_bits_retain(4);
        }
        finit_module(&fs::File::open(&module)?, c"", flags)
            .with_context(|| format!("load {}", module.display()))?;
    }
    Ok(())
}

fn work() -> Result<()> {
    let plan: Plan = serde_json::from_slice(&fs::read(PLAN)?)?;
    let mut report = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&plan.report)?;
    if let Ok(mut line) = tcgetattr(&report) {
        // Images are bytes, and a terminal would change some.
        line.make_raw();
        tcsetattr(&report, OptionalActions::Now, &line)?;
    }
    let last = match follow(&plan.task, &mut report) {
        Ok(()) => Line::Done,
        Err(error) => Line::Failed(format!("{error:#}")),
    };
    last.write(&[], &mut report)?;
    // What a serial line has not sent yet would be lost with the machine.
    if rustix::termios::isatty(&report) {
        rustix::termios::tcdrain(&report)?;
    }
    Ok(())
}

fn follow(task: &Task, report: &mut dyn Write) -> Result<()> {
    match task {
        Task::Freeze(programs) => {
            for program in programs {
                let (outcome, image) = freeze(program).with_context(|| program.clone())?;
                eprintln!("{program}: {outcome:?}");
                let line = Line::Frozen {
                    program: program.clone(),
                    outcome,
                    bytes: image.len() as u64,
                };
                line.write(&image, report)?;
            }
        }
        Task::Thaw(origins) => {
            fs::write(GO, "")?;
            for origin in origins {
                let outcome = thaw(origin).with_context(|| format!("{origin:?}"))?;
                eprintln!("{} of {}: {outcome:?}", origin.program, origin.cpu);
                let origin = origin.clone();
                Line::Thawed { origin, outcome }.write(&[], report)?;
            }
        }
        Task::Run(command) => {
            let (program, arguments) = command.split_first().context("a command")?;
            let output = Command::new(program)
                .args(arguments)
                .env_clear()
                .uid(USER)
                .gid(USER)
                .output()
                .with_context(|| format!("run {program}"))?;
            ensure!(output.status.success(), "{program}: {output:?}");
            Line::Printed(String::from_utf8(output.stdout)?).write(&[], report)?;
        }
    }
    Ok(())
}

/// One life of a program: a directory, and what was printed beside it.
struct Life {
    dir: PathBuf,
    child: Child,
}

impl Life {
    fn begin(name: &str, program: &str, image: Option<(&str, &str)>) -> Result<Life> {
        let dir = Path::new("/tmp").join(name);
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        chown(&dir, Some(USER), Some(USER))?;
        let stream = |name: &str| fs::File::create(dir.with_extension(name));
        let mut command = Command::new(Path::new("/").join(OURS).join("criu-starter"));
        command
            .args(["run", "--"])
            .arg(Path::new("/").join(PROGRAMS).join(program))
            .current_dir(&dir)
            .env_clear()
            .uid(USER)
            .gid(USER)
            .stdin(Stdio::null())
            .stdout(stream("out")?)
            .stderr(stream("err")?);
        if let Some((image, slot_ad)) = image {
            let archive = dir.join("checkpoint.criu");
            fs::copy(image, &archive)?;
            chown(&archive, Some(USER), Some(USER))?;
            // The supervisor compares the image with the slot's ad, and this one lies: what happens where it would have
            // refused is what is to be seen.
            command.env("_CONDOR_MACHINE_AD", Path::new("/").join(slot_ad));
        }
        let child = command.spawn().context("start criu-starter")?;
        Ok(Life { dir, child })
    }

    fn printed(&self, stream: &str) -> String {
        let text = fs::read(self.dir.with_extension(stream)).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Until it has done a piece of work, or has ended.
    fn wait_for_work(&mut self) -> Result<()> {
        wait::until("work", LIMIT, || {
            let worked = self.printed("out").contains("tick ");
            Ok((worked || self.child.try_wait()?.is_some()).then_some(()))
        })
        .with_context(|| self.printed("err"))
    }

    fn end(&mut self) -> Result<ExitStatus> {
        wait::until("its end", LIMIT, || Ok(self.child.try_wait()?))
            .with_context(|| self.printed("err"))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Nothing to do about what cannot be removed; its name is not used again.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn freeze(program: &str) -> Result<(Outcome, Vec<u8>)> {
    let mut life = Life::begin(program, program, None)?;
    life.wait_for_work()?;
    let pid = Pid::from_raw(i32::try_from(life.child.id())?);
    if life.child.try_wait()?.is_none() {
        kill(pid, Signal::SIGTERM)?;
    }
    let status = life.end()?;
    match status.code() {
        Some(LACKS) => Ok((Outcome::Lacks, Vec::new())),
        Some(FROZEN) => Ok((Outcome::Frozen, fs::read(life.dir.join("checkpoint.criu"))?)),
        _ => bail!("it ended with {status}: {}", life.printed("err")),
    }
}

fn thaw(origin: &Origin) -> Result<Outcome> {
    let name = format!("{}-{}", origin.cpu, origin.program);
    let image = (&*origin.image(), &*origin.slot_ad());
    let mut life = Life::begin(&name, &origin.program, Some(image))?;
    let status = life.end()?;
    Ok(match (status.code(), status.signal()) {
        (Some(RIGHT), _) => Outcome::Ran,
        (Some(WRONG), _) => Outcome::Wrong,
        (_, Some(signal)) => {
            let name = Signal::try_from(signal).map_or_else(
                |_| format!("signal {signal}"),
                |signal| signal.as_str().to_owned(),
            );
            Outcome::Died(name)
        }
        (Some(NOT_HERE), _) => {
            let reason = reason(&life.printed("err"));
            // The supervisor takes such a death for a restore that failed; what happened is the death.
            match reason.strip_prefix("the thawed job died of ") {
                Some(died) => Outcome::Died(died.split(' ').next().unwrap_or_default().to_owned()),
                None => Outcome::Refused(reason),
            }
        }
        _ => bail!("it ended with {status}: {}", life.printed("err")),
    })
}

/// The supervisor's sentence.
fn reason(log: &str) -> String {
    const BEFORE: &str = "the image cannot be restored on this slot: ";
    let said = log.lines().find_map(|line| line.split_once(BEFORE));
    said.map_or(log, |(_, reason)| reason).trim().to_owned()
}
