//! A wire to a server that can be cut, or stop carrying without anybody noticing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What each connection through the wire comes to.
#[derive(Clone, Copy)]
pub(crate) enum Fate {
    /// It carries everything.
    Good,
    /// It is cut after so many bytes to the server.
    Cut(u64),
    /// After so many bytes to the server it carries nothing any more, and is open all the same.
    Silent(u64),
}

pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicU64>,
}

impl Wire {
    /// Connections have these fates in turn, all after them the last one.
    pub(crate) fn to(server: SocketAddr, fates: &'static [Fate]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        thread::spawn(move || {
            for client in listener.incoming() {
                let number = count.fetch_add(1, Ordering::Relaxed) as usize;
                let fate = fates[number.min(fates.len() - 1)];
                // The server may be down: then the client sees its connection end.
                if let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) {
                    carry(client, server, fate);
                }
            }
        });
        Self {
            address,
            connections,
        }
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

fn carry(client: TcpStream, server: TcpStream, fate: Fate) {
    let dead = Arc::new(AtomicBool::new(false));
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (mut back_from, mut back_to) = (server, client);
    let is_dead = Arc::clone(&dead);
    thread::spawn(move || {
        let mut left = match fate {
            Fate::Good => u64::MAX,
            Fate::Cut(bytes) | Fate::Silent(bytes) => bytes,
        };
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let some = left.min(read as u64);
            if to.write_all(&buffer[..some as usize]).is_err() {
                break;
            }
            left -= some;
            if left == 0 && matches!(fate, Fate::Cut(_)) {
                break;
            }
            if left == 0 {
                dead.store(true, Ordering::Relaxed);
                // Open until the client gives it up.
                while !is_closed(&from) {
                    thread::sleep(Duration::from_millis(20));
                }
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = back_from.read(&mut buffer) {
            if is_dead.load(Ordering::Relaxed) || back_to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
    });
}

/// Whether the other end is gone. What it has sent stays where it is.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buffer = [0; 1 << 16];
    // Whatever comes is not carried; the end comes after it.
    let closed = matches!((&*stream).read(&mut buffer), Ok(0));
    stream.set_nonblocking(false).unwrap();
    closed
}
