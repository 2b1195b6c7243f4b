//! Names for mapped files that have none left.
//!
//! Python's multiprocessing makes a semaphore, maps it and removes its name at once; MPI libraries do so with their
//! shared memory. The kernel shows such a file in `map_files` alone, to root alone, so CRIU cannot dump it without
//! privileges. But its bytes are in the memory of the processes that have it mapped. So before a freeze, while all of
//! them stand still for some milliseconds, a new file with a name gets these bytes, and each process maps it in the old
//! one's place, by system calls that a tracer makes in it: there is no moment in which two of them see different bytes.
//!
//! ```text
//! find    shared mappings of deleted files that travel with the job and that nobody has open
//! hold    every thread of every process, by ptrace
//! fill    /dev/shm/.kept-INODE
//! remap   open it in every process; when all have it, mmap over the old range
//! go on   what a thread waited for, it waits for again: the kernel restarts the call, on the new file
//! ```
//!
//! A file that somebody also has open stays as it is, and CRIU refuses it: descriptor and mapping would part.

mod hold;
mod inject;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use thiserror::Error;

use hold::Held;
use inject::Puppet;

/// Where the new files lie: it travels with the job, and is in memory where the old ones were.
const PLACE: &str = "/dev/shm";

/// Directories whose files travel with the job.
const OURS: [&str; 3] = ["/dev/shm/", "/srv/", "/tmp/"];

const DELETED: &str = " (deleted)";

/// Semaphores and rings; a larger one is memory that is better left to a refusal than copied twice.
const LIMIT: u64 = 4 << 30;

/// Why files could not be given names. The job is as it was, but for the last.
#[derive(Debug, Error)]
pub(crate) enum NamelessError {
    /// A thread did not come to a stop.
    #[error("thread {0} does not stand still")]
    Restless(Pid),
    /// ptrace failed.
    #[error("cannot hold thread {thread} ({source})")]
    Trace {
        thread: Pid,
        #[source]
        source: nix::Error,
    },
    /// A file of ours, or of a process in /proc.
    #[error("cannot copy what the job has mapped ({0})")]
    Copy(#[from] io::Error),
    /// A system call in a process failed.
    #[error("process {process} cannot {what} ({source})")]
    Call {
        process: Pid,
        what: &'static str,
        #[source]
        source: nix::Error,
    },
    /// Nothing to make a system call with.
    #[error("process {0} has no vDSO, or is a 32 bit one")]
    Foreign(Pid),
    /// Some processes have the new file and some the old one.
    #[error("the job's shared memory has come apart: {0}")]
    Apart(Box<NamelessError>),
}

/// A range of a process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    process: Pid,
    start: u64,
    end: u64,
    offset: u64,
    writable: bool,
    executable: bool,
}

/// Gives names to all mapped files in `proc` that need one; how many there were.
pub(crate) fn adopt(proc: &Path) -> Result<usize, NamelessError> {
    if find(proc)?.is_empty() {
        return Ok(0);
    }
    let held = Held::all(proc)?;
    // Again, now that nothing moves.
    let files = find(proc)?;
    for ((_, inode), ranges) in &files {
        let path = Path::new(PLACE).join(format!(".kept-{inode}"));
        let done = fill(proc, &path, ranges).and_then(|()| remap(proc, &held, &path, ranges));
        if let Err(error) = done {
            if !matches!(error, NamelessError::Apart(_)) {
                let _ = fs::remove_file(&path);
            }
            return Err(error);
        }
    }
    Ok(files.len())
}

/// Whether a mapped file would be given a name.
pub(crate) fn adopts(proc: &Path, inode: u64) -> bool {
    find(proc).is_ok_and(|files| files.keys().any(|(_, adopted)| *adopted == inode))
}

/// Shared mappings of deleted files, by device and inode.
fn find(proc: &Path) -> io::Result<BTreeMap<(String, u64), Vec<Range>>> {
    let mut found: BTreeMap<(String, u64), Vec<Range>> = BTreeMap::new();
    let mut open = Vec::new();
    for pid in processes(proc) {
        let dir = proc.join(pid.to_string());
        // A process that is gone by now has nothing mapped.
        let Ok(maps) = File::open(dir.join("maps")) else {
            continue;
        };
        for line in BufReader::new(maps).lines().map_while(Result::ok) {
            if let Some((file, range)) = deleted(&line, pid) {
                found.entry(file).or_default().push(range);
            }
        }
        for fd in fs::read_dir(dir.join("fd")).into_iter().flatten().flatten() {
            open.extend(fs::metadata(fd.path()).map(|meta| meta.ino()));
        }
    }
    // By inode alone: the device that maps shows is not always the one that stat does. One too many is only a refusal.
    found.retain(|(_, inode), _| !open.contains(inode));
    Ok(found)
}

