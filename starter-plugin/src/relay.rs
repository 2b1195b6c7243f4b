//! The job's standard output and error, handed on once each and in order.
//!
//! The job writes into two files of its sandbox, which CRIU can restore and which
//! travel in the image. We copy what appears there to what the starter gave us.
//! How far we came is the manifest's to remember. A regular file that the starter
//! gave us may be shorter, being truncated: then it is filled again. Or longer,
//! where the job ran on after its image and that work was lost: then it is cut
//! back to what the image knows of, for the job says the rest once more, and
//! perhaps in other words.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::SystemTime;

/// A copy at a time; the rest waits for the next turn, so that signals do not.
const TURN: u64 = 1 << 20;

/// One stream.
pub(crate) struct Relay {
    from: File,
    to: File,
    done: u64,
    ours_alone: bool,
}

impl Relay {
    /// Relays `path`, of which `done` bytes were handed on before; where `to` is a
    /// file that holds this stream and nothing else, it is made to have no more.
    pub(crate) fn new(
        path: &Path,
        to: impl AsFd,
        done: u64,
        ours_alone: bool,
    ) -> io::Result<Relay> {
        let mut to = File::from(to.as_fd().try_clone_to_owned()?);
        let mut done = done;
        if to.metadata()?.is_file() {
            if ours_alone {
                done = done.min(to.metadata()?.len());
                to.set_len(done)?;
            }
            to.seek(SeekFrom::End(0))?;
        }
        let from = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .open(path)?;
        Ok(Relay {
            from,
            to,
            done,
            ours_alone,
        })
    }

    /// The job begins from its beginning, and so does a file that is its alone.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        if self.done > 0 && self.to.metadata()?.is_file() {
            self.to.set_len(0)?;
            self.to.seek(SeekFrom::Start(0))?;
        }
        self.done = 0;
        Ok(())
    }

    /// Hands on what is new; true when there may be more.
    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        let length = self.from.metadata()?.len();
        if length <= self.done {
            return Ok(false);
        }
        let count = (length - self.done).min(TURN);
        self.from.seek(SeekFrom::Start(self.done))?;
        let copied = io::copy(&mut (&mut self.from).take(count), &mut self.to)?;
        self.to.flush()?;
        self.done += copied;
        Ok(copied > 0 && self.done < length)
    }

    /// Hands on all that is there.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        while self.turn()? {}
        // HTCondor sends home what has changed here: an output that came from SPOOL and got
        // nothing more would be missed. A person's file may be somebody else's, and is sent by nobody.
        if self.ours_alone && self.to.metadata()?.is_file() {
            self.to.set_modified(SystemTime::now())?;
        }
        Ok(())
    }

    /// Bytes handed on in the job's life.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn appended(path: &Path) -> File {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap()
    }

    #[test]
    fn a_file_that_came_back_longer_than_the_image_gets_no_line_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, outer) = (dir.path().join("in"), dir.path().join("out"));
        fs::write(&inner, "1\n2\n").unwrap();
        fs::write(&outer, "1\n2\n3, of a time that is lost\n").unwrap();
        let mut relay = Relay::new(&inner, appended(&outer), 4, true).unwrap();
        relay.finish().unwrap();
        assert_eq!(fs::read_to_string(&outer).unwrap(), "1\n2\n");
        fs::write(&inner, "1\n2\n3\n").unwrap();
        relay.finish().unwrap();
        assert_eq!(fs::read_to_string(&outer).unwrap(), "1\n2\n3\n");
    }

    #[test]
    fn a_truncated_file_is_filled_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, outer) = (dir.path().join("in"), dir.path().join("out"));
        fs::write(&inner, "1\n2\n").unwrap();
        let mut relay = Relay::new(&inner, appended(&outer), 4, true).unwrap();
        relay.finish().unwrap();
        assert_eq!(fs::read_to_string(&outer).unwrap(), "1\n2\n");
    }

    #[test]
    fn by_hand_what_the_file_held_before_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, outer) = (dir.path().join("in"), dir.path().join("out"));
        fs::write(&inner, "1\n").unwrap();
        fs::write(&outer, "a long diary\n").unwrap();
        let mut relay = Relay::new(&inner, appended(&outer), 0, false).unwrap();
        relay.finish().unwrap();
        assert_eq!(fs::read_to_string(&outer).unwrap(), "a long diary\n1\n");
    }

    #[test]
    fn a_pipe_gets_only_what_it_has_not_had() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("in");
        fs::write(&inner, "old\nnew\n").unwrap();
        let (mut read, write) = io::pipe().unwrap();
        let mut relay = Relay::new(&inner, &write, 4, true).unwrap();
        relay.finish().unwrap();
        drop((relay, write));
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "new\n");
    }
}
