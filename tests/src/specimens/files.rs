//! Open files, their positions, their locks, and names that are gone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{HOME, Program, again, freeze};

pub(super) const PROGRAMS: &[(&str, Program)] = &[
    ("counter", counter),
    ("positions", positions),
    ("ghost", ghost),
    ("big-ghost", big_ghost),
    ("linked-ghost", linked_ghost),
    ("tmpfile", tmpfile),
    ("flock", flock),
    ("locks", locks),
    ("try-locks", try_locks),
    ("fifo", fifo),
    ("removed-cwd", removed_cwd),
    ("devices", devices),
    ("stdin", stdin),
    ("private-tmp", private_tmp),
];

fn read_write(name: &str) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(name)
        .with_context(|| format!("open {name}"))
}

/// Goes on appending to a file that it holds open.
fn counter() -> Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open("numbers")?;
    let mut sum = 0_u64;
    for number in 1..=50 {
        sum = sum * 31 % 1_000_003 + number;
        writeln!(file, "{number} {sum}")?;
        if number == 25 {
            freeze()?;
        }
    }
    let lines = fs::read_to_string("numbers")?;
    ensure!(lines.lines().count() == 50, "numbers:\n{lines}");
    ensure!(lines.ends_with(&format!("50 {sum}\n")));
    Ok(())
}

/// Two descriptors share a position, a third has its own; a hole stays one.
fn positions() -> Result<()> {
    let mut first = read_write("positions")?;
    first.write_all(b"0123456789")?;
    first.set_len(1 << 30)?;
    first.seek(SeekFrom::Start(3))?;
    let mut shared = first.try_clone()?;
    let mut own = File::open("positions")?;
    own.seek(SeekFrom::Start(7))?;
    freeze()?;
    let mut byte = [0; 1];
    for (file, expected) in [(&mut first, b'3'), (&mut shared, b'4'), (&mut own, b'7')] {
        file.read_exact(&mut byte)?;
        ensure!(byte[0] == expected, "read {} for {expected}", byte[0]);
    }
    ensure!(first.metadata()?.blocks() < 1000, "the hole was filled");
    Ok(())
}

/// Its name is gone when it is frozen, its bytes are not.
fn ghost() -> Result<()> {
    nameless(64 << 10, |name| Ok(fs::remove_file(name)?))
}

/// Far larger than CRIU takes into an image unless told to, and all of it data.
fn big_ghost() -> Result<()> {
    nameless(600 << 20, |name| Ok(fs::remove_file(name)?))
}

/// One of its two names is gone, and that is the one by which it was opened.
fn linked_ghost() -> Result<()> {
    nameless(4 << 10, |name| {
        fs::hard_link(name, "other-name")?;
        Ok(fs::remove_file(name)?)
    })?;
    ensure!(fs::metadata("other-name")?.len() == (4 << 10) + 1);
    let left: Vec<_> = fs::read_dir(".")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("link_remap"))
        .collect();
    ensure!(left.is_empty(), "CRIU's names stay: {left:?}");
    Ok(())
}

fn nameless(size: usize, unname: fn(&str) -> Result<()>) -> Result<()> {
    const PART: usize = 4 << 10;
    let part = |index: usize| -> Vec<u8> {
        let first = index.to_le_bytes();
        let rest = (first.len()..PART).map(|at| (at * 7 + index) as u8);
        first.into_iter().chain(rest).collect()
    };
    let mut file = read_write("ghost")?;
    for index in 0..size / PART {
        file.write_all(&part(index))?;
    }
    unname("ghost")?;
    freeze()?;
    file.write_all(b"!")?;
    file.rewind()?;
    let mut back = vec![0; PART];
    for index in 0..size / PART {
        file.read_exact(&mut back)?;
        ensure!(back == part(index), "other bytes in part {index}");
    }
    back.clear();
    file.read_to_end(&mut back)?;
    ensure!(back == b"!", "it ends with {back:?}");
    Ok(())
}

/// A file that never had a name.
fn tmpfile() -> Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(".")?;
    file.write_all(b"no name")?;
    freeze()?;
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    ensure!(text == "no name", "{text:?}");
    Ok(())
}

