//! One HTTP/1.1 request over a connection of its own. Enough for tests; knows no TLS, no
//! redirects and no chunks that are sent.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Longest wait for a connection, and for each part of an answer.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest connection to a Service: on one machine it takes no time, or never comes.
const CONNECT: Duration = Duration::from_secs(1);

/// Largest answer that is read: no test asks for more.
const MAX_ANSWER: u64 = 64 << 20;

/// What is asked.
pub struct Request<'a> {
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

/// Whether a connection comes about. Nodes are told of a Service's pods a moment after they are there or gone. A
/// packet that came before that is lost, and so is what its connection sends again for two minutes, though others
/// pass: one that isn't there soon is given up.
pub fn connects(addr: SocketAddr) -> bool {
    TcpStream::connect_timeout(&addr, CONNECT).is_ok()
}

// === impl Request ===

impl Request<'_> {
    /// Send it and read the whole answer.
    pub fn send(&self, addr: SocketAddr) -> anyhow::Result<Answer> {
        self.send_within(addr, TIMEOUT)
    }

    /// The same, with another longest wait for each part of the answer.
    pub fn send_within(&self, addr: SocketAddr, wait: Duration) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect_timeout(&addr, TIMEOUT);
        let mut stream = stream.with_context(|| format!("connect to {addr}"))?;
        stream.set_read_timeout(Some(wait))?;
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {addr}\r\n", self.method, self.path);
        for (name, value) in self.headers {
            write!(head, "{name}: {value}\r\n")?;
        }
        write!(head, "Content-Length: {}\r\nConnection: close\r\n\r\n", self.body.len())?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(self.body)?;
        let mut bytes = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
        Answer::parse(&bytes).with_context(|| format!("answer of {addr}{}", self.path))
    }
}

// === impl Answer ===

impl Answer {
    /// A header by its name, however it is spelled.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(':'));
        headers.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).next()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.context("the head has no end")?;
        let head = std::str::from_utf8(&bytes[..end]).context("the head is no text")?.to_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.context("no status")?;
        let mut answer = Self { status, head, body: bytes[end + 4..].to_vec() };
        if answer.header("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            answer.body = joined(&answer.body)?;
        } else if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().context("a length that is no number")?;
            // An answer to HEAD tells the length of what it does not send.
            let got = answer.body.len();
            ensure!(got == length || got == 0, "{got} of {length} bytes");
        }
        Ok(answer)
    }
}

/// GET.
pub fn get(addr: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    Request { method: "GET", path, headers: &[], body: &[] }.send(addr)
}

/// The body that was sent in chunks.
fn joined(mut chunked: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = chunked.windows(2).position(|window| window == b"\r\n");
        let end = end.context("a chunk without a length")?;
        let length = std::str::from_utf8(&chunked[..end]).context("a length that is no text")?;
        let length = length.split(';').next().unwrap_or_default();
        let length = usize::from_str_radix(length.trim(), 16).context("a length")?;
        if length == 0 {
            return Ok(body);
        }
        let chunk = chunked.get(end + 2..end + 2 + length).context("a chunk that is cut off")?;
        body.extend_from_slice(chunk);
        chunked = chunked.get(end + 4 + length..).context("the last chunk is missing")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_refused() {
        let cases: [(&str, Option<&str>); 6] = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", Some("hi")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Some("")),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
                Some("hi"),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhi\r\n", None),
            ("nothing", None),
        ];
        for (bytes, expected) in cases {
            let answer = Answer::parse(bytes.as_bytes()).ok();
            assert_eq!(answer.map(|answer| answer.text()).as_deref(), expected, "{bytes}");
        }
    }
}
