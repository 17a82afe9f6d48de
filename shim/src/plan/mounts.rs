//! The mounts of a spec, their options sorted into the kernel's bits and the rest.

use std::path::PathBuf;

use oci_spec::runtime::Spec;
use wick_sandbox::order::Mount;

use super::Refusal;

/// An option that is a bit: its name, the bit, and whether it clears it.
const BITS: [(&str, u64, bool); 25] = [
    ("async", libc::MS_SYNCHRONOUS, true),
    ("atime", libc::MS_NOATIME, true),
    ("bind", libc::MS_BIND, false),
    ("defaults", 0, false),
    ("dev", libc::MS_NODEV, true),
    ("diratime", libc::MS_NODIRATIME, true),
    ("dirsync", libc::MS_DIRSYNC, false),
    ("exec", libc::MS_NOEXEC, true),
    ("mand", libc::MS_MANDLOCK, false),
    ("noatime", libc::MS_NOATIME, false),
    ("nodev", libc::MS_NODEV, false),
    ("nodiratime", libc::MS_NODIRATIME, false),
    ("noexec", libc::MS_NOEXEC, false),
    ("nomand", libc::MS_MANDLOCK, true),
    ("norelatime", libc::MS_RELATIME, true),
    ("nosuid", libc::MS_NOSUID, false),
    ("rbind", libc::MS_BIND | libc::MS_REC, false),
    ("relatime", libc::MS_RELATIME, false),
    ("remount", libc::MS_REMOUNT, false),
    ("ro", libc::MS_RDONLY, false),
    ("rw", libc::MS_RDONLY, true),
    ("strictatime", libc::MS_STRICTATIME, false),
    ("suid", libc::MS_NOSUID, true),
    ("sync", libc::MS_SYNCHRONOUS, false),
    ("nosymfollow", 256, false),
];

const PROPAGATION: [(&str, u64); 8] = [
    ("private", libc::MS_PRIVATE),
    ("rprivate", libc::MS_PRIVATE | libc::MS_REC),
    ("shared", libc::MS_SHARED),
    ("rshared", libc::MS_SHARED | libc::MS_REC),
    ("slave", libc::MS_SLAVE),
    ("rslave", libc::MS_SLAVE | libc::MS_REC),
    ("unbindable", libc::MS_UNBINDABLE),
    ("runbindable", libc::MS_UNBINDABLE | libc::MS_REC),
];

/// Options with a meaning of their own that wick does not give them.
const REFUSED: [&str; 10] = [
    "idmap",
    "ridmap",
    "tmpcopyup",
    "rro",
    "rnosuid",
    "rnodev",
    "rnoexec",
    "rnoatime",
    "rrelatime",
    "loop",
];

pub fn all(spec: &Spec, refusals: &mut Vec<Refusal>) -> Vec<Mount> {
    let mounts = spec.mounts().iter().flatten();
    mounts.filter_map(|mount| one(mount, refusals)).collect()
}

fn one(mount: &oci_spec::runtime::Mount, refusals: &mut Vec<Refusal>) -> Option<Mount> {
    let destination = mount.destination();
    let mut refuse = |why: String| {
        refusals.push(Refusal::new(format!("mounts {}", destination.display()), why));
    };
    if !destination.is_absolute() {
        refuse("the destination is not an absolute path".to_owned());
        return None;
    }
    let mapped = |m: &Option<Vec<_>>| m.as_ref().is_some_and(|m: &Vec<_>| !m.is_empty());
    if mapped(mount.uid_mappings()) || mapped(mount.gid_mappings()) {
        refuse("mounts with mapped users are not supported".to_owned());
        return None;
    }
    let (mut flags, mut propagation, mut data) = (0, 0, Vec::new());
    for option in mount.options().iter().flatten() {
        if let Some((_, bits, clear)) = BITS.iter().find(|(name, ..)| name == option) {
            flags = if *clear { flags & !bits } else { flags | bits };
        } else if let Some((_, bits)) = PROPAGATION.iter().find(|(name, _)| name == option) {
            propagation = *bits;
        } else if REFUSED.contains(&option.as_str()) {
            refuse(format!("the option `{option}` is not supported"));
            return None;
        } else {
            data.push(option.as_str());
        }
    }
    let bound = flags & libc::MS_BIND != 0;
    let kind = mount.typ().as_deref().filter(|_| !bound).unwrap_or("bind");
    if kind == "bind" && !bound {
        flags |= libc::MS_BIND | libc::MS_REC;
    }
    let source = mount.source().clone().unwrap_or_else(|| PathBuf::from(kind));
    if kind == "bind" && !source.is_absolute() {
        refuse(format!("the source `{}` is not an absolute path", source.display()));
        return None;
    }
    // A bind mount takes no data: such options are for other runtimes' helpers.
    let data = if kind == "bind" { String::new() } else { data.join(",") };
    let kind = kind.to_owned();
    Some(Mount { destination: destination.clone(), kind, source, flags, propagation, data })
}