fn flock() -> Result<()> {
    let held = Flock::lock(read_write("lock")?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| errno)?;
    freeze()?;
    let other = Flock::lock(File::open("lock")?, FlockArg::LockSharedNonblock);
    ensure!(
        matches!(other, Err((_, Errno::EWOULDBLOCK))),
        "the lock is lost"
    );
    drop(held);
    Ok(())
}

fn range(start: i64, length: i64) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// A lock of this process and one of an open file.
fn locks() -> Result<()> {
    let file = read_write("lock")?;
    let open = read_write("open-lock")?;
    fcntl(&file, FcntlArg::F_SETLK(&range(10, 20)))?;
    fcntl(&open, FcntlArg::F_OFD_SETLK(&range(0, 5)))?;
    freeze()?;
    let status = again("try-locks")?.status()?;
    ensure!(status.success(), "the locks are lost");
    Ok(())
}

/// What another process sees of `locks`.
fn try_locks() -> Result<()> {
    for (name, start) in [("lock", 15), ("open-lock", 3)] {
        let file = OpenOptions::new().write(true).open(name)?;
        let tried = fcntl(&file, FcntlArg::F_SETLK(&range(start, 1)));
        ensure!(
            matches!(tried, Err(Errno::EAGAIN | Errno::EACCES)),
            "{name} is free"
        );
    }
    std::process::exit(0);
}

/// A named pipe with bytes in it.
fn fifo() -> Result<()> {
    mkfifo("pipe", Mode::S_IRUSR | Mode::S_IWUSR)?;
    let mut end = OpenOptions::new().read(true).write(true).open("pipe")?;
    end.write_all(b"in the pipe")?;
    freeze()?;
    let mut bytes = [0; 11];
    end.read_exact(&mut bytes)?;
    ensure!(&bytes == b"in the pipe");
    let mut writer = OpenOptions::new().write(true).open("pipe")?;
    writer.write_all(b"x")?;
    end.read_exact(&mut bytes[..1])?;
    ensure!(bytes[0] == b'x', "another pipe");
    Ok(())
}

fn removed_cwd() -> Result<()> {
    DirBuilder::new().create("gone")?;
    std::env::set_current_dir("gone")?;
    fs::remove_dir(format!("{HOME}/gone"))?;
    freeze()?;
    ensure!(std::env::current_dir().is_err(), "the directory is back");
    ensure!(
        File::create("x").is_err(),
        "a file in a removed directory can be made"
    );
    std::env::set_current_dir("..")
        .or_else(|_| std::env::set_current_dir(HOME))
        .context("cannot leave it")
}

/// Descriptors of devices, of /proc and of a directory.
fn devices() -> Result<()> {
    let mut null = OpenOptions::new().write(true).open("/dev/null")?;
    let mut zero = File::open("/dev/zero")?;
    let mut random = File::open("/dev/urandom")?;
    let mut status = File::open("/proc/self/status")?;
    let dir = File::open(".")?;
    freeze()?;
    null.write_all(b"x")?;
    let mut bytes = [1; 16];
    zero.read_exact(&mut bytes)?;
    ensure!(bytes == [0; 16]);
    random.read_exact(&mut bytes)?;
    ensure!(bytes != [0; 16]);
    let mut text = String::new();
    status.read_to_string(&mut text)?;
    ensure!(
        text.contains(&format!("\nPid:\t{}\n", std::process::id())),
        "{text}"
    );
    ensure!(dir.metadata()?.ino() == fs::metadata(HOME)?.ino());
    Ok(())
}

/// Reads on where it stopped.
fn stdin() -> Result<()> {
    let mut input = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut word = [0; 5];
    input.read_exact(&mut word)?;
    ensure!(&word == b"first");
    freeze()?;
    let mut rest = String::new();
    input.read_to_string(&mut rest)?;
    ensure!(rest == " and the rest\n", "{rest:?}");
    Ok(())
}

/// A file of the job's own /tmp and one of its /dev/shm.
fn private_tmp() -> Result<()> {
    let mut files = Vec::new();
    for name in ["/tmp/scratch", "/dev/shm/scratch"] {
        let mut file = read_write(name)?;
        file.write_all(name.as_bytes())?;
        files.push((name, file));
    }
    freeze()?;
    for (name, mut file) in files {
        file.write_all(b"+")?;
        ensure!(
            fs::read_to_string(name)? == format!("{name}+"),
            "{name} has changed"
        );
    }
    Ok(())
}
