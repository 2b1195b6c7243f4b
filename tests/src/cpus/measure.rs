//! Freezes every program on every CPU, and thaws every image on every CPU.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use file_transfer_plugin::attributes;
use file_transfer_plugin::fingerprint::Fingerprint;

use super::kernel::{self, Kernel};
use super::matrix::{Cpu, Matrix, Thaw};
use super::programs::PROGRAMS;
use super::report::{Line, Origin, Outcome, PLAN, Plan, Task};
use super::{here, qemu, tree};
use crate::{binaries, machine, turns};

/// Guests at a time: each keeps one core busy.
const AT_ONCE: usize = 2;

/// A CPU to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// What the matrix calls it.
    pub name: &'static str,
    /// What QEMU calls it; none for the machine itself.
    pub qemu: Option<&'static str>,
}

const fn emulated(name: &'static str, qemu: &'static str) -> Model {
    let qemu = Some(qemu);
    Model { name, qemu }
}

/// The machine itself.
pub const SILICON: Model = Model {
    name: "silicon",
    qemu: None,
};

/// Those of the committed matrix.
///
/// QEMU's `max` calls itself AMD's and lays its registers out as Intel's do, so it gets the maker that it is like.
pub const ALL: [Model; 9] = [
    emulated("Nehalem", "Nehalem"),
    emulated("Opteron_G3", "Opteron_G3"),
    emulated("SandyBridge", "SandyBridge"),
    emulated("Haswell", "Haswell"),
    emulated("Broadwell", "Broadwell"),
    emulated("Skylake-Server", "Skylake-Server"),
    emulated("EPYC", "EPYC"),
    emulated("max", "max,vendor=GenuineIntel"),
    SILICON,
];

/// The images of one CPU.
struct Frozen {
    slot: Cpu,
    images: BTreeMap<String, Vec<u8>>,
}

/// The machinery that all guests share.
struct Lab<'a> {
    dir: &'a Path,
    kernel: Kernel,
    root: PathBuf,
    initrd: Vec<u8>,
}

/// Measures these CPUs against each other; `dir` is an empty directory for what is needed meanwhile.
pub fn measure(models: &[Model], dir: &Path) -> Result<Matrix> {
    machine::need(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("unshare", "util-linux"),
    ])?;
    let kernel = kernel::get()?;
    let root = dir.join("root");
    tree::make(&root, &kernel)?;
    let initrd = tree::cpio(&root)?;
    let lab = Lab {
        dir,
        kernel,
        root,
        initrd,
    };
    let frozen = on_each(models, |model| lab.freeze(model))?;
    let thaws = on_each(models, |model| lab.thaw(model, &frozen))?;
    Ok(Matrix {
        cpus: frozen.into_iter().map(|frozen| frozen.slot).collect(),
        thaws: thaws.into_iter().flatten().collect(),
    })
}

