//! HTTP/1.1 as a client speaks it, no more than the tests need and nothing that a library would smooth over.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::de::DeserializeOwned;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// One connection, kept open as long as the store does.
pub(crate) struct Client {
    address: SocketAddr,
    headers: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            headers: String::new(),
            stream: None,
        }
    }

    /// Sends this token from now on.
    pub(crate) fn with_token(self, token: &str) -> Self {
        self.with_header("Authorization", &format!("Bearer {token}"))
    }

    /// Sends this header from now on.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, b"").unwrap()
    }

    pub(crate) fn put(&mut self, path: &str, body: &[u8]) -> Answer {
        self.call("PUT", path, body).unwrap()
    }

    pub(crate) fn delete(&mut self, path: &str) -> Answer {
        self.call("DELETE", path, b"").unwrap()
    }

    pub(crate) fn post(&mut self, path: &str, body: &impl serde::Serialize) -> Answer {
        let body = serde_json::to_vec(body).unwrap();
        self.call("POST", path, &body).unwrap()
    }

    /// A request and its answer.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: store\r\n{}Content-Length: {}\r\n\r\n",
            self.headers,
            body.len()
        );
        let stream = self.stream()?;
        let sent = stream
            .get_mut()
            .write_all(head.as_bytes())
            .and_then(|()| stream.get_mut().write_all(body));
        // A refusal may come before the body was sent; it is the answer then.
        let answer = match (sent, answer(stream)) {
            (_, Ok(answer)) => answer,
            (sent, Err(error)) => {
                self.stream = None;
                return Err(sent.err().unwrap_or(error));
            }
        };
        if answer.header("connection") == Some("close") {
            self.stream = None;
        }
        Ok(answer)
    }

    fn stream(&mut self) -> io::Result<&mut BufReader<TcpStream>> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_read_timeout(Some(Duration::from_secs(60)))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        Ok(self.stream.insert(stream))
    }
}

/// Reads an answer.
pub(crate) fn answer(from: &mut impl BufRead) -> io::Result<Answer> {
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut line = || {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(cut());
        }
        Ok(line.trim_end().to_owned())
    };
    let first = line()?;
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(cut)?;
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").ok_or_else(cut)?;
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Answer {
        status,
        headers,
        body,
    })
}
