//! Outputs that the submit file names: at an eviction HTCondor sends them and nothing else, and holds the job if one of
//! them does not exist.
//!
//! So the image travels under the name of one of them, and the others are empty. Nobody sees that: at an eviction they go
//! to SPOOL, come back at the next start under the same names, and are put in order before the job is begun or thawed.
//!
//! ```text
//! transfer_output_files = results, plot.png
//!   evicted:  checkpoint.criu ──> results        (SPOOL)      plot.png: empty
//!   started:  results ──────────> checkpoint.criu             plot.png: removed
//!   ended:    results, plot.png, as the job made them; no checkpoint.criu
//! ```
//!
//! Nothing of this has to be known on the access point, and a slot without us is none the worse for it.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use file_transfer_plugin::manifest::Limits;
use file_transfer_plugin::unpack::Archive;

use crate::job::Job;
use crate::sandbox::{ARCHIVE, OLDER, Sandbox};

/// Longer lists are looked at up to here.
const NAMES: usize = 10_000;

/// Makes everything that was named exist, the image among it.
pub(crate) fn leave_image(job: &Job, sandbox: &Sandbox) -> Result<()> {
    leave(&Named::of(job), &job.scratch, &sandbox.tree("srv"))
        .context("cannot put the image where HTCondor takes it from")
}

/// Gives the image its own name back, and removes what only stood for an output.
pub(crate) fn take_image(job: &Job) -> Result<()> {
    // What is there before the first start is the job's.
    if job.starts() == 0 {
        return Ok(());
    }
    take(&Named::of(job), &job.scratch).context("cannot take the image that HTCondor has brought")
}

/// What the submit file names.
#[derive(Debug, Default)]
struct Named {
    outputs: Vec<PathBuf>,
    inputs: Vec<PathBuf>,
}

impl Named {
    fn of(job: &Job) -> Named {
        let list = |name: &str| job.job_ad.as_ref()?.eval_str(name);
        Named {
            outputs: names(&list("TransferOutput").unwrap_or_default()),
            inputs: names(&list("TransferInput").unwrap_or_default())
                .iter()
                .map(|path| spooled(path))
                .collect(),
        }
    }

    /// The output that the image travels as: the image itself if somebody has named it, else preferably one that is no
    /// input too, which would be missing should the image be refused.
    fn carrier(&self) -> Option<&Path> {
        let own = |path: &&PathBuf| **path == Path::new(ARCHIVE);
        let no_input = |path: &&PathBuf| !self.inputs.contains(&spooled(path));
        let outputs = || self.outputs.iter();
        outputs()
            .find(own)
            .or_else(|| outputs().find(no_input))
            .or_else(|| outputs().next())
            .map(PathBuf::as_path)
    }
}

fn names(list: &str) -> Vec<PathBuf> {
    list.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .take(NAMES)
        .map(PathBuf::from)
        .collect()
}

/// Where it lies when it comes back: SPOOL has no directories above a name.
fn spooled(path: &Path) -> PathBuf {
    path.file_name().map_or_else(PathBuf::new, PathBuf::from)
}

