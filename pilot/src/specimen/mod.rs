//! The tiny job that the probe freezes.
//!
//! A thread that sleeps, a pipe and an open file are always in it: a node that
//! cannot keep these can keep no job. What a job may have besides is in `parts`,
//! each for itself.
//!
//! It works until it finds itself thawed, however long a loaded node takes for
//! the freeze, and then says of each part whether it is what it was.

pub(crate) mod parts;

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How the probe calls it.
pub(crate) const SUBCOMMAND: &str = "specimen";

/// The last argument of the run that thaws it. The thawed job was started by
/// other arguments; but its pid 1 is a process of that run, and shows these.
pub(crate) const THAWED: &str = "thawed";

/// What it prints when it can be frozen.
pub(crate) const READY: &str = "ready";

/// What it prints before the name of a part that is what it was.
pub(crate) const KEPT: &str = "kept ";

/// What it ends with when all that is always there is well.
pub(crate) const CODE: i32 = 7;

/// A job that nobody thaws ends by itself.
const LIFE: Duration = Duration::from_secs(60);

const TICK: Duration = Duration::from_millis(2);

/// Bytes of the pipe count up to here, and again.
const MODULUS: u32 = 251;

pub(crate) fn run(arguments: &[String]) -> Result<i32> {
    if let [only] = arguments
        && only == parts::CHILD
    {
        return parts::child();
    }
    let [wanted, outer_time] = arguments else {
        bail!("the specimen is a part of `criu-pilot probe`");
    };
    let parts = parts::begin(wanted.split(','), outer_time);

    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open("specimen.txt")
        .context("cannot write in the sandbox")?;
    let (mut read, write) = io::pipe()?;
    let enough = Arc::new(AtomicBool::new(false));
    let ticker = thread::spawn({
        let enough = Arc::clone(&enough);
        move || tick(write, &enough)
    });
    println!("{READY}");

    let begun = Instant::now();
    let mut seen = 0_u32;
    let mut byte = [0];
    while read.read(&mut byte)? == 1 {
        if u32::from(byte[0]) != seen % MODULUS {
            bail!("a byte of the pipe is lost");
        }
        writeln!(file, "{seen}")?;
        seen += 1;
        if is_thawed() {
            enough.store(true, Ordering::Relaxed);
        } else if begun.elapsed() > LIFE {
            bail!("nobody froze the specimen");
        }
    }
    let sent = ticker.join().ok().context("the thread is lost")??;
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let expected: String = (0..sent).map(|number| format!("{number}\n")).collect();
    if text != expected {
        bail!("the file is not what was written");
    }
    for (name, check) in parts {
        match check() {
            Ok(()) => println!("{KEPT}{name}"),
            Err(error) => println!("lost {name}: {error:#}"),
        }
    }
    Ok(CODE)
}

/// Whether pid 1 belongs to the run that thawed us.
fn is_thawed() -> bool {
    fs::read("/proc/1/cmdline").is_ok_and(|line| {
        line.split(|byte| *byte == 0)
            .any(|word| word == THAWED.as_bytes())
    })
}

/// The thread: bytes into the pipe; how many there were.
fn tick(mut pipe: io::PipeWriter, enough: &AtomicBool) -> Result<u32> {
    let mut sent = 0;
    while !enough.load(Ordering::Relaxed) {
        thread::sleep(TICK);
        let byte = u8::try_from(sent % MODULUS).expect("MODULUS fits a byte");
        pipe.write_all(&[byte])?;
        sent += 1;
    }
    Ok(sent)
}
