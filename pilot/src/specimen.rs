//! The tiny job that the probe freezes: a thread, a pipe and an open file, which
//! must all be what they were when it is thawed.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How the probe calls it.
pub(crate) const SUBCOMMAND: &str = "specimen";

/// What it ends with when all is well.
pub(crate) const CODE: i32 = 7;

/// Long enough to be frozen in; the probe does not wait for it to pass twice.
const TICKS: u32 = 20;
const TICK: Duration = Duration::from_millis(10);

pub(crate) fn run() -> Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open("specimen.txt")
        .context("cannot write in the sandbox")?;
    let (mut read, mut write) = io::pipe()?;
    let ticker = thread::spawn(move || -> io::Result<()> {
        for tick in 0..TICKS {
            write.write_all(&[u8::try_from(tick).expect("TICKS fits a byte")])?;
            thread::sleep(TICK);
        }
        Ok(())
    });
    println!("ready");
    let mut seen = 0;
    let mut byte = [0];
    while read.read(&mut byte)? == 1 {
        if u32::from(byte[0]) != seen {
            bail!("a byte of the pipe is lost");
        }
        writeln!(file, "{seen}")?;
        seen += 1;
    }
    ticker.join().ok().context("the thread is lost")??;
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    if seen != TICKS || text.lines().count() != TICKS as usize {
        bail!("the file is not what was written");
    }
    Ok(())
}
