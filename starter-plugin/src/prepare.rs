//! The starter's prepare-job hook: puts `criu-starter run` before a job that asks for it.
//!
//! ```text
//! job ad on stdin ──> [the slot's own hook, --then] ──> WantCRIU? ── no ──> nothing more is printed
//!                                                          └─ yes ─> SCRATCH/.criu-bin, new Cmd and Arguments
//! ```
//!
//! HTCondor runs it as the job's user in the scratch directory, after the inputs have come, and takes what it prints into
//! the job's ad. The programs are put into the scratch directory because a container shows the job nothing else of the
//! node; being inside, the supervisor is the container's first program and gets the signals.
//!
//! A hook that fails holds the job or sends it away. This one never does: what it cannot do is said in the event log, and
//! the job runs as it would have without it.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use classad::ClassAd;
use file_transfer_plugin::attributes;

use crate::sandbox::TOOLS;
use crate::{job, store};

/// Beside this program, where an operator has put a CRIU that brings its libraries.
const BUNDLE: &str = "criu-bundle";

/// Copied file by file and bounded: a directory that somebody has put under this name must not fill the disk.
const BUNDLE_FILES: usize = 64;

/// A chained hook prints a few attributes.
const UPDATE_LIMIT: u64 = 1 << 20;

/// The vanilla universe, which container jobs are in too.
const VANILLA: i64 = 5;

/// A message without a status code is a line in the job's event log.
const STATUS_MESSAGE: &str = "HookStatusMessage";

/// From 300 on, HTCondor gives the job back to the queue; below it would hold it.
const GIVE_BACK: i64 = 301;

/// Reads the job's ad from standard input and prints what is to be changed in it.
pub(crate) fn prepare(then: Option<&Path>) -> ExitCode {
    let mut text = String::new();
    let mut input = io::stdin().take(job::AD_LIMIT);
    if let Err(error) = input.read_to_string(&mut text) {
        eprintln!("criu-starter: cannot read the job's ad from standard input: {error}");
        return ExitCode::SUCCESS;
    }
    let before = then.map_or_else(|| Ok(Chained::default()), |hook| Chained::run(hook, &text));
    let before = match before {
        Ok(before) => before,
        // Without it the slot is not what its operator wants jobs to find.
        Err(error) => {
            let mut update = message(&format!("{error:#}"));
            update.insert("HookStatusCode", GIVE_BACK);
            print!("{}", update.to_old());
            return ExitCode::SUCCESS;
        }
    };
    print!("{}", before.printed);
    if before.accepts()
        && let Some(update) = update(&text, &before.update)
    {
        print!("{}", update.to_old());
    }
    before.code()
}

/// What is to change in the job of that ad; nothing in one that did not ask.
fn update(text: &str, before: &ClassAd) -> Option<ClassAd> {
    let mut ad = ClassAd::parse_old(text).ok()?;
    if ad.eval_bool("WantCRIU") != Some(true) {
        return None;
    }
    ad.update(before);
    match rewritten(&ad) {
        Ok(update) => Some(update),
        // The job runs all the same, and its log says what it lacks.
        Err(error) => (!before.contains(STATUS_MESSAGE))
            .then(|| message(&format!("the job runs without protection: {error:#}"))),
    }
}

fn message(text: &str) -> ClassAd {
    let mut ad = ClassAd::new();
    ad.insert(STATUS_MESSAGE, text);
    ad
}

/// What puts the supervisor before the job.
fn rewritten(ad: &ClassAd) -> Result<ClassAd> {
    if ad.eval_int("JobUniverse") != Some(VANILLA) || ad.eval_bool("WantDocker") == Some(true) {
        bail!("WantCRIU is for vanilla and container universe jobs");
    }
    if ad.eval_str("WhenToTransferOutput").as_deref() != Some("ON_EXIT_OR_EVICT") {
        bail!(
            "an image would not leave the slot; WantCRIU needs when_to_transfer_output = ON_EXIT_OR_EVICT, which no hook \
             on a slot can set"
        );
    }
    if ad
        .eval_str("TransferOutput")
        .is_some_and(|list| list.trim().is_empty())
    {
        bail!(
            "transfer_output_files is empty, so nothing can leave the slot, and an image neither; name one output"
        );
    }
    let scratch = std::env::current_dir().context("cannot tell the scratch directory")?;
    let Some(program) = program(ad, &scratch)? else {
        // Its submit file has done it.
        return Ok(ClassAd::new());
    };
    let arguments = format!("run -- {} {}", quoted(&program), arguments(ad));
    let starter = put_tools(
        &scratch.join(TOOLS),
        in_container(ad),
        ad.contains(attributes::STORE),
    )?;
    let starter = starter
        .to_str()
        .context("the scratch directory's name is not text")?;
    let mut update = ClassAd::new();
    update.insert("Cmd", starter);
    update.insert("Arguments", arguments.trim_end());
    // Or the starter would look for it at the top of the scratch directory.
    update.insert("TransferExecutable", false);
    Ok(update)
}

