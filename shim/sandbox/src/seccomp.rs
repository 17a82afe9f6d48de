//! The system calls that a worker may make from here on; every other one fails as forbidden.
//!
//! The list is what wick, tokio, wasmtime, tract and ONNX Runtime use to serve: memory,
//! threads, files, sockets. No program is started, nothing is mounted, traced or loaded into
//! the kernel, no namespace is entered or made.

mod calls;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::error::LockdownError;

/// What a forbidden call answers with: what a call without the right to it answers.
const FORBIDDEN: u32 = libc::EPERM as u32;

/// What `clone3` answers with. Its flags are in memory, which a filter can't read, so the C
/// library is sent to `clone`, whose flags are checked.
const UNKNOWN: u32 = libc::ENOSYS as u32;

/// Flags of `clone` that make a thread of this process and nothing else.
const THREAD: u64 = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;

/// Flags of `clone` that make namespaces.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Requests of `ioctl`; C libraries don't agree on their type.
const TCGETS: u64 = 0x5401;
const TIOCGWINSZ: u64 = 0x5413;
const FIONREAD: u64 = 0x541b;
const FIONBIO: u64 = 0x5421;
const FIOCLEX: u64 = 0x5451;

/// Requests that make a terminal read what nobody has typed, take one over, or change what handles it: `TIOCSTI`,
/// `TIOCLINUX`, `TIOCSCTTY`, `TIOCSETD`.
const TERMINAL: [u64; 4] = [0x5412, 0x541c, 0x540e, 0x5423];

/// `PAGEMAP_SCAN`, by which wasmtime learns which pages an instance has written.
const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// `prctl` that names memory, for people who read `/proc/PID/maps`.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// The kind of a socket without `SOCK_CLOEXEC` and `SOCK_NONBLOCK`.
const SOCKET_KIND: u64 = 0xf;

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// What a worker may do beyond serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permissions {
    /// Connect to others, and ask for their names.
    pub network: bool,
    /// Ask drivers of devices that were granted.
    pub devices: bool,
}

/// A compiled list, ready to be put in force.
pub(crate) struct Filter {
    programs: [BpfProgram; 2],
}

// === impl Filter ===

impl Filter {
    pub(crate) fn new(permissions: Permissions) -> Result<Self, LockdownError> {
        let allowed = rules(permissions).and_then(|rules| compile(rules, FORBIDDEN, None));
        // Both filters are asked, and the stricter answer counts.
        let threads = Rules::from([(libc::SYS_clone3, vec![])]);
        let threads = compile(threads, 0, Some(UNKNOWN));
        match (allowed, threads) {
            (Ok(allowed), Ok(threads)) => Ok(Self { programs: [threads, allowed] }),
            (Err(error), _) | (_, Err(error)) => Err(failed(&error)),
        }
    }

    /// Put it in force for every thread, for good.
    pub(crate) fn apply(&self) -> Result<(), LockdownError> {
        let [threads, allowed] = &self.programs;
        // The list that forbids `seccomp` itself comes last.
        seccompiler::apply_filter_all_threads(threads)
            .and_then(|()| seccompiler::apply_filter_all_threads(allowed))
            .map_err(|error| LockdownError::Failed {
                step: "put the list of system calls in force".to_owned(),
                source: std::io::Error::other(error.to_string()),
            })
    }
}

/// A program that lets `rules` pass and answers others with `errno`; or, with `matched`, that
/// answers `rules` with it and lets others pass.
fn compile(
    rules: Rules,
    errno: u32,
    matched: Option<u32>,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let (others, these) = match matched {
        Some(errno) => (SeccompAction::Allow, SeccompAction::Errno(errno)),
        None => (SeccompAction::Errno(errno), SeccompAction::Allow),
    };
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, others, these, architecture)?.try_into()
}

fn failed(error: &seccompiler::BackendError) -> LockdownError {
    LockdownError::refused("a worker on this processor", error.to_string())
}

