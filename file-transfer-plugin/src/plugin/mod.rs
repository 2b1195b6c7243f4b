//! HTCondor's file-transfer plugin: `criu-transfer -infile F -outfile F [-upload]` and `-classad`.
//!
//! ```text
//!   -classad   -> query      what this is, one attribute per line, nothing else, no log
//!   -infile    -> request    ads: from where, to where
//!              -> Lane       an archive goes to its store, or comes from there
//!   -outfile   <- ledger     one ad for each file, at every moment, whatever ends this process
//!   exit code  <- ledger     0 all done; 11 each failure may pass; 1 one does not; 3 HTCondor cannot be told
//! ```
//!
//! The starter runs it as the job's user, outside of any container, and keeps at most the last 16 KB of what it prints. There
//! is no second try by HTCondor: a failed upload is a held job, so all patience is here.

mod lane;
mod ledger;
mod query;
mod request;
mod result;

use std::ffi::OsString;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

#[cfg(feature = "cli")]
pub(crate) use self::lane::PATIENCE;
pub use self::lane::Store;
use self::ledger::Ledger;
pub use self::request::{BadRequest, Request, parse};
use crate::remote::{Error, Moved};

/// The exit codes of the plugin, as HTCondor and Pelican use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// All files got there.
    Done = 0,
    /// One did not, and would not the next time.
    Failed = 1,
    /// The results could not be written.
    Unreported = 3,
    /// Some did not, but each of them may the next time.
    Again = 11,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the store to here.
    Download,
    /// From here to the store.
    Upload,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Direction::Download => "download",
            Direction::Upload => "upload",
        }
    }
}

/// Whoever moves files.
pub trait Lane: Sync {
    /// Moves one file.
    fn carry(&self, request: &Request, direction: Direction) -> Result<Moved, Error>;
}

/// Whether the arguments are those of HTCondor.
pub fn is_meant(arguments: &[OsString]) -> bool {
    const OPTIONS: [&str; 4] = ["-classad", "-infile", "-outfile", "-upload"];
    arguments
        .first()
        .is_some_and(|first| OPTIONS.iter().any(|option| first == option))
}

struct Order {
    infile: PathBuf,
    outfile: PathBuf,
    direction: Direction,
}

fn order(arguments: &[OsString]) -> Option<Order> {
    let (mut infile, mut outfile, mut direction) = (None, None, Direction::Download);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("-infile") => infile = Some(PathBuf::from(rest.next()?)),
            Some("-outfile") => outfile = Some(PathBuf::from(rest.next()?)),
            Some("-upload") => direction = Direction::Upload,
            // What later versions may add must not stop a transfer.
            _ => tracing::warn!("no such option: {argument:?}"),
        }
    }
    Some(Order {
        infile: infile?,
        outfile: outfile?,
        direction,
    })
}

/// Answers `-classad`. Whatever is printed beside the ad would make HTCondor drop the plugin.
pub fn describe(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(query::ad().to_old().as_bytes())?;
    out.flush()
}

/// Does what HTCondor's arguments say.
pub fn run(arguments: &[OsString], lane: &dyn Lane) -> Code {
    let Some(order) = order(arguments) else {
        tracing::error!("usage: criu-transfer -infile FILE -outfile FILE [-upload]");
        return Code::Failed;
    };
    let requests = match request::read(&order.infile) {
        Ok(requests) => requests,
        Err(error) => {
            tracing::error!("{}", result::chain(&error));
            return unasked(&order.outfile, &error);
        }
    };
    let ledger = match Ledger::open(&order.outfile, &requests, order.direction) {
        Ok(ledger) => Arc::new(ledger),
        Err(error) => return unreported(&order.outfile, &error),
    };
    if let Err(error) = end_on_signals(&ledger, &order.outfile) {
        // Then a signal ends us as it is: the ledger says already what it has to.
        tracing::warn!("signals are not waited for: {error}");
    }
    for (index, request) in requests.iter().enumerate() {
        ledger.begin(index);
        let moved = catch_unwind(AssertUnwindSafe(|| lane.carry(request, order.direction)))
            .unwrap_or_else(|panic| Err(Error::Parameter(mistake(panic.as_ref()))));
        match &moved {
            Ok(moved) => tracing::info!(
                direction = order.direction.name(),
                file = %request.file.display(),
                bytes = moved.file_bytes,
                sent = moved.sent_bytes,
                seconds = moved.seconds,
                "carried"
            ),
            Err(error) => tracing::error!("{}: {}", request.url, result::chain(error)),
        }
        if let Err(error) = ledger.end(index, &moved) {
            return unreported(&order.outfile, &error);
        }
    }
    ledger
        .close()
        .unwrap_or_else(|error| unreported(&order.outfile, &error))
}

