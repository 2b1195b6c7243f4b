//! The protocol by which CRIU hands its images out and takes them in (`--stream`): one socket, a pipe for each image.
//!
//! ```text
//! dump      CRIU connects to streamer-capture.sock in the images' directory
//!           { length, name } · the pipe's end to read from           ... for each image, several open at a time
//! restore   CRIU connects to streamer-serve.sock
//!           { length, name } <- { length, exists } · the pipe's end to write to
//! ```
//!
//! Names come from a process that we started, but it has read memory of the job's: they are held to what CRIU uses.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::ImageDir;
use super::wire::{Value, field};

pub(super) const CAPTURE: &str = "streamer-capture.sock";
pub(super) const SERVE: &str = "streamer-serve.sock";

/// The longest request: CRIU's names are a word and a number or two.
const LIMIT: u32 = 256;

/// img_streamer_request_entry.filename
const NAME: u64 = 1;

/// What a pipe of memory holds at most: the most that the kernel gives an ordinary user.
const PIPE: i32 = 1 << 20;

/// Images of pages, and of files that have no name any more: as large as the job likes.
pub(crate) fn is_large(name: &[u8]) -> bool {
    name.starts_with(b"pages-") || name.starts_with(b"ghost-file-")
}

/// Listens for a CRIU that is about to start.
pub(super) fn listen(images: &ImageDir, name: &str) -> io::Result<UnixListener> {
    let path = images.file(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// CRIU at the other end.
pub(super) struct Line(UnixStream);

impl Line {
    pub(super) fn new(stream: UnixStream) -> Line {
        Line(stream)
    }

    /// The name of the next image; none when CRIU has hung up.
    pub(super) fn request(&mut self) -> io::Result<Option<String>> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let length = u32::from_le_bytes(length);
        if length > LIMIT {
            return Err(odd("too long a request"));
        }
        let mut message = vec![0; length as usize];
        self.0.read_exact(&mut message)?;
        let Ok(Some(Value::Bytes(name))) = field(&message, NAME) else {
            return Err(odd("a request without a name"));
        };
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if name.is_empty() || name.starts_with(b".") || !name.iter().all(plain) {
            return Err(odd("a name that no image has"));
        }
        Ok(Some(String::from_utf8_lossy(name).into_owned()))
    }

    /// Whether the image that was asked for is there.
    pub(super) fn answer(&mut self, exists: bool) -> io::Result<()> {
        // img_streamer_reply_entry.exists
        self.0.write_all(&[2, 0, 0, 0, 0x08, u8::from(exists)])
    }

    /// The pipe for the image that was asked for.
    pub(super) fn pipe(&mut self) -> io::Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut into = [IoSliceMut::new(&mut byte)];
        recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let pipe = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        pipe.ok_or_else(|| odd("no pipe for an image"))
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// More in a pipe at a time is fewer changes between CRIU and us. It works with less.
pub(super) fn widen(pipe: &OwnedFd) {
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE));
}

fn odd(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(bytes: &[u8]) -> io::Result<Option<String>> {
        let (mut criu, ours) = UnixStream::pair().unwrap();
        criu.write_all(bytes).unwrap();
        drop(criu);
        Line::new(ours).request()
    }

    fn request(name: &str) -> Vec<u8> {
        let mut bytes = vec![name.len() as u8 + 2, 0, 0, 0, 0x0a, name.len() as u8];
        bytes.extend(name.as_bytes());
        bytes
    }

    #[test]
    fn names_of_images_are_taken_and_no_others() {
        let name = asked(&request("pages-1.img")).unwrap();
        assert_eq!(name.as_deref(), Some("pages-1.img"));
        assert!(asked(b"").unwrap().is_none());
        for name in ["", "../x", ".hidden", "a/b", "a\0b"] {
            assert!(asked(&request(name)).is_err(), "{name:?}");
        }
        assert!(asked(&[0xff; 8]).is_err());
        assert!(asked(&request("pages-1.img")[..9]).is_err());
    }

    #[test]
    fn only_what_grows_with_the_job_is_large() {
        assert!(is_large(b"pages-17.img") && is_large(b"ghost-file-3.img"));
        assert!(!is_large(b"pagemap-2.img") && !is_large(b"core-2.img"));
    }
}
