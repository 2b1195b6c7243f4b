//! Images of a job that runs on: each is whole, and each can be gone on from.

use std::fs;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::binaries;
use tests::host::Host;
use tests::pool::Pool;
use tests::require;
use tests::roots::HtCondor;
use tests::spec::Spec;
use tests::users::User;
use tests::wait;

/// Far above what any step takes on two busy cores.
const LIMIT: Duration = Duration::from_secs(60);

/// Images to go on from, each in a directory of its own.
const IMAGES: usize = 3;

const STARTER: &str = "/usr/local/bin/criu-starter";

/// A parent that adds, a child that it talks to through pipes, a file that must agree with both.
const JOB: &str = r#"#!/bin/bash
coproc while read -r n; do echo $((n * n % 1000003)); done
sum=0
for ((i = 1; ; i++)); do
    echo $i >&${COPROC[1]}
    read -r square <&${COPROC[0]}
    sum=$(((sum * 31 + square) % 1000003))
    echo "$i $sum" >>numbers
    echo "$i $sum"
    [ -e go ] && break
    sleep 0.02
done
cmp numbers <(expected=0; for ((k = 1; k <= i; k++)); do
    expected=$(((expected * 31 + k * k % 1000003) % 1000003)); echo "$k $expected"; done) || exit 1
exit 7
"#;

#[test]
fn each_image_of_a_job_that_runs_on_can_be_gone_on_from_criu_4_1_1() {
    on(HtCondor::V23_9);
}

#[test]
fn each_image_of_a_job_that_runs_on_can_be_gone_on_from_criu_4_2_1() {
    on(HtCondor::V25);
}

fn on(version: HtCondor) {
    require!(root, namespaces, roots);
    let tried = || -> Result<()> {
        let pool = Pool::up(&Spec::bare(version))?;
        let host = pool.ap();
        host.write(
            STARTER,
            fs::read(binaries::dir()?.join("criu-starter"))?,
            User::Root,
            0o755,
        )?;
        images_while_it_runs(host)
    };
    tried().unwrap_or_else(|error| panic!("{error:#}"));
}

/// One life of the job.
struct Life<'a> {
    host: &'a Host,
    name: String,
    child: Child,
}

impl<'a> Life<'a> {
    fn make(host: &Host, name: &str) -> Result<String> {
        let dir = format!("/home/pilot/{name}");
        host.make_dir(&dir, User::Pilot, 0o755)?;
        Ok(dir)
    }

    fn begin(host: &'a Host, name: &str, options: &[&str]) -> Result<Life<'a>> {
        let dir = format!("/home/pilot/{name}");
        let stream = |what: &str| fs::File::create(host.path(format!("{dir}.{what}")));
        let child = host
            .command(User::Pilot, &dir)?
            .args([STARTER, "run"])
            .args(options)
            .args(["--", "./job"])
            .stdout(stream("out")?)
            .stderr(stream("err")?)
            .spawn()
            .context("run nsenter")?;
        Ok(Life {
            host,
            name: name.to_owned(),
            child,
        })
    }

    fn read(&self, what: &str) -> String {
        let path = self.host.path(format!("/home/pilot/{}.{what}", self.name));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    /// The lines that are whole.
    fn lines(&self) -> Vec<String> {
        let text = self.read("out");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.host.path(format!("/home/pilot/{}/{name}", self.name))
    }

    fn wait_for<T>(&mut self, what: &str, seen: impl Fn(&Self) -> Option<T>) -> Result<T> {
        wait::until(what, LIMIT, || {
            if let Some(value) = seen(self) {
                return Ok(Some(value));
            }
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "it ended with {ended:?}");
            Ok(None)
        })
        .with_context(|| format!("{}: {}", self.name, self.read("err")))
    }

    /// Lets the job end, and looks at what it leaves.
    fn end(&mut self) -> Result<()> {
        fs::write(self.path(".criu/srv/go"), "")?;
        let status: ExitStatus =
            wait::until("the job's end", LIMIT, || Ok(self.child.try_wait()?))
                .with_context(|| format!("{}: {}", self.name, self.read("err")))?;
        let story = self.read("err");
        ensure!(
            status.code() == Some(7),
            "{}: {status}: {story}\n{}",
            self.name,
            self.read("out")
        );
        ensure!(self.path("numbers").exists() && !self.path("checkpoint.criu").exists());
        Ok(())
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn images_while_it_runs(host: &Host) -> Result<()> {
    let dir = Life::make(host, "first")?;
    host.write(format!("{dir}/job"), JOB, User::Pilot, 0o755)?;
    let mut first = Life::begin(host, "first", &["--every", "0.4"])?;
    // How many lines were out before and after each image.
    let mut taken: Vec<(usize, usize)> = Vec::new();
    let mut inode = 0;
    for number in 0..IMAGES {
        let before = first.lines().len();
        inode = first.wait_for("an image", |life| {
            let inode_now = inode_of(&life.path("checkpoint.criu"))?;
            (inode_now != inode).then_some(inode_now)
        })?;
        let copy = Life::make(host, &format!("image{number}"))?;
        let copy = format!("{copy}/checkpoint.criu");
        // Whichever of them it is by now, a name in the directory is a whole image.
        let image = fs::read(first.path("checkpoint.criu"))?;
        taken.push((before, first.lines().len()));
        host.write(copy, image, User::Pilot, 0o644)?;
    }
    let so_far = first.lines().len();
    first.wait_for("the job to run on", |life| {
        (life.lines().len() > so_far + 5).then_some(())
    })?;
    first.end()?;
    let all = first.lines();
    each_once(&all, 1)?;
    ensure!(first.read("err").contains("frozen_seconds="));

    for (number, (before, after)) in taken.into_iter().enumerate() {
        let mut life = Life::begin(host, &format!("image{number}"), &[])?;
        let lines = life.wait_for("output", |life| Some(life.lines()).filter(|l| l.len() > 5))?;
        let next = first_word(&lines[0])?;
        // What was out before the image is not printed again, and nothing is left out.
        ensure!(
            (before + 1..=after + 1).contains(&next),
            "image {number} goes on with {next}, not between {before} and {after}"
        );
        life.end()?;
        each_once(&life.lines(), next)?;
        // One computation, whichever life it is in.
        let again = life.lines();
        let shared = all[next - 1..].iter().zip(&again);
        ensure!(shared.clone().all(|(one, other)| one == other));
    }
    Ok(())
}

fn inode_of(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(fs::metadata(path).ok()?.ino())
}

fn first_word(line: &str) -> Result<usize> {
    let word = line.split(' ').next().unwrap_or_default();
    word.parse().with_context(|| format!("line {line:?}"))
}

fn each_once(lines: &[String], from: usize) -> Result<()> {
    for (expected, line) in (from..).zip(lines) {
        ensure!(first_word(line)? == expected, "{expected} is {line:?}");
    }
    Ok(())
}