/// How the job's program is called from the scratch directory; none where that is `criu-starter` already.
fn program(ad: &ClassAd, scratch: &Path) -> Result<Option<String>> {
    let cmd = ad.eval_str("Cmd").unwrap_or_default();
    let name = cmd.rsplit('/').next().unwrap_or_default();
    if name.is_empty() {
        bail!("the job names no program, only what its container runs by itself");
    }
    if name == "criu-starter" {
        return Ok(None);
    }
    let transferred = ad.eval_bool("TransferExecutable") != Some(false);
    let kept = ad.eval_bool("PreserveRelativeExecutable") == Some(true);
    if !transferred {
        let as_it_is = cmd.starts_with('/') || kept;
        return Ok(Some(if as_it_is { cmd } else { format!("./{cmd}") }));
    }
    // An access point of long ago sends it under a name of HTCondor's own.
    let found = [name, "condor_exec.exe"]
        .into_iter()
        .find(|name| scratch.join(name).is_file())
        .with_context(|| format!("the job's program {name} is not in the scratch directory"))?;
    Ok(Some(format!("./{found}")))
}

/// The job's own arguments in the newer notation, in which `'` quotes and blanks separate.
fn arguments(ad: &ClassAd) -> String {
    if let Some(arguments) = ad.eval_str("Arguments") {
        return arguments;
    }
    let old = ad.eval_str("Args").unwrap_or_default();
    let words: Vec<_> = old.split_whitespace().map(quoted).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || c == '\'');
    if plain {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "''"))
    }
}

/// As far as the job says so; a slot may put others into containers too, and then has a bundle.
fn in_container(ad: &ClassAd) -> bool {
    ad.eval_bool("WantContainer") == Some(true)
        || ["ContainerImage", "SingularityImage"]
            .iter()
            .any(|name| ad.contains(name))
}

/// This program, the one for the job's store, and a CRIU where the node's own would not be found; where this program now
/// is.
fn put_tools(dir: &Path, in_container: bool, has_store: bool) -> Result<PathBuf> {
    let exe = std::env::current_exe().context("cannot tell where this program is")?;
    let beside = exe.parent().unwrap_or(Path::new("/"));
    // A hook may be called twice for one scratch directory.
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let starter = dir.join("criu-starter");
    copy(&exe, &starter)?;
    let transfer = beside.join(store::PROGRAM);
    // A node that has none is no reason to do without all of it: images go by spool.
    if has_store && transfer.is_file() {
        copy(&transfer, &dir.join(store::PROGRAM))?;
    }
    let bundle = beside.join(BUNDLE);
    if bundle.is_dir() {
        copy_bundle(&bundle, &dir.join(BUNDLE))?;
    } else if in_container {
        make_bundle(&dir.join(BUNDLE))?;
    }
    Ok(starter)
}

