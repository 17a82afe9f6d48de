//! Which namespaces a process gets: new ones, another's by path, or the node's.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::Refusal;

/// One kind of namespace for a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Namespace {
    /// The node's own: the spec does not name it.
    #[default]
    Node,
    New,
    /// Another process's.
    Path(PathBuf),
}

/// All kinds that a container can have. A mount namespace and a control group namespace of its
/// own it always has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub network: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub pid: Namespace,
}

// === impl Namespaces ===

impl Namespaces {
    pub fn of(spec: &Spec, refusals: &mut Vec<Refusal>) -> Self {
        let mut found = Self::default();
        let named = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        for namespace in named.into_iter().flatten() {
            let path = namespace.path().as_ref().filter(|p| !p.as_os_str().is_empty());
            let wanted = path.map_or(Namespace::New, |p| Namespace::Path(p.clone()));
            match namespace.typ() {
                LinuxNamespaceType::Network => found.network = wanted,
                LinuxNamespaceType::Ipc => found.ipc = wanted,
                LinuxNamespaceType::Uts => found.uts = wanted,
                LinuxNamespaceType::Pid => found.pid = wanted,
                LinuxNamespaceType::Mount | LinuxNamespaceType::Cgroup => {
                    if path.is_some() {
                        let field = format!("linux.namespaces.{}", namespace.typ());
                        refusals.push(Refusal::new(field, "can't be shared with another process"));
                    }
                }
                LinuxNamespaceType::User => refusals.push(Refusal::new(
                    "linux.namespaces.user",
                    "user namespaces (`hostUsers: false`) are not supported",
                )),
                LinuxNamespaceType::Time => refusals.push(Refusal::new(
                    "linux.namespaces.time",
                    "time namespaces are not supported",
                )),
            }
        }
        found
    }
}
