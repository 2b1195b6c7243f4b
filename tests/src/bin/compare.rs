//! `compare`: from the signal to an image that is complete on another host, our way and two others.
//!
//! ```text
//! gzip     criu dump to files, sync; tar | gzip to a file; the file over a connection, to the disk
//! lz4      criu dump --stream | lz4 | the connection, to the disk
//! ours     criu-starter run --store: to an archive on the disk, and while it is written to a store, on the disk
//! ```
//!
//! The other host is this one: the connection is its loopback, at its own speed or held to what `--gbit` says; what is moved
//! is all that it carries, both ways. Then one part in twenty of the memory is overwritten, and the next image moved.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use tests::host::Host;
use tests::measured::{self, Bare, Ours, STARTER, Usage, spread};
use tests::pool::Pool;
use tests::roots::HtCondor;
use tests::spec::Spec;
use tests::users::User;
use tests::{binaries, wait};

const TRANSFER: &str = "/usr/local/bin/criu-transfer";
const LZ4: &str = "/usr/local/bin/lz4";
const URL: &str = "criu://127.0.0.1:9622/compare.0?tls=no";

const GZIP_WAY: &str = "criu dump -R -t $PID -D images -o dump.log && sync images/* images && \
    tar -cf - images | gzip >image.tgz && sync image.tgz && python3 link.py <image.tgz";

const LZ4_WAY: &str = "\
    { python3 stream.py images | lz4 -q | python3 link.py; } & \
    until [ -e images/streamer-capture.sock ]; do sleep 0.01; done; \
    criu dump -R --stream -t $PID -D images -o dump.log && wait $!";

/// From the signal to the image on the other host.
#[derive(Parser)]
struct Args {
    /// How much memory the job has
    #[arg(default_value_t = 1024)]
    megabytes: u32,
    /// How often each way is taken
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What is in its memory
    #[arg(long = "kind", default_values_t = ["half", "particles"].map(str::to_owned))]
    kinds: Vec<String>,
    /// How fast the connection is; as fast as it will without
    #[arg(long)]
    gbit: Option<u32>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let speed = match args.gbit {
        Some(gbit) => format!("{gbit}gbit"),
        None => "its own speed".to_owned(),
    };
    println!(
        "{} MB over a connection of {speed}: seconds, {} rounds",
        args.megabytes, args.rounds
    );
    for kind in &args.kinds {
        let pool = Pool::up(&Spec::bare(HtCondor::V23_9).root(measured::root(kind)))?;
        prepare(pool.ap(), &args)?;
        compare(pool.ap(), kind, &args)?;
    }
    Ok(())
}

fn prepare(host: &Host, args: &Args) -> Result<()> {
    let built = binaries::dir()?;
    for (from, to) in [
        (built.join("criu-starter"), STARTER),
        (built.join("criu-transfer"), TRANSFER),
        (Path::new("/usr/bin/lz4").to_owned(), LZ4),
    ] {
        let program = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        host.write(to, program, User::Root, 0o755)?;
    }
    if let Some(gbit) = args.gbit {
        let shape = format!("qdisc add dev lo root tbf rate {gbit}gbit burst 2mb latency 100ms");
        let words: Vec<&str> = ["tc"].into_iter().chain(shape.split(' ')).collect();
        host.run_on_its_network(&words)?;
    }
    Ok(())
}

fn compare(host: &Host, kind: &str, args: &Args) -> Result<()> {
    let mut bare = Bare::start(host, kind, args.megabytes)?;
    for (name, text) in measured::SCRIPTS {
        host.write(format!("{}/{name}", bare.job.dir), text, User::Root, 0o644)?;
    }
    let mut store = Store::start(host, &format!("store-{kind}"))?;
    let mut ours = Ours::start(host, kind, args.megabytes, Some(URL))?;
    let mut rows = [
        Row::new("gzip"),
        Row::new("lz4"),
        Row::new("ours"),
        Row::new("ours again"),
    ];
    for _ in 0..args.rounds {
        let still = ours.stand_still()?;
        for (row, way) in rows.iter_mut().zip([GZIP_WAY, LZ4_WAY]) {
            let mut receiver = receive(host, &bare.job.dir)?;
            let (cpu, carried) = (cpu()?, carried(host)?);
            row.seconds.push(bare.dump(way)?);
            receiver.wait()?;
            row.cpu.push(self::cpu()? - cpu);
            row.bytes.push(self::carried(host)? - carried);
        }
        drop(still);
        let _still = bare.stand_still()?;
        for (row, change) in rows[2..].iter_mut().zip([None, Some("first")]) {
            if let Some(which) = change {
                ours.restore()?;
                ours.job.change(which)?;
            }
            store.move_image(&mut ours, row)?;
        }
        ours.restore()?;
        store.empty()?;
    }
    store.end()?;
    for row in &mut rows {
        row.print(kind);
    }
    println!(
        "{kind:>10} largest memory: criu-starter {} MB, push {} MB, store {} MB",
        ours.dumping, ours.sending, rows[2].store
    );
    bare.end()?;
    ours.end()
}

