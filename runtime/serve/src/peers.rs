//! Connections by the address that they come from, so that one client cannot take all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The part of an IPv6 address that one customer of a network has: whoever has one address of
/// it has them all.
const IPV6_PREFIX: u32 = 64;

/// How often it is said that a peer has too many connections: each refused one would fill the
/// log as fast as the peer can connect.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Who has how many connections.
#[derive(Debug)]
pub struct Peers {
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bounded by the server's number of connections: an entry goes with its last one.
    open: HashMap<IpAddr, usize>,
    said: Option<Instant>,
}

/// One connection of a peer, given back by dropping it.
#[derive(Debug)]
pub struct PeerPlace {
    peers: Arc<Peers>,
    peer: IpAddr,
}

// === impl Peers ===

impl Peers {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), state: Mutex::default() })
    }

    /// Count one more connection of a peer, unless it has as many as it may.
    pub fn enter(self: &Arc<Self>, addr: IpAddr) -> Option<PeerPlace> {
        let peer = peer(addr);
        let mut state = self.state.lock();
        let open = state.open.entry(peer).or_default();
        if *open < self.max {
            *open += 1;
            return Some(PeerPlace { peers: Arc::clone(self), peer });
        }
        let now = Instant::now();
        let say = state.said.is_none_or(|said| now.duration_since(said) >= SAY_EVERY);
        if say {
            state.said = Some(now);
        }
        drop(state);
        if say {
            tracing::warn!(%peer, max = self.max, "connections of one address are refused");
        }
        None
    }
}

impl Drop for PeerPlace {
    fn drop(&mut self) {
        let mut state = self.peers.state.lock();
        if let Some(open) = state.open.get_mut(&self.peer) {
            *open -= 1;
            if *open == 0 {
                state.open.remove(&self.peer);
            }
        }
    }
}

/// What counts as one peer.
fn peer(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => {
            let network = addr.to_bits() & (u128::MAX << (u128::BITS - IPV6_PREFIX));
            Ipv6Addr::from_bits(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_address_or_a_network_of_ipv6() {
        let table = [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ];
        for (addr, want) in table {
            assert_eq!(peer(addr.parse().unwrap()).to_string(), want);
        }
    }

    #[test]
    fn a_peer_gets_its_places_back_and_leaves_nothing_behind() {
        let peers = Peers::new(2);
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|addr| addr.parse().unwrap());
        let first = peers.enter(one).unwrap();
        let second = peers.enter(one).unwrap();
        assert!(peers.enter(one).is_none());
        assert!(peers.enter(other).is_some());
        drop(first);
        let third = peers.enter(one);
        assert!(third.is_some() && peers.enter(one).is_none());
        drop((second, third));
        assert!(peers.state.lock().open.is_empty());
    }
}
