//! Entering the namespaces of a pod for one clone, and coming back.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::fstat;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::plan::{Namespace, Namespaces};

/// The namespaces that the thread was started in: the node's.
#[derive(Debug)]
pub struct Home {
    network: File,
    ipc: File,
    uts: File,
    pid: File,
}

// === impl Home ===

impl Home {
    /// # Errors
    /// `/proc` is not mounted.
    pub fn remember() -> io::Result<Self> {
        let open = |name| File::open(format!("/proc/thread-self/ns/{name}"));
        Ok(Self {
            network: open("net")?,
            ipc: open("ipc")?,
            uts: open("uts")?,
            pid: open("pid_for_children")?,
        })
    }

    /// Be where a process with these namespaces is cloned. What is new for it, the clone makes.
    ///
    /// # Errors
    /// Which namespace can't be entered, and why.
    pub fn enter(&self, wanted: &Namespaces) -> Result<(), (&'static str, io::Error)> {
        let all = [
            ("enter the network namespace", &wanted.network, LinkNameSpaceType::Network),
            ("enter the ipc namespace", &wanted.ipc, LinkNameSpaceType::InterProcessCommunication),
            ("enter the uts namespace", &wanted.uts, LinkNameSpaceType::HostNameAndNISDomainName),
            ("enter the pid namespace", &wanted.pid, LinkNameSpaceType::ProcessID),
        ];
        for (step, namespace, kind) in all {
            if let Namespace::Path(path) = namespace {
                let entered = File::open(path).and_then(|file| enter(file.as_fd(), kind));
                if let Err(error) = entered {
                    self.come_back();
                    return Err((step, error));
                }
            }
        }
        Ok(())
    }

    /// Back to the node's. It can't fail: the descriptors are open, and the shim is root.
    pub fn come_back(&self) {
        let all = [
            ("net", &self.network, LinkNameSpaceType::Network),
            ("ipc", &self.ipc, LinkNameSpaceType::InterProcessCommunication),
            ("uts", &self.uts, LinkNameSpaceType::HostNameAndNISDomainName),
            ("pid_for_children", &self.pid, LinkNameSpaceType::ProcessID),
        ];
        for (name, home, kind) in all {
            let here = File::open(format!("/proc/thread-self/ns/{name}"));
            let same = here.and_then(|here| same(here.as_fd(), home.as_fd()));
            if !same.unwrap_or(false)
                && let Err(error) = enter(home.as_fd(), kind)
            {
                tracing::error!("the cloner can't leave a pod's {name} namespace: {error}");
            }
        }
    }
}

fn enter(namespace: BorrowedFd<'_>, kind: LinkNameSpaceType) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, Some(kind))?)
}

fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}