fn rules(permissions: Permissions) -> Result<Rules, seccompiler::BackendError> {
    let always = calls::COMMON.iter().chain(calls::OF_ARCHITECTURE);
    let mut rules: Rules = always.map(|&call| (call, vec![])).collect();
    if permissions.network {
        rules.extend(calls::CONNECT.iter().map(|&call| (call, vec![])));
    }
    let own = u64::from(std::process::id());
    let one =
        |condition| Ok::<_, seccompiler::BackendError>(vec![SeccompRule::new(vec![condition])?]);
    rules.insert(
        libc::SYS_clone,
        vec![SeccompRule::new(vec![masked(0, THREAD, THREAD)?, masked(0, NAMESPACES, 0)?])?],
    );
    // Allowed here, so that the other filter's answer is the stricter one.
    rules.insert(libc::SYS_clone3, vec![]);
    // To threads of this process, to abort it for example.
    rules.insert(libc::SYS_tgkill, one(equal(0, own)?)?);
    // Limits are read, not set: the second argument is what would be set.
    rules.insert(libc::SYS_prlimit64, one(whole(2, 0)?)?);
    rules.insert(libc::SYS_prctl, any_of(0, &PRCTL)?);
    rules.insert(libc::SYS_ioctl, requests(permissions)?);
    rules.insert(libc::SYS_socket, sockets(permissions)?);
    // A pair is connected to itself; a socket of its own could reach others of the node.
    rules.insert(libc::SYS_socketpair, one(equal(0, libc::AF_UNIX as u64)?)?);
    Ok(rules)
}

/// What threads may change about themselves: their names.
const PRCTL: [u64; 3] = [libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64, PR_SET_VMA];

/// Requests to files and sockets: whether it is a terminal, how much there is to read, whether
/// calls wait, and which pages were written.
const IOCTL: [u64; 6] = [TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, PAGEMAP_SCAN];

/// The requests above; to drivers any but those that put words into a terminal.
fn requests(permissions: Permissions) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    if !permissions.devices {
        return any_of(1, &IOCTL);
    }
    let never = TERMINAL.map(|request| {
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, request)
    });
    Ok(vec![SeccompRule::new(never.into_iter().collect::<Result<_, _>>()?)?])
}

/// Streams of IPv4 and IPv6; with the network granted, packets too, for names.
fn sockets(permissions: Permissions) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mut rules = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            if kind == libc::SOCK_STREAM || permissions.network {
                let family = equal(0, family as u64)?;
                rules.push(SeccompRule::new(vec![family, masked(1, SOCKET_KIND, kind as u64)?])?);
            }
        }
    }
    Ok(rules)
}

fn any_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    values.iter().map(|&value| SeccompRule::new(vec![equal(argument, value)?])).collect()
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn whole(argument: u8, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
}

fn masked(
    argument: u8,
    mask: u64,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    let compare = SeccompCmpOp::MaskedEq(mask);
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, compare, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_compiles_and_has_nothing_that_leads_out() {
        for (network, devices) in [(false, false), (true, false), (false, true)] {
            let permissions = Permissions { network, devices };
            Filter::new(permissions).unwrap();
            let rules = rules(permissions).unwrap();
            for never in [
                libc::SYS_execve,
                libc::SYS_execveat,
                libc::SYS_ptrace,
                libc::SYS_mount,
                libc::SYS_setns,
                libc::SYS_unshare,
                libc::SYS_bpf,
                libc::SYS_perf_event_open,
                libc::SYS_userfaultfd,
                libc::SYS_io_uring_setup,
                libc::SYS_keyctl,
                libc::SYS_kill,
                libc::SYS_seccomp,
                libc::SYS_setuid,
                libc::SYS_chroot,
                libc::SYS_pivot_root,
                libc::SYS_process_vm_readv,
                libc::SYS_open_by_handle_at,
            ] {
                assert!(!rules.contains_key(&never), "system call {never}");
            }
            assert_eq!(rules.contains_key(&libc::SYS_connect), network);
            // One rule for each request that is known, or one for all but those of terminals.
            let requests = if devices { 1 } else { IOCTL.len() };
            assert_eq!(rules[&libc::SYS_ioctl].len(), requests);
        }
    }
}
