//! Bytes into a pipe without a copy: until they are read it refers to our buffers, which nobody may write to before.
//!
//! How much of what was put into it is still there the pipe says itself, so that it is known which buffers are free again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use file_transfer_plugin::unpack::Take;
use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, vmsplice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::ioctl_fionread;

/// Buffers that may wait for the reader. A pipe holds about one of them.
const MOST: usize = 3;

/// How often the pipe is asked when the reader is behind. A buffer is read in a millisecond.
const PAUSE: Duration = Duration::from_micros(100);

/// A pipe and what it refers to.
pub(super) struct Spliced {
    pipe: File,
    lent: Mutex<Lent>,
}

#[derive(Default)]
struct Lent {
    /// Bytes that were put in, from the beginning on.
    put: u64,
    /// Each with the number of bytes up to its end.
    buffers: VecDeque<(u64, Vec<u8>)>,
}

impl Spliced {
    pub(super) fn into(pipe: OwnedFd) -> Spliced {
        Spliced {
            pipe: File::from(pipe),
            lent: Mutex::default(),
        }
    }

    fn put(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match vmsplice(&self.pipe, &[IoSlice::new(bytes)], SpliceFFlags::empty()) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EINTR) => {}
                // Some sandboxes do not know it.
                Err(Errno::ENOSYS | Errno::EPERM) => return (&self.pipe).write_all(bytes),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Waits until the first `end` bytes are read, or nobody is left to read them.
    fn wait_read(&self, put: u64, end: u64) -> io::Result<()> {
        loop {
            if put - ioctl_fionread(&self.pipe)? >= end {
                return Ok(());
            }
            let mut pipe = [PollFd::new(self.pipe.as_fd(), PollFlags::empty())];
            poll(&mut pipe, PollTimeout::ZERO)?;
            if pipe[0].any().unwrap_or(false) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Take for Spliced {
    fn take(&self, buffer: Vec<u8>, part: Range<usize>) -> io::Result<Vec<u8>> {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.put += part.len() as u64;
        let put = lent.put;
        // Lent before the pipe can refer to it, and also if it fails half-way.
        lent.buffers.push_back((put, buffer));
        let (_, buffer) = lent.buffers.back().expect("it was put there");
        self.put(&buffer[part])?;
        let &(end, _) = lent.buffers.front().expect("there is at least that one");
        if lent.buffers.len() < MOST && put - ioctl_fionread(&self.pipe)? < end {
            return Ok(Vec::new());
        }
        self.wait_read(put, end)?;
        let first = lent.buffers.pop_front();
        Ok(first.map_or_else(Vec::new, |(_, buffer)| buffer))
    }
}

impl Drop for Spliced {
    fn drop(&mut self) {
        let lent = self.lent.get_mut().unwrap_or_else(PoisonError::into_inner);
        let put = lent.put;
        // Nobody reads what is left if this fails.
        let _ = self.wait_read(put, put);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_slow_reader_gets_every_byte_as_it_was_though_the_buffers_are_used_again() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sent = thread::spawn(move || {
            let pipe = Spliced::into(writer.into());
            let mut buffer = Vec::new();
            for number in 0..40_u8 {
                buffer.clear();
                buffer.resize(300_000 + usize::from(number), number);
                buffer = pipe.take(buffer, 7..300_000).unwrap();
                assert!(pipe.lent.lock().unwrap().buffers.len() <= MOST);
            }
        });
        let mut part = vec![0; 300_000 - 7];
        for number in 0..40 {
            reader.read_exact(&mut part).unwrap();
            assert!(part.iter().all(|byte| *byte == number), "{number}");
        }
        assert_eq!(reader.read(&mut part).unwrap(), 0);
        sent.join().unwrap();
    }

    #[test]
    fn a_reader_that_leaves_is_a_broken_pipe_and_holds_nobody_up() {
        let (reader, writer) = io::pipe().unwrap();
        let ((put, is_put), (left, told)) = (channel(), channel());
        let sent = thread::spawn(move || {
            let pipe = Spliced::into(writer.into());
            pipe.take(vec![1; 4096], 0..4096).unwrap();
            put.send(()).unwrap();
            told.recv().unwrap();
            pipe.take(vec![1; 4096], 0..4096).unwrap_err().kind()
        });
        is_put.recv().unwrap();
        drop(reader);
        left.send(()).unwrap();
        assert_eq!(sent.join().unwrap(), io::ErrorKind::BrokenPipe);
    }
}
