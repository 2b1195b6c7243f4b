//! `push`, `pull`, `ls`, `rm` and `verify URL`: a store by hand.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::progress::Person;
use crate::fetch::{fetch, verify};
use crate::plugin::PATIENCE;
use crate::remote::{Effort, Error, Moved, Options, Remote, Requests, Tokens, Url};
use crate::ship::{ship, ship_along};

/// Which store, as whom, and for how long.
#[derive(Debug, Args)]
pub(super) struct Way {
    /// criu://HOST[:PORT]/JOB[?digest=HEX]
    url: String,
    #[command(flatten)]
    terms: Terms,
}

/// As whom, and for how long.
#[derive(Debug, Args)]
pub(super) struct Terms {
    /// A file with the token [default: _CONDOR_CREDS, BEARER_TOKEN, BEARER_TOKEN_FILE, bt_uUID]
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Seconds for all of it
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    within: u64,
    /// Seconds in which nothing may work before it is given up, though there is time
    #[arg(long, value_name = "SECONDS", default_value_t = 20, env = PATIENCE)]
    patience: u64,
    /// Prints what came of it as JSON
    #[arg(long)]
    json: bool,
}

impl Way {
    fn remote(&self) -> Result<Remote, Error> {
        self.terms.remote(&self.url)
    }
}

impl Terms {
    fn remote(&self, url: &str) -> Result<Remote, Error> {
        let url: Url = url.parse()?;
        let tokens = match &self.token {
            Some(path) => Tokens::from_file(path),
            None => Tokens::from_environment(),
        };
        Remote::new(url, tokens)
    }

    fn options(&self) -> Options {
        let within = Duration::from_secs(self.within);
        Options {
            within,
            patience: Duration::from_secs(self.patience),
            ..Options::default()
        }
    }
}

pub(super) fn push(way: &Way, file: &Path, along: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let (remote, options, person) = (way.remote()?, way.terms.options(), Person::new());
    let moved = if along {
        ship_along(file, io::stdin().lock(), &remote, &options, &person)?
    } else {
        ship(file, &remote, &options, &person)?
    };
    report(&way.terms, &moved, out)
}

/// Whether there was an image.
pub(super) fn pull(way: &Way, file: &Path, out: &mut dyn Write) -> anyhow::Result<bool> {
    match fetch(&way.remote()?, file, &way.terms.options(), &Person::new())? {
        Some(moved) => report(&way.terms, &moved, out).map(|()| true),
        None => Ok(false),
    }
}

pub(super) fn verify_url(url: &str, terms: &Terms, out: &mut dyn Write) -> anyhow::Result<bool> {
    match verify(&terms.remote(url)?, &terms.options(), &Person::new())? {
        Some(moved) => report(terms, &moved, out).map(|()| true),
        None => Ok(false),
    }
}

pub(super) fn ls(way: &Way, out: &mut dyn Write) -> anyhow::Result<()> {
    let remote = way.remote()?;
    let options = way.terms.options();
    let effort = Effort::new(&options, &crate::monitor::Silent);
    let mut requests = Requests::new(&remote, &effort)?;
    let images = effort.persist(|| requests.images(remote.url().job.as_ref()))?;
    if way.terms.json {
        serde_json::to_writer_pretty(&mut *out, &images)?;
        return Ok(writeln!(out)?);
    }
    for image in &images {
        writeln!(
            out,
            "{}  {}  generation {}  {} bytes  committed {}",
            image.digest, image.job, image.generation, image.bytes, image.committed
        )?;
    }
    Ok(())
}

pub(super) fn rm(way: &Way) -> anyhow::Result<()> {
    let remote = way.remote()?;
    let job = remote.url().job()?;
    let options = way.terms.options();
    let effort = Effort::new(&options, &crate::monitor::Silent);
    let mut requests = Requests::new(&remote, &effort)?;
    effort.persist(|| requests.remove(job, remote.url().digest))?;
    Ok(())
}

fn report(terms: &Terms, moved: &Moved, out: &mut dyn Write) -> anyhow::Result<()> {
    if terms.json {
        serde_json::to_writer_pretty(&mut *out, moved)?;
        return Ok(writeln!(out)?);
    }
    let digest = moved
        .digest
        .map_or_else(String::new, |digest| digest.to_string());
    Ok(writeln!(
        out,
        "{digest}  {} of {} chunks, {} of {} bytes, {:.1} s",
        moved.sent_chunks, moved.chunks, moved.sent_bytes, moved.file_bytes, moved.seconds
    )?)
}