/// What one way takes.
struct Row {
    way: &'static str,
    seconds: Vec<f64>,
    cpu: Vec<f64>,
    /// Bytes on the connection.
    bytes: Vec<f64>,
    store: u64,
}

impl Row {
    fn new(way: &'static str) -> Self {
        let (seconds, cpu, bytes) = Default::default();
        Self {
            way,
            seconds,
            cpu,
            bytes,
            store: 0,
        }
    }

    fn print(&mut self, kind: &str) {
        self.bytes.iter_mut().for_each(|bytes| *bytes /= 1e6);
        println!(
            "{kind:>10} {:10} {} s, {} s of CPU, {} MB moved",
            self.way,
            spread(&mut self.seconds, 2),
            spread(&mut self.cpu, 2),
            spread(&mut self.bytes, 0)
        );
    }
}

/// Seconds of CPU that children of this process have used that are gone, with theirs.
fn cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(micros as f64 / 1e6)
}

/// Bytes that the host's loopback has carried.
fn carried(host: &Host) -> Result<f64> {
    let mut command = host.command(User::Root, "/")?;
    let counters = command.args(["cat", "/proc/net/dev"]).output()?.stdout;
    let counters = String::from_utf8(counters)?;
    let line = counters
        .lines()
        .find_map(|line| line.trim().strip_prefix("lo:"));
    let bytes = line.and_then(|line| line.split_whitespace().next());
    Ok(bytes.context("no loopback")?.parse()?)
}

fn receive(host: &Host, dir: &str) -> Result<Child> {
    let mut command = host.command(User::Root, dir)?;
    listening(command.args(["python3", "link.py", "received"]))
}

/// Starts what prints a line when it listens.
fn listening(command: &mut Command) -> Result<Child> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("it is piped")?;
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.starts_with("listening"), "it does not listen: {line}");
    Ok(child)
}

/// A store with nothing in it yet.
struct Store<'h> {
    host: &'h Host,
    child: Child,
    dir: String,
}

impl<'h> Store<'h> {
    fn start(host: &'h Host, name: &str) -> Result<Self> {
        let dir = format!("/root/{name}");
        let mut command = host.command(User::Root, "/root")?;
        command.args([
            TRANSFER,
            "serve",
            "--anonymous",
            "--low-water",
            "1G",
            "--dir",
            &dir,
        ]);
        let child = listening(command.stderr(Stdio::null()))?;
        Ok(Self { host, child, dir })
    }

    /// From the signal until the store has it.
    fn move_image(&mut self, ours: &mut Ours<'_>, row: &mut Row) -> Result<()> {
        let serving = measured::processes_below(self.child.id(), &["criu-transfer"]);
        let mut usage = Usage::default();
        usage.look(&serving);
        let carried = carried(self.host)?;
        row.seconds.push(ours.dump()?);
        usage.look(&serving);
        ensure!(
            !ours.job.path("checkpoint.criu").exists(),
            "the store did not get it"
        );
        row.cpu.push(ours.cpu + usage.cpu());
        row.bytes.push(self::carried(self.host)? - carried);
        row.store = row.store.max(usage.megabytes());
        Ok(())
    }

    /// The next image shares nothing with one that is gone.
    fn empty(&self) -> Result<()> {
        let words = [TRANSFER, "rm", URL];
        self.host.run(User::Pilot, "/", &words).map(drop)
    }

    fn end(mut self) -> Result<()> {
        for pid in measured::processes_below(self.child.id(), &["criu-transfer"]) {
            kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        }
        wait::until("the store's end", Duration::from_secs(60), || {
            Ok(self.child.try_wait()?)
        })?;
        let dir = self.host.path(&self.dir);
        Ok(fs::remove_dir_all(dir)?)
    }
}
