//! A cable that can be spoilt.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A cable between an agent and a registry that can be spoilt.
pub struct Cable {
    pub addr: SocketAddr,
    /// Bytes of a connection that pass before it is spoilt; more than it has: it is not.
    pub after: Arc<AtomicU64>,
    /// Spoilt is changed, and else cut.
    pub changes: Arc<AtomicBool>,
    pub spoilt: Arc<AtomicU64>,
}

impl Cable {
    pub fn to(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let after = Arc::new(AtomicU64::new(u64::MAX));
        let (changes, spoilt): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let cable = Self { addr, after, changes, spoilt };
        let (after, changes) = (Arc::clone(&cable.after), Arc::clone(&cable.changes));
        let spoilt = Arc::clone(&cable.spoilt);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(registry));
                let Ok(server) = server else { continue };
                let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut up, &mut down));
                let (after, changes) = (Arc::clone(&after), Arc::clone(&changes));
                let spoilt = Arc::clone(&spoilt);
                std::thread::spawn(move || spoil(server, client, &after, &changes, &spoilt));
            }
        });
        cable
    }
}

fn spoil(
    mut server: TcpStream,
    mut client: TcpStream,
    after: &AtomicU64,
    changes: &AtomicBool,
    spoilt: &AtomicU64,
) {
    let mut passed = 0_u64;
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        passed += count as u64;
        if passed > after.load(Ordering::Relaxed) {
            spoilt.fetch_add(1, Ordering::Relaxed);
            if !changes.load(Ordering::Relaxed) {
                drop(client.shutdown(std::net::Shutdown::Both));
                drop(server.shutdown(std::net::Shutdown::Both));
                return;
            }
            buffer[count - 1] ^= 1;
        }
        if client.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    drop(client.shutdown(std::net::Shutdown::Write));
}