/// A line of `maps`, if it is such a mapping. A private one has a copy of its own in the image, but for its clean pages.
fn deleted(line: &str, process: Pid) -> Option<((String, u64), Range)> {
    // address perms offset dev inode path
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let perms = fields.next()?.as_bytes();
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let offset = hex(fields.next()?)?;
    let device = fields.next()?.to_owned();
    let inode = fields.next()?.parse().ok()?;
    let path = fields.next()?.trim_start();
    let ours = path.ends_with(DELETED) && OURS.iter().any(|dir| path.starts_with(dir));
    // A link of that very name is what `mapped` makes for a file that has another name.
    (ours && perms.get(3) == Some(&b's') && !named(Path::new(path), inode)).then(|| {
        let range = Range {
            process,
            start: hex(start)?,
            end: hex(end)?,
            offset,
            writable: perms.get(1) == Some(&b'w'),
            executable: perms.get(2) == Some(&b'x'),
        };
        Some(((device, inode), range))
    })?
}

/// Whether the file has another name beside the one that is gone.
fn named(path: &Path, inode: u64) -> bool {
    let entries = path.parent().map(fs::read_dir);
    entries
        .into_iter()
        .flatten()
        .flatten()
        .flatten()
        .any(|entry| {
            entry
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.ino() == inode)
        })
}

/// Makes the new file, with what the processes see.
fn fill(proc: &Path, path: &Path, ranges: &[Range]) -> Result<(), NamelessError> {
    let size = ranges
        .iter()
        .map(|range| range.offset + (range.end - range.start))
        .max();
    let size = size.unwrap_or(0);
    if size > LIMIT {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_len(size)?;
    let mut block = vec![0; 1 << 20];
    for range in ranges {
        let memory = File::open(proc.join(format!("{}/mem", range.process)))?;
        let mut at = range.start;
        while at < range.end {
            let length = block.len().min((range.end - at) as usize);
            memory.read_exact_at(&mut block[..length], at)?;
            // What is empty stays a hole.
            if block[..length].iter().any(|byte| *byte != 0) {
                file.write_all_at(&block[..length], range.offset + (at - range.start))?;
            }
            at += length as u64;
        }
    }
    Ok(())
}

/// Puts the file in the place of the old one in every process, or in none.
fn remap(proc: &Path, held: &Held, path: &Path, ranges: &[Range]) -> Result<(), NamelessError> {
    let mut puppets: BTreeMap<Pid, (Puppet, u64)> = BTreeMap::new();
    let done = open_all(proc, held, path, ranges, &mut puppets)
        .and_then(|()| map_all(ranges, &mut puppets));
    // Whatever came of it: the descriptors are none of the job's.
    let closed = puppets
        .into_values()
        .map(|(mut puppet, fd)| puppet.close(fd));
    done.and(closed.collect())
}

fn open_all(
    proc: &Path,
    held: &Held,
    path: &Path,
    ranges: &[Range],
    puppets: &mut BTreeMap<Pid, (Puppet, u64)>,
) -> Result<(), NamelessError> {
    for range in ranges {
        if let Entry::Vacant(place) = puppets.entry(range.process) {
            let thread = held.thread_of(range.process);
            let thread = thread.ok_or(NamelessError::Foreign(range.process))?;
            let mut puppet = Puppet::new(proc, range.process, thread)?;
            let fd = puppet.open(path)?;
            place.insert((puppet, fd));
        }
    }
    Ok(())
}

fn map_all(
    ranges: &[Range],
    puppets: &mut BTreeMap<Pid, (Puppet, u64)>,
) -> Result<(), NamelessError> {
    let mut changed = false;
    for range in ranges {
        let puppet = puppets.get_mut(&range.process);
        let (puppet, fd) = puppet.expect("each has one by now");
        match puppet.map(range, *fd) {
            Ok(()) => changed = true,
            Err(error) if changed => return Err(NamelessError::Apart(Box::new(error))),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// All but pid 1.
fn processes(proc: &Path) -> impl Iterator<Item = Pid> + use<> {
    numbers(proc).filter(|pid| pid.as_raw() != 1)
}

fn numbers(dir: &Path) -> impl Iterator<Item = Pid> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)))
}

/// A file of a process.
fn of(proc: &Path, process: Pid, name: &str) -> PathBuf {
    proc.join(format!("{process}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mappings_of_deleted_files_that_travel_are_found() {
        let pid = Pid::from_raw(7);
        let line = "7f0000001000-7f0000003000 rw-s 00001000 00:1a 77      /dev/shm/none-such/sem.AbC (deleted)";
        let ((device, inode), range) = deleted(line, pid).unwrap();
        assert_eq!((device.as_str(), inode), ("00:1a", 77));
        assert_eq!((range.end - range.start, range.offset), (0x2000, 0x1000));
        assert!(range.writable && !range.executable);
        for other in [
            line.replace("rw-s", "rw-p"),
            line.replace(" (deleted)", ""),
            line.replace("/dev/shm/", "/usr/lib/"),
            line.replace("/dev/shm/", "/memfd:"),
            "7f00-7f01 rw-p 00000000 00:00 0 ".to_owned(),
        ] {
            assert_eq!(deleted(&other, pid), None, "{other}");
        }
    }
}
