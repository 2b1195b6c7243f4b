//! Speaks the conformance line protocol: one JSON request per line in, one JSON reply per line out.
//!
//! `run_conformance.py --cases FILE -- target/release/examples/conformance`

mod protocol;

use std::io::{self, BufRead, Write};

fn main() -> io::Result<()> {
    let stdin = io::stdin();
    let mut stdout = io::stdout();
    for line in stdin.lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        // A thread with the default stack, to show that this is enough.
        let reply = std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(move || protocol::reply(&line))
            .and_then(|thread| {
                thread
                    .join()
                    .map_err(|_| io::Error::other("the evaluation panicked"))
            })?;
        writeln!(stdout, "{reply}")?;
        stdout.flush()?;
    }
    Ok(())
}