/// Nobody knows what was asked for; HTCondor would still rather read why than that there is nothing to read.
fn unasked(outfile: &Path, why: &BadRequest) -> Code {
    let nobody = Request {
        url: String::new(),
        file: PathBuf::new(),
    };
    let failure = Err(Error::Parameter(result::chain(why)));
    let told = Ledger::open(outfile, &[nobody], Direction::Download)
        .and_then(|ledger| ledger.end(0, &failure).and_then(|()| ledger.close()));
    told.unwrap_or_else(|error| unreported(outfile, &error))
}

fn unreported(outfile: &Path, error: &io::Error) -> Code {
    tracing::error!("cannot write the results to {}: {error}", outfile.display());
    Code::Unreported
}

fn mistake(panic: &(dyn std::any::Any + Send)) -> String {
    let what = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!(
        "a mistake in criu-transfer: {}",
        what.unwrap_or("it panicked")
    )
}

/// SIGTERM and its like end the process with results written.
fn end_on_signals(ledger: &Arc<Ledger>, outfile: &Path) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut term, mut int, mut hup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        )
    };
    let (ledger, outfile) = (Arc::clone(ledger), outfile.to_owned());
    let wait = move || {
        runtime.block_on(async {
            std::future::poll_fn(|context| {
                let any = [&mut term, &mut int, &mut hup]
                    .into_iter()
                    .any(|signal| signal.poll_recv(context).is_ready());
                if any {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
        });
        let code = ledger
            .close()
            .unwrap_or_else(|error| unreported(&outfile, &error));
        // Said "stopped" of what is not done; were it all done, this is as good an end as the other.
        std::process::exit(i32::from(code as u8));
    };
    // Nobody waits for it: it ends with the process.
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use classad::ClassAd;

    /// Carries what its URL says.
    struct Script;

    impl Lane for Script {
        fn carry(&self, request: &Request, _: Direction) -> Result<Moved, Error> {
            match request.url.rsplit('/').next() {
                Some("panics") => panic!("a hole in the floor"),
                Some("fails") => Err(Error::Parameter("never".into())),
                Some("stalls") => Err(Error::Stopped),
                _ => Ok(Moved::default()),
            }
        }
    }

    fn ask(words: &[&str]) -> (Code, Vec<ClassAd>) {
        let dir = tempfile::tempdir().unwrap();
        let (infile, outfile) = (dir.path().join("in"), dir.path().join("out"));
        let ads: String = words
            .iter()
            .map(|word| format!("[ Url = \"criu://h/{word}\"; LocalFileName = \"/x/{word}\" ]\n"))
            .collect();
        std::fs::write(&infile, ads).unwrap();
        std::fs::write(&outfile, " ".repeat(1000)).unwrap();
        let arguments = ["-infile".into(), infile.into()].into_iter();
        let arguments = arguments.chain(["-outfile".into(), outfile.clone().into()]);
        let code = run(&arguments.collect::<Vec<_>>(), &Script);
        let results = ClassAd::parse_all(&std::fs::read(outfile).unwrap()).unwrap();
        (code, results)
    }

    #[test]
    fn a_panic_is_a_result_like_others_and_the_rest_is_carried() {
        let (code, results) = ask(&["panics", "fine"]);
        assert_eq!((code, results.len()), (Code::Failed, 2));
        let said = results[0].eval_str("TransferError").unwrap();
        assert!(said.contains("a hole in the floor"), "{said}");
        assert_eq!(results[1].eval_bool("TransferSuccess"), Some(true));
    }

    #[test]
    fn the_code_says_again_only_if_every_failure_may_pass() {
        assert_eq!(ask(&["fine", "fine"]).0, Code::Done);
        assert_eq!(ask(&["fine", "stalls"]).0, Code::Again);
        assert_eq!(ask(&["fails", "stalls"]).0, Code::Failed);
    }

    #[test]
    fn results_that_cannot_be_written_have_their_own_code() {
        let dir = tempfile::tempdir().unwrap();
        let infile = dir.path().join("in");
        std::fs::write(&infile, "[ Url = \"criu://h/x\"; LocalFileName = \"/x\" ]").unwrap();
        let outfile = dir.path().join("no/such/directory");
        let arguments = ["-infile".into(), infile.into()].into_iter();
        let arguments = arguments.chain(["-outfile".into(), outfile.into()]);
        let code = run(&arguments.collect::<Vec<_>>(), &Script);
        assert_eq!(code, Code::Unreported);
    }

    #[test]
    fn an_input_file_that_is_no_ads_is_a_result_too() {
        let dir = tempfile::tempdir().unwrap();
        let (infile, outfile) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::write(&infile, "<html>").unwrap();
        let arguments = ["-infile".into(), infile.into()].into_iter();
        let arguments = arguments.chain(["-outfile".into(), outfile.clone().into()]);
        let code = run(&arguments.collect::<Vec<_>>(), &Script);
        let results = ClassAd::parse_all(&std::fs::read(outfile).unwrap()).unwrap();
        assert_eq!((code, results.len()), (Code::Failed, 1));
    }
}
