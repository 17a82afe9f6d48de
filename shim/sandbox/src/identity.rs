//! Who the worker becomes: user and groups of the order, limits, and no capability at all, now
//! or ever.

use std::io;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit as Limit, Uid};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use crate::error::{LockdownError, Step as _};
use crate::order::{Rlimit, User};
use crate::sys;

/// Capabilities that a kernel can have; asking for one that it lacks is how the end is found.
const MAX_CAPABILITIES: u32 = 64;

/// What new files may not have unless the order says otherwise, as everywhere.
const UMASK: u32 = 0o022;

/// `RLIM_INFINITY` as the OCI spec writes it.
const UNLIMITED: u64 = u64::MAX;

/// Leave the session and the keys of whoever has started this process.
pub(crate) fn new_session() -> Result<(), LockdownError> {
    match rustix::process::setsid() {
        // It leads a group already: it was started in a session of its own.
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error).step(|| "start a session".to_owned()),
    }
    match sys::join_new_session_keyring() {
        // A kernel without keys has none to leave.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        joined => joined.step(|| "leave the keys of the shim".to_owned()),
    }
}

/// Set the order's limits.
pub(crate) fn limit(limits: &[Rlimit]) -> Result<(), LockdownError> {
    for limit in limits {
        let Some(resource) = resource(&limit.name) else {
            return Err(LockdownError::refused(
                format!("the limit {}", limit.name),
                "it is no RLIMIT_* of Linux",
            ));
        };
        let bound = |value: u64| (value != UNLIMITED).then_some(value);
        let new = Limit { current: bound(limit.soft), maximum: bound(limit.hard) };
        rustix::process::setrlimit(resource, new).step(|| {
            format!("set the limit {} to {} and {}", limit.name, limit.soft, limit.hard)
        })?;
    }
    Ok(())
}

/// Become the order's user. What only root may do must have been done.
pub(crate) fn become_user(user: &User) -> Result<(), LockdownError> {
    rustix::process::umask(Mode::from_raw_mode(user.umask.unwrap_or(UMASK)));
    let with_parent = || "keep the bond to the shim".to_owned();
    let bond = rustix::process::parent_process_death_signal().step(with_parent)?;
    forget_capabilities()?;
    let groups: Vec<_> = user.additional_gids.iter().map(|&gid| Gid::from_raw(gid)).collect();
    rustix::thread::set_thread_groups(&groups).step(|| "set the groups".to_owned())?;
    let gid = Gid::from_raw(user.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .step(|| format!("become group {}", user.gid))?;
    let uid = Uid::from_raw(user.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .step(|| format!("become user {}", user.uid))?;
    // A user other than root has lost them by now; root has not.
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).step(|| "drop all capabilities".to_owned())?;
    // The kernel forgets it when the user changes.
    rustix::process::set_parent_process_death_signal(bond).step(with_parent)?;
    rustix::thread::set_no_new_privs(true).step(|| "forbid new privileges".to_owned())?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .step(|| "forbid core dumps and tracing".to_owned())
}

/// Empty what capabilities could come back from.
fn forget_capabilities() -> Result<(), LockdownError> {
    for number in 0..MAX_CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(error) => {
                return Err(error).step(|| format!("give capability {number} up for ever"));
            }
        }
    }
    rustix::thread::clear_ambient_capability_set()
        .step(|| "empty the ambient capabilities".to_owned())?;
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits)
        .step(|| "make root an ordinary user".to_owned())
}

/// The limit of a name as the OCI spec has it.
fn resource(name: &str) -> Option<Resource> {
    Some(match name.strip_prefix("RLIMIT_")? {
        "CPU" => Resource::Cpu,
        "FSIZE" => Resource::Fsize,
        "DATA" => Resource::Data,
        "STACK" => Resource::Stack,
        "CORE" => Resource::Core,
        "RSS" => Resource::Rss,
        "NPROC" => Resource::Nproc,
        "NOFILE" => Resource::Nofile,
        "MEMLOCK" => Resource::Memlock,
        "AS" => Resource::As,
        "LOCKS" => Resource::Locks,
        "SIGPENDING" => Resource::Sigpending,
        "MSGQUEUE" => Resource::Msgqueue,
        "NICE" => Resource::Nice,
        "RTPRIO" => Resource::Rtprio,
        "RTTIME" => Resource::Rttime,
        _ => return None,
    })
}

/// How many threads this process has.
pub(crate) fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_the_names_of_the_oci_spec() {
        assert_eq!(resource("RLIMIT_NOFILE"), Some(Resource::Nofile));
        assert_eq!(resource("NOFILE"), None);
        let unknown = Rlimit { name: "RLIMIT_FUN".into(), soft: 1, hard: 1 };
        let error = limit(&[unknown]).unwrap_err().to_string();
        assert_eq!(error, "the limit RLIMIT_FUN is refused: it is no RLIMIT_* of Linux");
    }
}
