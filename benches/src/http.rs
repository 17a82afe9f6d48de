//! A blocking HTTP/1.1 client with one connection. A benchmark's client must cost
//! as little as can be, since it shares the cores with what it measures; a general
//! client adds tens of microseconds and two thread hops a request.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Longest wait for an answer: the first of a device whose shaders are compiled by the CPU.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// One keep-alive connection.
pub struct Client {
    stream: TcpStream,
    addr: SocketAddr,
    buffer: Vec<u8>,
}

/// How a client waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// In the kernel, as an ordinary client does.
    Asleep,
    /// Asking again and again. What is measured then has no wake-up of the client
    /// in it, which in a virtual machine costs more than all of the server.
    Polling,
}

/// Status and body of an answer.
pub struct Answer {
    pub status: u16,
    pub json_len: Option<usize>,
    pub body: Vec<u8>,
}

/// A request that is sent many times: its bytes, head included.
pub struct Prepared(Vec<u8>);

impl Client {
    pub fn connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, addr, buffer: Vec::with_capacity(64 << 10) })
    }

    /// Change how this client waits.
    pub fn wait(&mut self, wait: Wait) -> std::io::Result<()> {
        self.stream.set_nonblocking(wait == Wait::Polling)
    }

    /// Send a prepared request and read the whole answer.
    pub fn send(&mut self, request: &Prepared) -> anyhow::Result<Answer> {
        let mut rest = &request.0[..];
        while !rest.is_empty() {
            let written = until_ready(|| self.stream.write(rest))?;
            rest = &rest[written..];
        }
        self.read_answer().with_context(|| format!("answer from {}", self.addr))
    }

    pub fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.send(&Prepared::get(path))
    }

    fn read_answer(&mut self) -> anyhow::Result<Answer> {
        self.buffer.clear();
        loop {
            if let Some(answer) = Answer::parse(&self.buffer)? {
                return Ok(answer);
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        let mut chunk = [0; 16 << 10];
        let read = until_ready(|| self.stream.read(&mut chunk))?;
        if read == 0 {
            bail!("the connection was closed");
        }
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(())
    }
}

impl Prepared {
    pub fn get(path: &str) -> Self {
        Self(format!("GET {path} HTTP/1.1\r\nHost: wick\r\n\r\n").into_bytes())
    }

    /// What goes over the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A POST with the JSON header and the tensors' bytes of the binary extension.
    pub fn infer(model: &str, json: &serde_json::Value, tensors: &[&[u8]]) -> Self {
        let json = json.to_string();
        let len = json.len() + tensors.iter().map(|tensor| tensor.len()).sum::<usize>();
        let mut bytes = format!(
            "POST /v2/models/{model}/infer HTTP/1.1\r\nHost: wick\r\n\
             Content-Type: application/octet-stream\r\n\
             Inference-Header-Content-Length: {}\r\nContent-Length: {len}\r\n\r\n{json}",
            json.len(),
        )
        .into_bytes();
        for tensor in tensors {
            bytes.extend_from_slice(tensor);
        }
        Self(bytes)
    }
}

impl Answer {
    /// The answer that `buffer` holds; none if there is more to come.
    pub fn parse(buffer: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(at) = find(buffer, b"\r\n\r\n") else { return Ok(None) };
        let (head, body) = (std::str::from_utf8(&buffer[..at])?, &buffer[at + 4..]);
        let status = head.split(' ').nth(1).context("no status line")?.parse()?;
        let json_len = header(head, "inference-header-content-length");
        if header::<String>(head, "transfer-encoding").is_some_and(|coding| coding == "chunked") {
            return Ok(join_chunks(body)?.map(|body| Self { status, json_len, body }));
        }
        let body_len: usize = header(head, "content-length").context("no content-length")?;
        ensure!(body_len <= MAX_ANSWER, "answer of {body_len} bytes");
        let body = body.get(..body_len).map(<[u8]>::to_vec);
        Ok(body.map(|body| Self { status, json_len, body }))
    }

    /// The body as text for an error message.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(500).collect()
    }

    /// The binary tensors after the JSON.
    pub fn tensors(&self) -> anyhow::Result<&[u8]> {
        ensure!(self.status == 200, "status {}: {}", self.status, self.text());
        let at = self.json_len.context("the answer has no binary tensors")?;
        self.body.get(at..).context("inference header longer than the body")
    }
}

/// Repeat a call on a socket that does not block until it does something.
pub fn until_ready<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::hint::spin_loop(),
            done => return done,
        }
    }
}

/// A body in chunks, joined; none if there is more to come. KServe sends tensors so.
fn join_chunks(mut rest: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(at) = find(rest, b"\r\n") else { return Ok(None) };
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..at])?.trim(), 16)?;
        ensure!(body.len().saturating_add(len) <= MAX_ANSWER, "a chunk of {len} bytes");
        let chunk = at + 2;
        let Some(bytes) = rest.get(chunk..chunk + len) else { return Ok(None) };
        let Some(after) = rest.get(chunk + len + 2..) else { return Ok(None) };
        if len == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(bytes);
        rest = after;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn header<T: std::str::FromStr>(head: &str, name: &str) -> Option<T> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_once_the_last_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\
            inference-header-content-length: 2\r\n\r\n3\r\n{}\x01\r\nA\r\n23456789ab\r\n0\r\n\r\n";
        for len in 0..answer.len() {
            assert!(Answer::parse(&answer[..len]).unwrap().is_none(), "{len} bytes");
        }
        let answer = Answer::parse(answer).unwrap().unwrap();
        assert_eq!(answer.body, b"{}\x0123456789ab");
        assert_eq!(answer.json_len, Some(2));
    }
}
