//! Sockets, inside the job and to the outside.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Program, freeze};

pub(super) const PROGRAMS: &[(&str, Program)] = &[
    ("unix-pair", unix_pair),
    ("unix-named", unix_named),
    ("unix-datagrams", unix_datagrams),
    ("tcp-listener", tcp_listener),
    ("tcp-pair", tcp_pair),
    ("tcp-outside", tcp_outside),
    ("udp", udp),
];

fn expect(from: &mut impl Read, text: &str) -> Result<()> {
    let mut bytes = vec![0; text.len()];
    from.read_exact(&mut bytes)?;
    ensure!(bytes == text.as_bytes(), "{text:?} is expected");
    Ok(())
}

/// A stream pair with bytes under way in both directions.
fn unix_pair() -> Result<()> {
    let (mut left, mut right) = UnixStream::pair()?;
    left.write_all(b"to the right")?;
    right.write_all(b"to the left")?;
    freeze()?;
    left.write_all(b" and more")?;
    expect(&mut right, "to the right and more")?;
    expect(&mut left, "to the left")
}

/// Listeners with a path and with an abstract name, one with a connection that waits.
fn unix_named() -> Result<()> {
    let path = UnixListener::bind("socket")?;
    let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name("specimen")?)?;
    let mut client = UnixStream::connect("socket")?;
    let (mut server, _) = path.accept()?;
    client.write_all(b"before")?;
    freeze()?;
    expect(&mut server, "before")?;
    for (listener, mut client) in [
        (&path, UnixStream::connect("socket")?),
        (
            &hidden,
            UnixStream::connect_addr(&SocketAddr::from_abstract_name("specimen")?)?,
        ),
    ] {
        client.write_all(b"after")?;
        expect(&mut listener.accept()?.0, "after")?;
    }
    Ok(())
}

/// Datagrams keep their borders.
fn unix_datagrams() -> Result<()> {
    let (left, right) = UnixDatagram::pair()?;
    let named = UnixDatagram::bind("datagrams")?;
    left.send(b"one")?;
    left.send(b"and two")?;
    left.send_to(b"named", "datagrams")
        .or_else(|_| UnixDatagram::unbound()?.send_to(b"named", "datagrams"))?;
    freeze()?;
    let mut buffer = [0; 64];
    for (socket, text) in [
        (&right, &b"one"[..]),
        (&right, b"and two"),
        (&named, b"named"),
    ] {
        let length = socket.recv(&mut buffer)?;
        ensure!(&buffer[..length] == text, "{:?}", &buffer[..length]);
    }
    Ok(())
}

/// A listener goes on listening; what it had accepted is closed.
fn tcp_listener() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    freeze()?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    client.write_all(b"after")?;
    expect(&mut listener.accept()?.0, "after")
}

/// Both ends of a connection are the job's.
fn tcp_pair() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(b"before")?;
    expect(&mut server, "before")?;
    freeze()?;
    closed(&mut client).context("the client's end")?;
    closed(&mut server).context("the server's end")?;
    let mut again = TcpStream::connect(listener.local_addr()?)?;
    again.write_all(b"after")?;
    expect(&mut listener.accept()?.0, "after")
}

/// A connection to a server that is no part of the job: closed, and made again.
fn tcp_outside() -> Result<()> {
    let server = std::env::var("SERVER").context("SERVER is not set")?;
    let hello = |stream: &mut TcpStream| -> Result<()> {
        stream.write_all(b"hello")?;
        expect(stream, "hello")
    };
    let mut stream = TcpStream::connect(&server)?;
    hello(&mut stream)?;
    freeze()?;
    closed(&mut stream)?;
    hello(&mut TcpStream::connect(&server)?).context("connecting again")
}

/// A program sees an end or an error, and sees it at once.
fn closed(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok();
    let mut byte = [0; 1];
    match stream.read(&mut byte) {
        Ok(0) => {}
        Ok(_) => bail!("it had something to read"),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => bail!("it waits"),
        Err(_) => {}
    }
    ensure!(stream.write_all(b"x").is_err(), "it can be written to");
    Ok(())
}

/// A bound socket keeps its port, a connected one its peer.
fn udp() -> Result<()> {
    let bound = UdpSocket::bind("127.0.0.1:0")?;
    let connected = UdpSocket::bind("127.0.0.1:0")?;
    connected.connect(bound.local_addr()?)?;
    freeze()?;
    connected.send(b"after")?;
    let mut buffer = [0; 16];
    let (length, from) = bound.recv_from(&mut buffer)?;
    ensure!(&buffer[..length] == b"after" && from == connected.local_addr()?);
    Ok(())
}
