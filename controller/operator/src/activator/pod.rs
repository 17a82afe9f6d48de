//! One pod as the activator sees it: whether it may get requests, and how many it has.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use super::upstream::Pool;

/// What the activator itself knows of a pod, which counts more than what Kubernetes says: that
/// is seconds old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Proof {
    /// Nothing.
    None,
    /// It has said that it is ready.
    Ready,
    /// It did not take a connection.
    Suspect,
}

/// See the module.
pub struct Pod {
    pub address: SocketAddr,
    /// For the head of a request that names no host.
    pub authority: String,
    /// Whether Kubernetes says that it is ready.
    listed: AtomicBool,
    proof: AtomicU8,
    in_flight: AtomicU32,
    unanswered: AtomicU32,
    /// Whether somebody asks it just now whether it is ready.
    probed: AtomicBool,
    /// Connections, for each thread its own.
    pub pools: Box<[Pool]>,
}

// === impl Pod ===

impl Pod {
    pub fn new(address: SocketAddr, listed: bool, threads: usize) -> Self {
        Self {
            address,
            authority: address.to_string(),
            listed: AtomicBool::new(listed),
            proof: AtomicU8::new(Proof::None as u8),
            in_flight: AtomicU32::new(0),
            unanswered: AtomicU32::new(0),
            probed: AtomicBool::new(false),
            pools: (0..threads).map(|_| Pool::default()).collect(),
        }
    }

    /// What Kubernetes says. Only a change of it says more than what is known here.
    pub fn list(&self, ready: bool) {
        if self.listed.swap(ready, Ordering::AcqRel) != ready {
            self.set(Proof::None);
        }
    }

    /// Whether it may get requests.
    pub fn is_usable(&self) -> bool {
        match self.proof.load(Ordering::Acquire) {
            proof if proof == Proof::Ready as u8 => true,
            proof if proof == Proof::Suspect as u8 => false,
            _ => self.listed.load(Ordering::Acquire),
        }
    }

    /// Whether it was usable and did not take a connection.
    pub fn is_suspect(&self) -> bool {
        self.proof.load(Ordering::Acquire) == Proof::Suspect as u8
    }

    pub fn prove(&self) {
        self.set(Proof::Ready);
    }

    pub fn suspect(&self) {
        self.set(Proof::Suspect);
    }

    fn set(&self, proof: Proof) {
        self.proof.store(proof as u8, Ordering::Release);
    }

    /// Begin to ask it, unless somebody does already.
    pub fn begin_probe(&self) -> bool {
        !self.probed.swap(true, Ordering::AcqRel)
    }

    pub fn end_probe(&self) {
        self.probed.store(false, Ordering::Release);
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub fn unanswered(&self) -> u32 {
        self.unanswered.load(Ordering::Relaxed)
    }

    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    pub fn answer(&self) {
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_counts_until_kubernetes_says_something_new() {
        let pod = Pod::new("127.0.0.1:1".parse().unwrap(), false, 1);
        assert!(!pod.is_usable());
        pod.prove();
        pod.list(false);
        assert!(pod.is_usable(), "nothing new was said");
        pod.list(true);
        pod.suspect();
        pod.list(true);
        assert!(!pod.is_usable() && pod.is_suspect());
        pod.list(false);
        pod.list(true);
        assert!(pod.is_usable());
    }
}
