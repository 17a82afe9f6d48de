//! The list of a shim's containers, in a file that outlives it: containerd may remove the bundles
//! of a shim that was killed before it asks `delete` to clean up, and no other record says then
//! which control groups and which of runc's containers were the pod's.
//!
//! ```text
//!  Create ─▶ add ──┐                          ┌─▶ delete (the shim is dead): clean all of it
//!                  ├─▶ /run/wick/shims/HASH ──┤
//!  Delete ─▶ remove┘   (gone when empty)      └─▶ start of the next shim of the same pod
//! ```
//!
//! A container is listed before anything of it is made, and until all of it is removed.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::ordinary;

/// Where the lists of all shims are: memory, since what they list does not survive a boot either.
const FOLDER: &str = "/run/wick/shims";

/// Containers of one pod at one time. The kubelet runs some hundreds on a whole node.
const MAX_MEMBERS: usize = 1000;

/// Longest file that is read back: a kilobyte for each member and more.
const MAX_FILE: u64 = 4 << 20;

/// What a shim leaves behind when it is killed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Where the shim listens while it lives.
    pub socket: PathBuf,
    pub members: Vec<Member>,
}

/// One container, and where its parts are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: String,
    pub bundle: PathBuf,
    /// Its control group below the root of each hierarchy.
    pub cgroup: PathBuf,
    /// How runc is called, for a container of its.
    pub runc: Option<ordinary::Settings>,
}

/// A living shim's list, and its file.
#[derive(Debug)]
pub struct Book {
    file: PathBuf,
    roster: Mutex<Roster>,
}

// === impl Roster ===

impl Roster {
    /// What is listed; nothing if there is no file, or none of this release.
    pub fn read(file: &Path) -> Option<Self> {
        let mut text = Vec::new();
        fs::File::open(file).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether the shim that wrote it does not listen any more.
    pub fn is_orphaned(&self) -> bool {
        UnixStream::connect(&self.socket).is_err()
    }

    fn with(&self, member: Member) -> io::Result<Self> {
        if self.members.len() >= MAX_MEMBERS {
            let full = format!("the pod has {MAX_MEMBERS} containers, which is the most");
            return Err(io::Error::other(full));
        }
        let mut next = self.without(&member.id);
        next.members.push(member);
        Ok(next)
    }

    fn without(&self, id: &str) -> Self {
        let mut next = self.clone();
        next.members.retain(|member| member.id != id);
        next
    }

    /// Replace the file as a whole: whoever reads it sees the old list or the new one.
    fn write(&self, file: &Path) -> io::Result<()> {
        if self.members.is_empty() {
            return match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        if let Some(folder) = file.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let next = file.with_extension("next");
        fs::write(&next, serde_json::to_vec(self)?)?;
        fs::rename(&next, file)
    }
}

// === impl Book ===

impl Book {
    pub fn new(file: PathBuf, socket: PathBuf) -> Self {
        Self { file, roster: Mutex::new(Roster { socket, members: Vec::new() }) }
    }

    /// # Errors
    /// The file can't be written, or the list is full; the container is not listed then.
    pub fn add(&self, member: Member) -> io::Result<()> {
        self.change(|roster| roster.with(member))
    }

    /// # Errors
    /// The file can't be written.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        self.change(|roster| Ok(roster.without(id)))
    }

    fn change(&self, step: impl FnOnce(&Roster) -> io::Result<Roster>) -> io::Result<()> {
        let mut roster = self.roster.lock();
        let next = step(&roster)?;
        if next != *roster {
            next.write(&self.file)?;
            *roster = next;
        }
        Ok(())
    }
}

/// The file of the shim that serves a pod, or a container outside of one: named as the shim's
/// socket is, so that two containerds with equal names do not meet.
pub fn file(containerd: &str, namespace: &str, group: &str) -> PathBuf {
    let address = containerd_shim::socket_address(containerd, namespace, group);
    let name = Path::new(&address).file_name().unwrap_or_default();
    Path::new(FOLDER).join(name).with_extension("json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str) -> Member {
        let (bundle, cgroup) = (Path::new("/b").join(id), Path::new("pods").join(id));
        Member { id: id.to_owned(), bundle, cgroup, runc: None }
    }

    #[test]
    fn the_file_lists_what_is_there_and_goes_with_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let (file, socket) = (folder.path().join("made/list.json"), folder.path().join("s"));
        let book = Book::new(file.clone(), socket.clone());
        let listed = || Roster::read(&file).map(|roster| roster.members);
        book.remove("never").unwrap();
        assert_eq!(listed(), None);
        book.add(member("a")).unwrap();
        book.add(member("b")).unwrap();
        book.add(member("a")).unwrap();
        assert_eq!(listed(), Some(vec![member("b"), member("a")]));
        book.remove("b").unwrap();
        assert_eq!(listed(), Some(vec![member("a")]));
        assert!(Roster::read(&file).unwrap().is_orphaned());
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(!Roster::read(&file).unwrap().is_orphaned());
        book.remove("a").unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_list_is_bounded_and_one_that_is_not_written_does_not_change() {
        let members = (0..MAX_MEMBERS).map(|at| member(&at.to_string())).collect();
        let full = Roster { members, ..Roster::default() };
        let error = full.with(member("more")).unwrap_err().to_string();
        assert!(error.contains("1000 containers"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plain"), "").unwrap();
        let book = Book::new(folder.path().join("plain/list.json"), "/s".into());
        assert!(book.add(member("a")).is_err());
        assert!(book.roster.lock().members.is_empty());
    }

    #[test]
    fn the_name_tells_containerds_and_pods_apart() {
        let names = [file("/a", "n", "x"), file("/b", "n", "x"), file("/a", "n", "y")];
        assert!(names[0] != names[1] && names[0] != names[2], "{names:?}");
        assert!(names[0].starts_with(FOLDER));
    }
}
