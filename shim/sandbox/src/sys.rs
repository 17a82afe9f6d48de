//! The few system calls that no crate of ours wraps. Everything unsafe of this crate is here.

#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use rustix::mount::MountAttrFlags;

use crate::identity;

/// Bytes from which a block is mapped by itself: above the tensors of most requests, whose
/// memory is used again, and below the weights of a layer that is worth giving back.
#[cfg(target_env = "gnu")]
const LARGE_BLOCK: libc::c_int = 4 << 20;

/// Change attributes and propagation of a mount, and of all below it if `recursive`.
///
/// # Errors
/// `Unsupported` before Linux 5.12.
pub(crate) fn mount_setattr(
    mount: impl AsFd,
    recursive: bool,
    set: MountAttrFlags,
    clear: MountAttrFlags,
    propagation: u64,
) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(set.bits()),
        attr_clr: u64::from(clear.bits()),
        propagation,
        userns_fd: 0,
    };
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, and the kernel reads `attributes`, whose size is given,
    // during the call only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Close every file descriptor from `first` to `last`.
///
/// # Errors
/// `Unsupported` before Linux 5.9.
///
/// # Safety
/// Nobody may go on using one of them.
unsafe fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the caller's promise; the call touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Close what this process has inherited, but for the first three and `channel`. It must run
/// first of all: before this process opens anything of its own.
///
/// # Errors
/// The kernel is older than Linux 5.9.
pub fn close_inherited(channel: RawFd) -> io::Result<()> {
    let kept = u32::try_from(channel).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: nothing has been opened by this process yet, so nobody uses them.
    unsafe {
        if kept > 3 {
            close_range(3, kept - 1)?;
        }
        close_range(kept.max(2) + 1, u32::MAX)
    }
}

/// Take over an inherited socket. Call it once for each.
///
/// # Errors
/// The descriptor is not open.
pub fn adopt(descriptor: RawFd) -> io::Result<UnixStream> {
    // SAFETY: `fcntl` touches no memory; it fails if the descriptor is not open.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the caller owns it: it was inherited for exactly this.
    Ok(UnixStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

/// Block `signals` in this thread and all that it starts, and return a descriptor on which
/// they are read. A blocked signal reaches even the first process of a PID namespace, for
/// which the default action would be to ignore it.
///
/// # Errors
/// No descriptor is left.
pub(crate) fn take_signals(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: a signal set is plain data, for which zeros are valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours; the calls write into it and read it.
    let descriptor = unsafe {
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Leave the keys of whoever has started this process behind.
///
/// # Errors
/// No room for another keyring.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is touched.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>())
    };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Set variables of this process, for libraries that look at them. It must have one thread.
///
/// # Errors
/// It has several, which may be looking at the variables.
#[allow(clippy::disallowed_methods, reason = "the one place that has made sure of its one thread")]
pub fn set_variables(variables: &[(String, String)]) -> io::Result<()> {
    if variables.is_empty() {
        return Ok(());
    }
    let threads = identity::threads()?;
    if threads != 1 {
        return Err(io::Error::other(format!("{threads} threads may look at the variables")));
    }
    for (name, value) in variables {
        // SAFETY: no other thread exists that could read them meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

/// Bound the heaps that threads of this process make for themselves: each keeps what was
/// freed in it, and a pod has many threads that allocate little.
pub fn bound_heaps(count: u16) {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes two integers; one it does not know changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, libc::c_int::from(count));
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}

/// Give large blocks back as soon as they are freed. Left to itself the allocator learns to
/// keep blocks of up to 32 MiB, which is what a model's weights are made of, and what is at
/// the end of a thread's heap even [`trim_heaps`] does not give back.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls take two integers each; one they do not know changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * LARGE_BLOCK);
    }
}

/// Give memory that was freed back to the system.
pub fn trim_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call locks each heap that it trims.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Hand back the pages of this program that are only read: those that a start needed and nothing else does are
/// the kernel's to use then, and the others are mapped again when they are next looked at.
pub fn return_program() {
    // The C library knows this from the start; rustix would have to ask, which a worker in its sandbox can't.
    // SAFETY: the call takes an integer and reads what the library keeps.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    for segment in read_only() {
        let start = segment.start - segment.start % page;
        // SAFETY: the program's file is mapped there, for as long as it runs, and nothing is ever written: who
        // looks next, this thread included, has the same bytes from the file again.
        unsafe {
            libc::madvise(start as *mut libc::c_void, segment.end - start, libc::MADV_DONTNEED);
        }
    }
}

/// The parts of the program's own file that are mapped to be read or run and never written, not even by the
/// loader.
fn read_only() -> Vec<Range<usize>> {
    unsafe extern "C" fn first(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        found: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader hands out a record that is whole, whose headers are as many as it says, and what
        // was given to it beside this function, which is the vector below.
        let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<Range<usize>>>()) };
        let headers = usize::from(info.dlpi_phnum);
        // SAFETY: as above.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, headers) };
        let kept = |header: &&libc::Elf64_Phdr| {
            header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0
        };
        found.extend(headers.iter().filter(kept).map(|header| {
            let start = (info.dlpi_addr + header.p_vaddr) as usize;
            start..start + header.p_memsz as usize
        }));
        // The first is the program; libraries are not asked for.
        1
    }
    let mut found: Vec<Range<usize>> = Vec::new();
    // SAFETY: the function is one that the loader may call, with the vector, which outlives the call.
    unsafe {
        libc::dl_iterate_phdr(Some(first), (&raw mut found).cast());
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_program_goes_on_without_its_pages() {
        static READ: [u64; 3] = [1, 2, 3];
        let code = (the_program_goes_on_without_its_pages as fn()) as usize;
        let segments = read_only();
        assert!(segments.iter().any(|segment| segment.contains(&code)), "{segments:x?}");
        let text = fs::read_to_string("/proc/self/maps").unwrap();
        let writable = text.lines().filter(|line| line.contains(" rw-p "));
        for line in writable {
            let (start, _) = line.split_once('-').unwrap();
            let start = usize::from_str_radix(start, 16).unwrap();
            assert!(segments.iter().all(|segment| !segment.contains(&start)), "{line}");
        }
        return_program();
        assert_eq!(std::hint::black_box(&READ).iter().sum::<u64>(), 6);
    }
}
