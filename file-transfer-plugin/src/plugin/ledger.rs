//! The output file: at every moment one result ad for each file that was asked for.
//!
//! It is written before the first file moves, saying of each that it did not get there, and again after each. So whatever
//! ends this process, a panic or SIGKILL, HTCondor finds an ad for every file and none that claims too much.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use classad::ClassAd;

use super::Code;
use super::Direction;
use super::request::Request;
use super::result::Transfer;
use crate::remote::{Error, Moved};
use crate::workers::lock;

pub(super) struct Ledger {
    file: File,
    direction: Direction,
    state: Mutex<State>,
}

struct State {
    lines: Vec<Line>,
    /// Bytes that HTCondor, or we, have put there.
    length: u64,
    /// What the process ends with, once that is decided.
    closed: Option<Code>,
}

struct Line {
    request: Request,
    transfer: Option<Transfer>,
    /// The ad, and the code that this file alone would end with.
    done: Option<(ClassAd, Code)>,
}

impl Ledger {
    /// Opens the output file, without cutting it: HTCondor has filled it with blanks, so that there is room for results on a
    /// disk that a download has filled.
    pub(super) fn open(
        path: &Path,
        requests: &[Request],
        direction: Direction,
    ) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let length = file.metadata()?.len();
        let line = |request: &Request| Line {
            request: request.clone(),
            transfer: None,
            done: None,
        };
        let lines = requests.iter().map(line).collect();
        let ledger = Self {
            file,
            direction,
            state: Mutex::new(State {
                lines,
                length,
                closed: None,
            }),
        };
        ledger.write(&mut lock(&ledger.state), false)?;
        Ok(ledger)
    }

    /// File `index` is being worked on from here.
    pub(super) fn begin(&self, index: usize) {
        let line = &mut lock(&self.state).lines[index];
        line.transfer = Some(Transfer::begin(&line.request, self.direction));
    }

    /// File `index` is done with.
    pub(super) fn end(&self, index: usize, moved: &Result<Moved, Error>) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.closed.is_some() {
            return Ok(());
        }
        let line = &mut state.lines[index];
        let transfer = line
            .transfer
            .take()
            .unwrap_or_else(|| Transfer::begin(&line.request, self.direction));
        line.done = Some(match moved {
            Ok(moved) => (transfer.success(moved), Code::Done),
            Err(error) => (transfer.failure(error), code(error)),
        });
        self.write(&mut state, false)
    }

    /// No more will be done: what is not done by now was stopped. The code for the process; whoever comes second, of the work
    /// and a signal, gets the same one.
    pub(super) fn close(&self) -> io::Result<Code> {
        let mut state = lock(&self.state);
        if let Some(code) = state.closed {
            return Ok(code);
        }
        self.write(&mut state, true)?;
        let stopped = code(&Error::Stopped);
        let codes = state.lines.iter().map(|line| match &line.done {
            Some((_, code)) => *code,
            None => stopped,
        });
        // Again only makes sense when nothing is in the way for good.
        let worst = |worst: Code, code: Code| match (worst, code) {
            (Code::Failed, _) | (_, Code::Failed) => Code::Failed,
            (Code::Again, _) | (_, Code::Again) => Code::Again,
            _ => Code::Done,
        };
        let code = codes.fold(Code::Done, worst);
        state.closed = Some(code);
        Ok(code)
    }

    fn write(&self, state: &mut State, last: bool) -> io::Result<()> {
        let mut text = Vec::new();
        for line in &state.lines {
            let ad = match &line.done {
                Some((ad, _)) => ad.clone(),
                None => {
                    let fresh;
                    let transfer = match &line.transfer {
                        Some(transfer) => transfer,
                        None => {
                            fresh = Transfer::begin(&line.request, self.direction);
                            &fresh
                        }
                    };
                    transfer.failure(&Error::Stopped)
                }
            };
            text.extend(ad.to_string().into_bytes());
            text.push(b'\n');
        }
        let length = text.len() as u64;
        if !last && length < state.length {
            text.resize(state.length as usize, b' ');
        }
        self.file.write_all_at(&text, 0)?;
        state.length = state.length.max(length);
        if last {
            self.file.set_len(length)?;
        }
        Ok(())
    }
}

fn code(error: &Error) -> Code {
    if error.is_transient() {
        Code::Again
    } else {
        Code::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        ["a", "b"]
            .map(|name| Request {
                url: format!("criu://h/{name}"),
                file: name.into(),
            })
            .into()
    }

    fn ads(path: &Path) -> Vec<ClassAd> {
        ClassAd::parse_all(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn there_is_an_ad_for_each_file_from_the_first_moment_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, " ".repeat(19_264)).unwrap();
        let ledger = Ledger::open(&path, &requests(), Direction::Upload).unwrap();
        let success = || -> Vec<_> {
            ads(&path)
                .iter()
                .map(|ad| ad.eval_bool("TransferSuccess").unwrap())
                .collect()
        };
        assert_eq!(success(), [false, false]);
        // The room that HTCondor made is kept while more may have to be said.
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 19_264);
        ledger.begin(1);
        ledger.end(1, &Ok(Moved::default())).unwrap();
        assert_eq!(success(), [false, true]);
        assert_eq!(ledger.close().unwrap(), Code::Again);
        assert_eq!(success(), [false, true]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("]\n"), "{text:?}");
    }

    #[test]
    fn one_error_for_good_makes_it_useless_to_try_again() {
        let dir = tempfile::tempdir().unwrap();
        let ledger =
            Ledger::open(&dir.path().join("out"), &requests(), Direction::Download).unwrap();
        ledger.end(0, &Err(Error::Stopped)).unwrap();
        ledger
            .end(1, &Err(Error::Parameter("no such URL".into())))
            .unwrap();
        assert_eq!(ledger.close().unwrap(), Code::Failed);
    }

    #[test]
    fn results_longer_than_the_room_are_written_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, "    ").unwrap();
        let ledger = Ledger::open(&path, &requests(), Direction::Upload).unwrap();
        ledger.close().unwrap();
        assert_eq!(ads(&path).len(), 2);
    }
}
