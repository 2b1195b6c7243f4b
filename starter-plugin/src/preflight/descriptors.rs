//! What a process has open: anonymous kernel objects, sockets, devices, and files that stay behind.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use nix::sys::statfs::{FsType, statfs};

use super::{Process, Reason};

/// Kernel objects without a file that CRIU restores.
const KNOWN: [&str; 7] = [
    "[eventfd]",
    "[eventpoll]",
    "[signalfd]",
    "[timerfd]",
    "[pidfd]",
    "inotify",
    "[inotify]",
];

/// Lists of sockets that nobody restores without CAP_NET_RAW.
const RAW: [(&str, &str); 5] = [
    ("raw", "a raw socket"),
    ("raw6", "a raw socket"),
    ("icmp", "a ping socket"),
    ("icmp6", "a ping socket"),
    ("packet", "a packet socket"),
];

/// <linux/magic.h>; `nix` does not name it.
const MQUEUE: FsType = FsType(0x1980_0202);

/// A list of raw sockets, or of mounts, is a few lines.
const LIMIT: u64 = 1 << 20;

/// More descriptors than this are not looked at: the first thousands tell enough.
const MOST: usize = 10_000;

pub(super) fn find(process: &Process, own: &[PathBuf]) -> Vec<Reason> {
    let sockets = raw_sockets(&process.dir);
    let mounts = mounts(&process.dir);
    let user = user(&process.dir);
    let entries = fs::read_dir(process.dir.join("fd")).ok();
    let mut seen = BTreeSet::new();
    entries
        .into_iter()
        .flatten()
        .take(MOST)
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let link = fs::read_link(&path).ok()?.to_str()?.to_owned();
            let text = if let Some(kind) = link.strip_prefix("anon_inode:") {
                return seen
                    .insert(link.clone())
                    .then(|| anonymous(process, kind))
                    .flatten();
            } else if let Some(inode) = link.strip_prefix("socket:[") {
                let inode: u64 = inode.trim_end_matches(']').parse().ok()?;
                let (_, what) = sockets.iter().find(|(raw, _)| *raw == inode)?;
                format!("has {what}, which CRIU cannot restore without privileges")
            } else if link.starts_with('/') {
                let fdinfo = Path::new("fdinfo").join(path.file_name()?);
                let fdinfo = process.dir.join(fdinfo);
                foreign(&path, &link, user).or_else(|| file(&path, &link, &fdinfo, &mounts, own))?
            } else {
                return None;
            };
            let text = format!("process {} ({}) {text}", process.pid, process.name);
            seen.insert(text.clone())
                .then(|| Reason::doubt(process.pid, text))
        })
        .collect()
}

fn anonymous(process: &Process, kind: &str) -> Option<Reason> {
    let (pid, name) = (process.pid, &process.name);
    if KNOWN.contains(&kind) {
        return None;
    }
    Some(match kind {
        "[io_uring]" => Reason::stop(
            pid,
            format!(
                "process {pid} ({name}) uses io_uring, which CRIU cannot freeze; switch the program to ordinary or \
                 epoll I/O (node: UV_USE_IO_URING=0 with libuv before 1.50; newer ones always use it)"
            ),
        ),
        "[fanotify]" => Reason::doubt(
            pid,
            format!(
                "process {pid} ({name}) uses fanotify, which CRIU cannot restore without privileges; use inotify"
            ),
        ),
        _ => Reason::doubt(
            pid,
            format!(
                "process {pid} ({name}) has a descriptor of the kind {kind}, which CRIU does not know"
            ),
        ),
    })
}

/// A file without a name is in the image, and CRIU makes it again as its owner's: of a user that the job's namespace does
/// not have nobody can, and the image cannot be restored.
fn foreign(path: &Path, link: &str, user: Option<u32>) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    let nameless = meta.is_file() && meta.nlink() == 0;
    (nameless && user.is_some_and(|user| user != 0 && user != meta.uid())).then(|| {
        format!(
            "has opened {link}, which belongs to another user, and which CRIU cannot make again without \
             privileges; close it"
        )
    })
}

/// Whose process it is.
fn user(process: &Path) -> Option<u32> {
    let status = read(&process.join("status"))?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().nth(1)?.parse().ok()
}

/// What is wrong with an open file, as the end of a sentence.
fn file(
    path: &Path,
    link: &str,
    fdinfo: &Path,
    mounts: &BTreeSet<u64>,
    own: &[PathBuf],
) -> Option<String> {
    // Through the link in /proc: the file itself, whatever its name is worth by now.
    let meta = fs::metadata(path).ok()?;
    let kind = meta.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return (kind.is_block_device() || !is_ordinary(meta.rdev()))
            .then(|| format!("has opened the device {link}, which CRIU cannot restore"));
    }
    if !kind.is_file() && !kind.is_dir() {
        return None;
    }
    if link.rfind('/') == Some(0) && statfs(path).is_ok_and(|fs| fs.filesystem_type() == MQUEUE) {
        return Some(format!(
            "has opened the POSIX message queue {link}, which CRIU does not know; use a pipe or a unix socket"
        ));
    }
    let (flags, mount) = flags_and_mount(&read(fdinfo)?)?;
    // Memory that is shown as a file lies on a mount of the kernel's own.
    let memory = ["/memfd:", "/SYSV", "/dev/zero", "/anon_hugepage"];
    if memory.iter().any(|name| link.starts_with(name)) {
        return None;
    }
    if !mounts.is_empty() && !mounts.contains(&mount) {
        return Some(format!(
            "has inherited a descriptor of {link}, which lies on no mount of its own"
        ));
    }
    // O_WRONLY or O_RDWR.
    let writes = flags & 0o3 != 0 && kind.is_file();
    let outside = !own.iter().any(|dir| Path::new(link).starts_with(dir));
    (writes && outside && !link.starts_with("/proc/") && !link.starts_with("/sys/")).then(|| {
        format!(
            "has opened {link} for writing, which lies outside of the job's directory and does not travel; write \
             into the working directory or /tmp"
        )
    })
}

