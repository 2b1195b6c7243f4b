//! The benchmarks of libclassad's anchors, on the same files with the same loops.
//!
//! `cargo run --release -p classad --example bench -- --dir D --secs S --only NAME` runs those whose name starts with
//! NAME for about S seconds each and prints a line of JSON for each. `check` proves that the same work was done. D holds
//! `job200.{new,old}.ad`, `slot.{new,old}.ad`, `jobs/*.old.ad` and `slots_N.old.ads`.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use classad::{ClassAd, Expr, Prepared, Scope, Value, is_match, rank};

struct Options {
    dir: PathBuf,
    secs: f64,
    only: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = Options {
        dir: PathBuf::from("."),
        secs: 1.0,
        only: String::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().ok_or("each option takes a value")?;
        match arg.as_str() {
            "--dir" => options.dir = value.into(),
            "--secs" => options.secs = value.parse()?,
            "--only" => options.only = value,
            _ => return Err(format!("unknown option {arg}").into()),
        }
    }
    text(&options)?;
    evaluation(&options)?;
    many(&options)?;
    Ok(())
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.only)
    }

    fn read(&self, name: &str) -> Result<String, Box<dyn Error>> {
        let path = self.dir.join(name);
        fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()).into())
    }

    /// Runs a round of `ops` operations again and again; the least time of nine stretches counts.
    fn run(&self, name: &str, ops: usize, mut round: impl FnMut() -> i64) {
        if !self.wants(name) {
            return;
        }
        let check = round();
        let stretch = Duration::from_secs_f64(self.secs / 9.0);
        let mut best = f64::INFINITY;
        let mut total = 0;
        for _ in 0..9 {
            let (start, cpu) = (Instant::now(), cpu_time());
            let mut rounds = 0;
            while rounds == 0 || start.elapsed() < stretch {
                // The clock is not read for every operation of a few nanoseconds.
                for _ in 0..if ops < 16 { 64 } else { 1 } {
                    black_box(round());
                    rounds += 1;
                }
            }
            let spent = match (cpu, cpu_time()) {
                (Some(before), Some(after)) if after > before => after - before,
                _ => start.elapsed().as_nanos() as u64,
            };
            best = best.min(spent as f64 / (rounds * ops) as f64);
            total += rounds * ops;
        }
        let per_second = 1e9 / best;
        println!(
            "{{\"name\":\"{name}\",\"ns_per_op\":{best:.1},\"ops_per_sec\":{per_second:.1},\"ops\":{total},\"check\":{check}}}"
        );
    }
}

/// Nanoseconds that this thread has run: on a shared machine the time on the wall is mostly that of others.
fn cpu_time() -> Option<u64> {
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Parsing, printing and copying.
fn text(options: &Options) -> Result<(), Box<dyn Error>> {
    if !["parse", "unparse", "copy"]
        .iter()
        .any(|kind| kind.starts_with(&options.only) || options.only.starts_with(kind))
    {
        return Ok(());
    }
    let parse = |text: &str| ClassAd::parse(text).map_or(-1, |ad| ad.len() as i64);
    let parse_old = |text: &str| ClassAd::parse_old(text).map_or(-1, |ad| ad.len() as i64);
    for (name, file) in [("job200", "job200"), ("slot236", "slot")] {
        let new = options.read(&format!("{file}.new.ad"))?;
        let old = options.read(&format!("{file}.old.ad"))?;
        options.run(&format!("parse.{name}.new"), 1, || parse(&new));
        options.run(&format!("parse.{name}.old"), 1, || parse_old(&old));
    }
    let slot = ClassAd::parse_old(&options.read("slot.old.ad")?)?;
    let requirements = slot.get("Start").ok_or("the slot lacks Start")?.to_string();
    options.run("parse.expr.requirements", 1, || {
        i64::from(Expr::parse(&requirements).is_ok())
    });
    let job = ClassAd::parse_old(&options.read("job200.old.ad")?)?;
    options.run("unparse.job200.new", 1, || job.to_string().len() as i64);
    options.run("unparse.job200.old", 1, || job.to_old().len() as i64);
    options.run("unparse.job200.json", 1, || job.to_json().len() as i64);
    options.run("copy.job200", 1, || job.clone().len() as i64);
    Ok(())
}

fn jobs(options: &Options) -> Result<Vec<ClassAd>, Box<dyn Error>> {
    let mut files: Vec<PathBuf> = fs::read_dir(options.dir.join("jobs"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    files.sort();
    files
        .iter()
        .map(|path| Ok(ClassAd::parse_old(&fs::read_to_string(path)?)?))
        .collect()
}

/// Single expressions, 22 jobs against one slot.
fn evaluation(options: &Options) -> Result<(), Box<dyn Error>> {
    if !"eval".starts_with(&options.only) && !options.only.starts_with("eval") {
        return Ok(());
    }
    let slot = ClassAd::parse_old(&options.read("slot.old.ad")?)?;
    let jobs = jobs(options)?;
    options.run("eval.attr_literal", 1, || {
        slot.eval_int("Memory").unwrap_or(-1)
    });
    let mask = |holds: &mut dyn FnMut(&ClassAd) -> bool| {
        jobs.iter()
            .fold(0, |mask, job| mask << 1 | i64::from(holds(job)))
    };
    let holds = |value: Value| value.truth() == Some(true);
    options.run("eval.job_requirements", jobs.len(), || {
        mask(&mut |job| holds(Scope::new(job).target(&slot).evaluate("Requirements")))
    });
    options.run("eval.slot_requirements", jobs.len(), || {
        mask(&mut |job| holds(Scope::new(&slot).target(job).evaluate("Requirements")))
    });
    options.run("eval.job_rank", jobs.len(), || {
        let numbers = |job: &&ClassAd| {
            Scope::new(job)
                .target(&slot)
                .evaluate("Rank")
                .as_real()
                .is_some()
        };
        jobs.iter().filter(numbers).count() as i64
    });
    Ok(())
}

/// The largest file of slots in the directory.
fn slots(dir: &Path) -> Result<Vec<ClassAd>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("slots") && name.to_string_lossy().ends_with(".ads") {
            files.push((entry.metadata()?.len(), entry.path()));
        }
    }
    let (_, path) = files
        .into_iter()
        .max()
        .ok_or("there is no slots_N.old.ads in the directory")?;
    let text = fs::read_to_string(path)?;
    Ok(text
        .split("\n\n")
        .filter(|ad| !ad.trim().is_empty())
        .map(ClassAd::parse_old)
        .collect::<Result<_, _>>()?)
}

/// Resident memory of this process in bytes.
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/statm").ok()?;
    status
        .split_whitespace()
        .nth(1)?
        .parse::<usize>()
        .ok()
        .map(|pages| pages * 4096)
}