fn copy_bundle(from: &Path, to: &Path) -> Result<()> {
    let mut files = 0;
    for part in ["bin", "lib"] {
        let to = to.join(part);
        fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
        let from = from.join(part);
        let list =
            fs::read_dir(&from).with_context(|| format!("cannot list {}", from.display()))?;
        for entry in list {
            let entry = entry.with_context(|| format!("cannot list {}", from.display()))?;
            files += 1;
            if files > BUNDLE_FILES {
                bail!(
                    "{} is no bundle of CRIU: it has too many files",
                    from.display()
                );
            }
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The node's CRIU with its loader and libraries, for a container that has none.
fn make_bundle(to: &Path) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let criu = std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join("criu"))
        .find(|criu| criu.is_file())
        .context("there is no CRIU on this node, nor a criu-bundle beside criu-starter")?;
    // What ldd does: the loader lists the libraries and runs nothing.
    let listed = Command::new(&criu)
        .env_clear()
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", criu.display()))?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    for part in ["bin", "lib"] {
        let dir = to.join(part);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    copy(&criu, &to.join("bin/criu"))?;
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .take(BUNDLE_FILES);
    for library in libraries.map(Path::new) {
        let name = library.file_name().context("a library has a name")?;
        copy(library, &to.join("lib").join(name))?;
    }
    Ok(())
}

/// No hard link: the job's user could write to the slot's own programs through it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// What the slot's own hook had to say.
#[derive(Default)]
struct Chained {
    printed: String,
    update: ClassAd,
    ended: Option<ExitStatus>,
}

impl Chained {
    fn run(hook: &Path, ad: &str) -> Result<Chained> {
        let what = || format!("cannot run the slot's own hook {}", hook.display());
        let mut child = Command::new(hook)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(what)?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        let mut stdout = child.stdout.take().context("a pipe")?;
        let (sent, printed) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut printed = String::new();
                let read = (&mut stdout)
                    .take(UPDATE_LIMIT)
                    .read_to_string(&mut printed);
                // What is more is read and dropped, or the hook would wait for ever.
                io::copy(&mut stdout, &mut io::sink())?;
                read.map(|_| printed)
            });
            let sent = stdin.write_all(ad.as_bytes());
            drop(stdin);
            (sent, reader.join())
        });
        // A hook need not read what it is given.
        if let Err(error) = sent
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error).with_context(what);
        }
        let printed = printed
            .unwrap_or_else(|_| Ok(String::new()))
            .with_context(what)?;
        let ended = child.wait().with_context(what)?;
        // HTCondor reads it line by line too, and says what it does not understand.
        let update = ClassAd::parse_old(&printed).unwrap_or_default();
        Ok(Chained {
            printed,
            update,
            ended: Some(ended),
        })
    }

    /// Whether the job is to start here.
    fn accepts(&self) -> bool {
        let status = self.update.eval_int("HookStatusCode");
        self.ended.is_none_or(|ended| ended.success()) && status.is_none_or(|code| code == 0)
    }

    fn code(&self) -> ExitCode {
        let code = self.ended.map_or(Some(0), |ended| ended.code());
        u8::try_from(code.unwrap_or(1)).unwrap_or(1).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ad(text: &str) -> ClassAd {
        ClassAd::parse_old(text).unwrap()
    }

    #[test]
    fn arguments_of_either_notation_follow_the_supervisors() {
        assert_eq!(arguments(&ad("Arguments = \"a 'b c'\"")), "a 'b c'");
        assert_eq!(arguments(&ad("Args = \"a  it's\"")), "a 'it''s'");
        assert_eq!(arguments(&ad("X = 1")), "");
    }

    #[test]
    fn the_program_is_found_where_the_starter_has_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let program = |text: &str| program(&ad(text), dir.path()).unwrap();
        let error = super::program(&ad("Cmd = \"/home/a/sim\""), dir.path()).unwrap_err();
        assert!(error.to_string().contains("sim is not in the scratch"));
        fs::write(dir.path().join("condor_exec.exe"), "").unwrap();
        assert_eq!(
            program("Cmd = \"/home/a/sim\"").unwrap(),
            "./condor_exec.exe"
        );
        fs::write(dir.path().join("sim"), "").unwrap();
        assert_eq!(program("Cmd = \"/home/a/sim\"").unwrap(), "./sim");
        let there = "TransferExecutable = false\nCmd = \"/usr/bin/python3\"";
        assert_eq!(program(there).unwrap(), "/usr/bin/python3");
        let relative = "TransferExecutable = false\nCmd = \"bin/sim\"";
        assert_eq!(program(relative).unwrap(), "./bin/sim");
        let kept = format!("{relative}\nPreserveRelativeExecutable = true");
        assert_eq!(program(&kept).unwrap(), "bin/sim");
        assert_eq!(program("Cmd = \"/home/a/criu-starter\""), None);
    }

    #[test]
    fn a_job_whose_image_could_not_leave_is_told_so() {
        let text = "JobUniverse = 5\nWhenToTransferOutput = \"ON_EXIT\"";
        let error = rewritten(&ad(text)).unwrap_err();
        assert!(error.to_string().contains("ON_EXIT_OR_EVICT"), "{error}");
    }
}
