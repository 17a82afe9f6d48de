//! The least that a server over TCP can be: one thread that reads a request of a known size,
//! runs the inference itself, and writes an answer of a known size. No HTTP, no limits, one
//! client. What it adds to an inference is added by sockets and sleeping threads alone, and no
//! server on the same machine can add less.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::direct::Direct;

/// A server that serves one client and ends with it.
pub struct Bare {
    pub addr: SocketAddr,
}

impl Bare {
    /// Requests have `request` bytes, answers `answer`.
    pub fn start(mut direct: Direct, request: usize, answer: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        thread::spawn(move || -> anyhow::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let (mut taken, given) = (vec![0; request], vec![0; answer]);
            loop {
                stream.read_exact(&mut taken)?;
                direct.run()?;
                stream.write_all(&given)?;
            }
        });
        Ok(Self { addr })
    }
}

/// Its client, which polls its socket as that of the other servers does.
pub struct BareClient {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl BareClient {
    pub fn connect(server: &Bare, request: usize, answer: usize) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server.addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, request: vec![0; request], answer: vec![0; answer] })
    }

    /// One request and its whole answer.
    pub fn send(&mut self) -> anyhow::Result<()> {
        let mut sent = 0;
        while sent < self.request.len() {
            sent += crate::http::until_ready(|| self.stream.write(&self.request[sent..]))?;
        }
        let mut read = 0;
        while read < self.answer.len() {
            let more = crate::http::until_ready(|| self.stream.read(&mut self.answer[read..]))?;
            anyhow::ensure!(more > 0, "the bare server has ended");
            read += more;
        }
        Ok(())
    }
}
