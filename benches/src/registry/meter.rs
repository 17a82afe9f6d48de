//! Stands between a client and the registry and counts the bytes that come back. Knows no HTTP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Bytes copied at once.
const CHUNK: usize = 64 << 10;

/// Counts until it is dropped; its threads end with their connections.
pub struct Meter {
    pub addr: SocketAddr,
    back: Arc<AtomicU64>,
}

// === impl Meter ===

impl Meter {
    pub fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        let back = Arc::new(AtomicU64::new(0));
        let count = back.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let count = count.clone();
                thread::spawn(move || drop(relay(client, to, &count)));
            }
        });
        Ok(Self { addr, back })
    }

    /// Bytes that came back so far.
    pub fn bytes(&self) -> u64 {
        self.back.load(Ordering::Relaxed)
    }
}

fn relay(client: TcpStream, to: SocketAddr, count: &Arc<AtomicU64>) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    let (from, onto) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || drop(copy(from, onto, &AtomicU64::new(0))));
    copy(server, client, count)
}

fn copy(mut from: TcpStream, mut onto: TcpStream, count: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        if read == 0 || onto.write_all(&buffer[..read]).is_err() {
            drop(from.shutdown(Shutdown::Both));
            return onto.shutdown(Shutdown::Both);
        }
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
}
