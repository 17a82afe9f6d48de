//! A process between client and server that copies bytes and knows nothing of what they say: no
//! activator on the same machine costs less. It has a thread for each core, as the activator has.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running relay; it ends when dropped.
pub struct Relay {
    pub addr: SocketAddr,
    _end: DropGuard,
}

// === impl Relay ===

impl Relay {
    /// Listen on a port of loopback and copy to and from `server`.
    pub fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let end = CancellationToken::new();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<Handle> =
            (0..cores).map(|_| spawn(end.clone())).collect::<anyhow::Result<_>>()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        threads[0].clone().spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            for thread in threads.iter().cycle() {
                let Ok((client, _)) = listener.accept().await else { return };
                // It belongs to the thread that copies, with its readiness.
                let Ok(client) = client.into_std() else { return };
                thread.spawn(copy(client, server));
            }
        });
        Ok(Self { addr, _end: end.drop_guard() })
    }
}

/// A thread that runs what it is given until the end.
fn spawn(end: CancellationToken) -> anyhow::Result<Handle> {
    let (sender, handle) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        // Whoever asked is told, and gone if it did not wait.
        let Ok(runtime) = runtime.inspect(|runtime| drop(sender.send(runtime.handle().clone())))
        else {
            return;
        };
        runtime.block_on(end.cancelled());
    });
    handle.recv().context("a thread of the relay did not start")
}

async fn copy(client: std::net::TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut client = TcpStream::from_std(client)?;
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_back() {
        let server = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = Relay::start(server.local_addr().unwrap()).unwrap();
        for _ in 0..3 {
            let mut client = std::net::TcpStream::connect(relay.addr).unwrap();
            client.write_all(b"ask").unwrap();
            let (mut side, _) = server.accept().unwrap();
            let mut asked = [0; 3];
            side.read_exact(&mut asked).unwrap();
            side.write_all(&asked).unwrap();
            drop(side);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"ask");
        }
    }
}