impl Lab<'_> {
    fn freeze(&self, model: Model) -> Result<Frozen> {
        let programs = PROGRAMS
            .iter()
            .map(|program| program.name.to_owned())
            .collect();
        let mut outcomes = BTreeMap::new();
        let mut images = BTreeMap::new();
        for (line, image) in self.run(model, "freeze", Task::Freeze(programs), Vec::new())? {
            let Line::Frozen {
                program, outcome, ..
            } = line
            else {
                continue;
            };
            if outcome == Outcome::Frozen {
                images.insert(program.clone(), image);
            }
            outcomes.insert(program, outcome);
        }
        let any = images.get("sse2").context("every CPU has SSE2")?;
        let slot = Cpu {
            name: model.name.to_owned(),
            qemu: model.qemu.map(str::to_owned),
            fingerprint: self.fingerprint(model, any)?,
            programs: outcomes,
        };
        Ok(Frozen { slot, images })
    }

    /// What the supervisor has written into an image: what it saw of the CPU.
    fn fingerprint(&self, model: Model, image: &[u8]) -> Result<Fingerprint> {
        let path = self.dir.join(format!("{}.criu", model.name));
        fs::write(&path, image)?;
        let output = Command::new(binaries::dir()?.join("criu-transfer"))
            .args(["inspect", "--json"])
            .arg(&path)
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "criu-transfer: {output:?}");
        let manifest: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let print = manifest["head"]["fingerprint"].clone();
        serde_json::from_value(print).context("the manifest has a fingerprint")
    }

    fn thaw(&self, model: Model, frozen: &[Frozen]) -> Result<Vec<Thaw>> {
        let mut origins = Vec::new();
        let mut files = Vec::new();
        for source in frozen {
            let cpu = &source.slot.name;
            for (program, image) in &source.images {
                let origin = Origin {
                    cpu: cpu.clone(),
                    program: program.clone(),
                };
                files.push((origin.image(), image.clone()));
                files.push((origin.slot_ad(), claim(&source.slot.fingerprint)));
                origins.push(origin);
            }
        }
        files.sort();
        files.dedup_by(|a, b| a.0 == b.0);
        let mut thaws: BTreeMap<String, BTreeMap<String, Outcome>> = BTreeMap::new();
        let expected = origins.len();
        let lines = self.run(model, "thaw", Task::Thaw(origins), files)?;
        ensure!(lines.len() == expected, "{}: lines are missing", model.name);
        for (line, _) in lines {
            if let Line::Thawed { origin, outcome } = line {
                let of = thaws.entry(origin.cpu).or_default();
                of.insert(origin.program, outcome);
            }
        }
        let thaw = |(from, outcomes)| Thaw {
            from,
            to: model.name.to_owned(),
            outcomes,
        };
        Ok(thaws.into_iter().map(thaw).collect())
    }

    fn run(
        &self,
        model: Model,
        what: &str,
        task: Task,
        mut files: Vec<(String, Vec<u8>)>,
    ) -> Result<Vec<(Line, Vec<u8>)>> {
        let begun = Instant::now();
        let dir = self.dir.join(format!("{}-{what}", model.name));
        fs::create_dir(&dir)?;
        let report = model.qemu.map_or(here::REPORT, |_| qemu::REPORT).into();
        let plan = serde_json::to_vec(&Plan { report, task })?;
        files.push((PLAN.to_owned(), plan));
        let lines = match model.qemu {
            Some(cpu) => {
                let initrd = dir.join("initrd");
                let more = tree::cpio_of(&files)?;
                fs::write(&initrd, [&self.initrd[..], &more].concat())?;
                qemu::boot(cpu, &self.kernel, &initrd, &dir)
            }
            None => {
                for (name, contents) in &files {
                    let path = self.root.join(name);
                    fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
                    fs::write(&path, contents)?;
                }
                here::run(&self.root)
            }
        };
        let lines = lines.with_context(|| format!("{what} on {}", model.name))?;
        fs::remove_dir_all(&dir)?;
        let seconds = begun.elapsed().as_secs();
        eprintln!(
            "{}: {what}: {} programs, {seconds} s",
            model.name,
            lines.len()
        );
        Ok(lines)
    }
}

/// The ad of a slot with this fingerprint.
fn claim(print: &Fingerprint) -> Vec<u8> {
    let mut ad = print.to_slot_ad();
    ad.insert(attributes::HAS_CRIU, true);
    ad.to_old().into_bytes()
}

/// Does something with each model, some at a time; the results in the order of the models.
fn on_each<T: Send>(models: &[Model], work: impl Fn(Model) -> Result<T> + Sync) -> Result<Vec<T>> {
    let queue: Mutex<VecDeque<(usize, Model)>> =
        Mutex::new(models.iter().copied().enumerate().collect());
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("nobody panics").pop_front();
                    let Some((index, model)) = next else { break };
                    let turn = turns::take();
                    let result = work(model);
                    drop(turn);
                    done.lock().expect("nobody panics").insert(index, result);
                }
            });
        }
    });
    let done = done
        .into_inner()
        .map_err(|_| anyhow!("a worker panicked"))?;
    done.into_values().collect()
}
