//! The one HTTP request that xtask needs: no client library, one connection a request.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// Longest wait for an answer; an emulated machine is slow.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// Status and body.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// GET, or POST of a JSON body.
pub fn send(addr: SocketAddr, path: &str, json: Option<&str>) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(addr).with_context(|| format!("connect to {addr}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let (method, body) = json.map_or(("GET", ""), |json| ("POST", json));
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    parse(&bytes).with_context(|| format!("answer of {addr}{path}"))
}

/// Split an answer whose body ends with the connection.
fn parse(bytes: &[u8]) -> anyhow::Result<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.context("the head has no end")?;
    let head = std::str::from_utf8(&bytes[..end]).context("the head is no text")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.context("no status")?;
    let body = &bytes[end + 4..];
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if let Some(length) = length.filter_map(|(_, len)| len.trim().parse::<usize>().ok()).next() {
        ensure!(body.len() == length, "{} of {length} bytes", body.len());
    }
    Ok(Answer { status, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_split_and_a_cut_one_refused() -> anyhow::Result<()> {
        let answer = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{}"[..]));
        for bytes in [&b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"[..], b"HTTP/1.1 200", b""]
        {
            assert!(parse(bytes).is_err());
        }
        Ok(())
    }
}
