//! Bytes into a pipe without a copy: until they are read it refers to our buffers, which nobody may write to before.
//!
//! What a pipe holds at most is known: of all that was put into it, what came before the last so many bytes is read. Asking the
//! pipe itself means to spin for its lock, under which the reader copies all that there is.

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
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, vmsplice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::ioctl_fionread;

/// How often the pipe is asked in the end whether it is empty.
const PAUSE: Duration = Duration::from_micros(500);

/// A pipe and what it refers to.
pub(super) struct Spliced {
    pipe: File,
    /// The most bytes that it can have.
    room: u64,
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
    pub(super) fn into(pipe: OwnedFd) -> io::Result<Spliced> {
        let room = fcntl(&pipe, FcntlArg::F_GETPIPE_SZ)?;
        Ok(Spliced {
            pipe: File::from(pipe),
            room: room as u64,
            lent: Mutex::default(),
        })
    }

    fn put(&self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            match vmsplice(&self.pipe, &[IoSlice::new(bytes)], SpliceFFlags::empty()) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EINTR) => {}
                // Some sandboxes do not know it.
                Err(Errno::ENOSYS | Errno::EPERM) => return (&self.pipe).write_all(bytes),
                Err(errno) => return Err(errno.into()),
            }
            if bytes.is_empty() {
                return Ok(());
            }
            // It is full now. Asleep until its reader has taken what there is: the next call would spin for its lock.
            let mut pipe = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut pipe, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits until it is empty, or nobody is left to read it.
    fn wait_read(&self) -> io::Result<()> {
        while ioctl_fionread(&self.pipe)? > 0 {
            let mut pipe = [PollFd::new(self.pipe.as_fd(), PollFlags::empty())];
            poll(&mut pipe, PollTimeout::ZERO)?;
            if pipe[0].any().unwrap_or(false) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
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
        let read = put.saturating_sub(self.room);
        if lent.buffers.front().is_none_or(|(end, _)| *end > read) {
            return Ok(Vec::new());
        }
        let free = lent.buffers.pop_front();
        Ok(free.map_or_else(Vec::new, |(_, buffer)| buffer))
    }
}

impl Drop for Spliced {
    fn drop(&mut self) {
        // Nobody reads what is left if this fails.
        let _ = self.wait_read();
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
            let pipe = Spliced::into(writer.into()).unwrap();
            let mut buffer = Vec::new();
            for number in 0..40_u8 {
                buffer.clear();
                buffer.resize(300_000 + usize::from(number), number);
                buffer = pipe.take(buffer, 7..300_000).unwrap();
                assert!(pipe.lent.lock().unwrap().buffers.len() <= 3);
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
            let pipe = Spliced::into(writer.into()).unwrap();
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