/// One job or 22 against thousands of slots.
fn many(options: &Options) -> Result<(), Box<dyn Error>> {
    if !["match", "filter", "memory"]
        .iter()
        .any(|kind| kind.starts_with(&options.only) || options.only.starts_with(kind))
    {
        return Ok(());
    }
    let jobs = jobs(options)?;
    let before = resident();
    let slots = slots(&options.dir)?;
    if let (Some(before), Some(after), true) = (before, resident(), options.wants("memory.slot")) {
        println!(
            "{{\"name\":\"memory.slot\",\"bytes_per_ad\":{},\"ads\":{}}}",
            (after - before) / slots.len(),
            slots.len()
        );
    }
    // The job of all the benchmarks of one: the first of the 22 matches next to nothing.
    let job = &ClassAd::parse_old(&options.read("job200.old.ad")?)?;
    let count = |job: &ClassAd| slots.iter().filter(|slot| is_match(job, slot)).count() as i64;
    options.run("match.1xN.is_a_match", slots.len(), || count(job));
    options.run("match.1xN.left_fixed", slots.len(), || count(job));
    options.run("match.22xN.left_fixed", slots.len() * jobs.len(), || {
        jobs.iter().map(count).sum()
    });
    options.run("match.1xN.rank_best", slots.len(), || {
        let mut best = (f64::NEG_INFINITY, -1);
        for (index, slot) in slots.iter().enumerate() {
            if is_match(job, slot) {
                let rank = rank(job, slot);
                if rank > best.0 {
                    best = (rank, index as i64);
                }
            }
        }
        best.1
    });
    if options.wants("match.1xN.negotiator_opt") || options.wants("match.22xN.negotiator_opt") {
        let prepared: Vec<Prepared> = slots.iter().map(Prepared::new).collect();
        let count = |job: &ClassAd| {
            let job = Prepared::new(job);
            prepared.iter().filter(|slot| job.is_match(slot)).count() as i64
        };
        options.run("match.1xN.negotiator_opt", slots.len(), || count(job));
        options.run(
            "match.22xN.negotiator_opt",
            slots.len() * jobs.len(),
            || jobs.iter().map(count).sum(),
        );
    }
    for (name, text) in [
        ("filter.N.compare", "Memory >= 4096 && Cpus >= 2"),
        (
            "filter.N.stringlist",
            "stringListMember(\"LIGO\", GLIDEIN_SupportedVOs)",
        ),
        ("filter.N.regexp", "regexp(\"^slot1_[0-9]+@\", Name)"),
    ] {
        let expr = Expr::parse(text)?;
        options.run(name, slots.len(), || {
            slots
                .iter()
                .filter(|slot| slot.evaluate_expr(&expr).truth() == Some(true))
                .count() as i64
        });
    }
    Ok(())
}