/// null, zero, full, random, urandom; the job's terminal, and the private ones.
fn is_ordinary(device: u64) -> bool {
    matches!(
        (major(device), minor(device)),
        (1, 3 | 5 | 7 | 8 | 9) | (5, 0 | 2) | (136..=143, _)
    )
}

/// Inodes of sockets that need privileges, with their kinds.
fn raw_sockets(process: &Path) -> Vec<(u64, &'static str)> {
    let mut found = Vec::new();
    for (list, what) in RAW {
        let text = read(&process.join("net").join(list)).unwrap_or_default();
        // packet: sk RefCnt Type Proto Iface R Rmem User Inode; the others have it tenth, as all of inet's have.
        let column = if list == "packet" { 8 } else { 9 };
        found.extend(text.lines().skip(1).filter_map(|line| {
            let inode = line.split_whitespace().nth(column)?.parse().ok()?;
            Some((inode, what))
        }));
    }
    found
}

/// The numbers of the mounts that a process sees.
fn mounts(process: &Path) -> BTreeSet<u64> {
    let text = read(&process.join("mountinfo")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect()
}

fn flags_and_mount(fdinfo: &str) -> Option<(u32, u64)> {
    let field = |name: &str| fdinfo.lines().find_map(|line| line.strip_prefix(name));
    let flags = u32::from_str_radix(field("flags:")?.trim(), 8).ok()?;
    let mount = field("mnt_id:")?.trim().parse().ok()?;
    Some((flags, mount))
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(LIMIT)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::fd::AsRawFd;

    use nix::unistd::Pid;

    use super::*;

    fn of_this_process(own: &[PathBuf]) -> Vec<String> {
        let process = Process::of(Path::new("/proc"), Pid::this().as_raw());
        let reasons = find(&process, own);
        reasons.into_iter().map(|reason| reason.text).collect()
    }

    #[test]
    fn a_file_outside_is_named_only_when_it_is_written() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = [inside.path().to_owned()];
        let made = |dir: &Path, name: &str| {
            let path = dir.join(name);
            fs::write(&path, "x").unwrap();
            path
        };
        let path = made(outside.path(), "written");
        let _written = OpenOptions::new().write(true).open(&path).unwrap();
        let _read = File::open(made(outside.path(), "looked-at")).unwrap();
        let _own = OpenOptions::new()
            .write(true)
            .open(made(inside.path(), "result"))
            .unwrap();
        let reasons = of_this_process(&own);
        let about = |name: &str| reasons.iter().any(|text| text.contains(name));
        assert!(about(path.to_str().unwrap()), "{reasons:?}");
        assert!(!about("looked-at") && !about("result"), "{reasons:?}");
    }

    #[test]
    fn a_deleted_file_of_another_user_is_named() {
        let deleted = tempfile::tempfile().unwrap();
        let path = Path::new("/proc/self/fd").join(deleted.as_raw_fd().to_string());
        let owner = deleted.metadata().unwrap().uid();
        let said = |user| foreign(&path, "/srv/x (deleted)", user).is_some();
        assert!(said(Some(owner + 1)));
        assert!(!said(Some(owner)) && !said(None));
        // Root can.
        assert!(!said(Some(0)));
        let named = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(foreign(named.path(), "x", Some(owner + 1)), None);
        let ours = user(Path::new("/proc/self")).unwrap();
        assert_eq!(ours, nix::unistd::geteuid().as_raw());
    }

    #[test]
    fn ordinary_devices_are_known() {
        let device = |major, minor| is_ordinary(nix::sys::stat::makedev(major, minor));
        assert!(device(1, 3) && device(1, 9) && device(136, 0) && device(5, 2));
        assert!(!device(10, 229) && !device(195, 0) && !device(1, 1));
    }

    #[test]
    fn kinds_that_criu_does_not_know_are_named() {
        let process = Process {
            pid: 3,
            dir: "/proc/3".into(),
            name: "sim".into(),
        };
        assert_eq!(anonymous(&process, "[eventpoll]"), None);
        let ring = anonymous(&process, "[io_uring]").unwrap();
        assert!(ring.stops && ring.text.contains("uses io_uring"));
        let other = anonymous(&process, "bpf-map").unwrap();
        assert!(!other.stops && other.text.contains("bpf-map"));
    }

    #[test]
    fn flags_are_octal() {
        let text = "pos:\t0\nflags:\t0102001\nmnt_id:\t29\nino:\t7\n";
        assert_eq!(flags_and_mount(text), Some((0o102_001, 29)));
    }

    #[test]
    fn raw_sockets_are_found_by_their_inode() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("net")).unwrap();
        let raw = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n\
                   1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n";
        fs::write(dir.path().join("net/raw"), raw).unwrap();
        let packet = "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n\
                      0000 3      3    0003   0     1 0      0      815\n";
        fs::write(dir.path().join("net/packet"), packet).unwrap();
        let found = raw_sockets(dir.path());
        assert_eq!(found, [(4711, "a raw socket"), (815, "a packet socket")]);
    }
}
