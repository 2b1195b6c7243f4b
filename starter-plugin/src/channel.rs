//! The line between the outer supervisor and pid 1: one JSON value a packet.
//!
//! A packet socket keeps the values apart and says end of file when the other
//! side dies, which is how each learns of it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use nix::unistd::read;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Orders and events are a few hundred bytes; CRIU's sentence the longest.
const LIMIT: usize = 64 << 10;

/// One end.
pub(crate) struct Channel(OwnedFd);

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Channel {
        Channel(socket)
    }
}

impl Channel {
    pub(crate) fn pair() -> nix::Result<(Channel, Channel)> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Channel(ours), Channel(theirs)))
    }

    pub(crate) fn send<T: Serialize>(&self, value: &T) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(value)?;
        // A dead peer is an error to return, not a SIGPIPE to die of.
        send(self.0.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)
            .context("the other supervisor process is gone")?;
        Ok(())
    }

    pub(crate) fn receive<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let mut buffer = vec![0; LIMIT];
        let length = loop {
            match read(&self.0, &mut buffer) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        if length == 0 {
            bail!("the other supervisor process is gone");
        }
        Ok(serde_json::from_slice(&buffer[..length])?)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