/// `results/` is what is in it, `results` may become either.
fn is_directory(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// Whether it lies in the scratch directory; others are the job's own affair.
fn is_below(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn leave(named: &Named, scratch: &Path, srv: &Path) -> io::Result<()> {
    let archive = scratch.join(ARCHIVE);
    let carrier = named.carrier().filter(|path| is_below(path));
    for path in named.outputs.iter().filter(|path| is_below(path)) {
        let to = scratch.join(path);
        // An input that HTCondor keeps for the next start must be what the job has made of it.
        let changed = srv.join(path);
        if named.inputs.contains(&spooled(path)) && changed.exists() && !to.exists() {
            make_parent(&to)?;
            fs::rename(&changed, &to)?;
        }
        if !to.exists() {
            make_parent(&to)?;
            if is_directory(path) {
                fs::create_dir(&to)?;
            } else {
                File::create(&to)?;
            }
        }
    }
    if let Some(carrier) = carrier
        && fs::metadata(&archive).is_ok_and(|meta| meta.len() > 0)
    {
        let to = scratch.join(carrier);
        if is_directory(carrier) {
            fs::rename(&archive, to.join(ARCHIVE))?;
        } else if carrier != Path::new(ARCHIVE) {
            if to.is_dir() {
                fs::remove_dir_all(&to)?;
            }
            fs::rename(&archive, &to)?;
        }
    }
    Ok(())
}

fn take(named: &Named, scratch: &Path) -> io::Result<()> {
    let archive = scratch.join(ARCHIVE);
    let carrier = named.carrier().map(spooled);
    for path in &named.outputs {
        let path = spooled(path);
        let here = scratch.join(&path);
        let Ok(meta) = fs::symlink_metadata(&here) else {
            continue;
        };
        if Some(&path) == carrier.as_ref() && meta.is_file() && here != archive {
            // A slot without us leaves there what its job had written.
            if let Some(age) = age(&here) {
                put(&here, age, scratch)?;
                continue;
            }
        }
        if named.inputs.contains(&path) {
            continue;
        }
        if meta.is_file() && meta.len() == 0 {
            fs::remove_file(&here)?;
        } else if meta.is_dir() {
            // It has something in it, and is no stand-in.
            let _ = fs::remove_dir(&here);
        }
    }
    Ok(())
}

/// What tells a newer image from an older one; none for what is no image. Clocks of two slots may disagree, so the
/// generation counts first. One of a life before the job was begun again is not known to its ad, and is not taken.
fn age(path: &Path) -> Option<(u64, i64)> {
    let archive = Archive::open(path, &Limits::default()).ok()?;
    let head = &archive.manifest().head;
    Some((head.generation, head.created))
}

/// Images on the way come home under their own name, so the newest may be either.
fn put(carried: &Path, new: (u64, i64), scratch: &Path) -> io::Result<()> {
    let (archive, older) = (scratch.join(ARCHIVE), scratch.join(OLDER));
    match age(&archive) {
        Some(own) if own >= new => return fs::rename(carried, older),
        Some(_) => fs::rename(&archive, older)?,
        None => {}
    }
    fs::rename(carried, archive)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(outputs: &str, inputs: &str) -> Named {
        Named {
            outputs: names(outputs),
            inputs: names(inputs).iter().map(|path| spooled(path)).collect(),
        }
    }

    fn text(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    #[test]
    fn everything_that_was_named_exists_and_one_of_it_is_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at(ARCHIVE), "image").unwrap();
        let named = named("state, out/a.txt, plots/, /tmp/b, ../c", "/home/a/state");
        fs::create_dir(at("srv")).unwrap();
        fs::write(at("srv/state"), "7").unwrap();
        leave(&named, dir.path(), &at("srv")).unwrap();
        assert_eq!(text(&at("state")).as_deref(), Some("7"));
        assert_eq!(text(&at("out/a.txt")).as_deref(), Some("image"));
        assert!(at("plots").is_dir());
        assert!(!at(ARCHIVE).exists());
        assert!(!dir.path().parent().unwrap().join("c").exists());
    }

    #[test]
    fn an_older_image_wins_over_half_an_output() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(ARCHIVE), "image").unwrap();
        fs::create_dir(dir.path().join("results")).unwrap();
        leave(&named("results", ""), dir.path(), Path::new("/none")).unwrap();
        let results = text(&dir.path().join("results"));
        assert_eq!(results.as_deref(), Some("image"));
    }

    #[test]
    fn stand_ins_go_and_files_of_the_jobs_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, text) in [("a.txt", ""), ("half", "no image"), ("input", "")] {
            fs::write(at(name), text).unwrap();
        }
        fs::create_dir(at("plots")).unwrap();
        take(
            &named("half, out/a.txt, plots/, input", "input"),
            dir.path(),
        )
        .unwrap();
        assert!(!at("a.txt").exists() && !at("plots").exists());
        assert!(at("half").exists() && at("input").exists());
    }

    #[test]
    fn a_job_that_names_nothing_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(ARCHIVE), "image").unwrap();
        leave(&Named::default(), dir.path(), Path::new("/none")).unwrap();
        take(&Named::default(), dir.path()).unwrap();
        assert!(dir.path().join(ARCHIVE).exists());
    }
}
