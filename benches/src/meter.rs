//! Stands between a client and a server, counts the bytes of both ways, and cuts the line when it is told
//! to. Knows no protocol.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Bytes copied at once.
const CHUNK: usize = 64 << 10;

/// Counts until it is dropped; its threads end with their connections.
pub struct Meter {
    pub addr: SocketAddr,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    there: AtomicU64,
    back: AtomicU64,
    /// No byte passes.
    cut: AtomicBool,
}

// === impl Meter ===

impl Meter {
    pub fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        let line: Arc<Line> = Arc::default();
        let shared = line.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let line = shared.clone();
                thread::spawn(move || drop(relay(client, to, &line)));
            }
        });
        Ok(Self { addr, line })
    }

    /// Bytes that came back so far.
    pub fn bytes(&self) -> u64 {
        self.line.back.load(Ordering::Relaxed)
    }

    /// Bytes of both ways so far.
    pub fn both(&self) -> u64 {
        self.line.there.load(Ordering::Relaxed) + self.bytes()
    }

    /// End all connections and every new one, or let them pass again.
    pub fn cut(&self, cut: bool) {
        self.line.cut.store(cut, Ordering::Relaxed);
    }
}

fn relay(client: TcpStream, to: SocketAddr, line: &Arc<Line>) -> io::Result<()> {
    if line.cut.load(Ordering::Relaxed) {
        return Ok(());
    }
    let server = TcpStream::connect(to)?;
    let (from, onto) = (client.try_clone()?, server.try_clone()?);
    let shared = line.clone();
    thread::spawn(move || drop(copy(from, onto, &shared.there, &shared.cut)));
    copy(server, client, &line.back, &line.cut)
}

fn copy(
    mut from: TcpStream,
    mut onto: TcpStream,
    count: &AtomicU64,
    cut: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        let cut = cut.load(Ordering::Relaxed);
        if read == 0 || cut || onto.write_all(&buffer[..read]).is_err() {
            drop(from.shutdown(Shutdown::Both));
            return onto.shutdown(Shutdown::Both);
        }
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
}
