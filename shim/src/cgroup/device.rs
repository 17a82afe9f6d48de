//! The permitted devices of a container: rules of the spec in order, the last one that matches
//! decides. v1 takes them as text; v2 has no file for them, so they become a small eBPF program
//! on the group's folder.
#![allow(unsafe_code, reason = "bpf(2) has no safe binding: a program is passed by address")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of the folders above stay in force.
const BPF_F_ALLOW_MULTI: u32 = 2;

const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;

/// One rule. No number is every number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    /// `c`, `b`, or `a` for both.
    pub kind: char,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Some of `rwm`.
    pub access: String,
}

/// One instruction of the kernel's virtual machine.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Op {
    code: u8,
    /// Destination in the low, source in the high four bits.
    registers: u8,
    offset: i16,
    value: i32,
}

// === impl Rule ===

impl Rule {
    /// The file of v1 and the line in it.
    pub fn v1(&self) -> (&'static str, String) {
        let file = if self.allow { "devices.allow" } else { "devices.deny" };
        if self.kind == 'a' && self.major.is_none() && self.minor.is_none() {
            return (file, "a".to_owned());
        }
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        (file, format!("{} {major}:{minor} {}", self.kind, self.access))
    }

    fn mask(&self) -> i32 {
        let bit = |c: char, bit: i32| if self.access.contains(c) { bit } else { 0 };
        bit('r', READ) | bit('w', WRITE) | bit('m', MKNOD)
    }
}

/// Attach the rules to a folder of v2. Without rules nothing changes.
///
/// # Errors
/// The kernel refuses the program.
pub fn attach(folder: &Path, rules: Option<&[Rule]>) -> io::Result<()> {
    let Some(rules) = rules else { return Ok(()) };
    let folder = File::open(folder)?;
    let program = load(&compile(rules))?;
    #[repr(C)]
    struct Attach {
        target: RawFd,
        program: RawFd,
        kind: u32,
        flags: u32,
    }
    let attach = Attach {
        target: folder.as_raw_fd(),
        program: program.as_raw_fd(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attach` is the head of the kernel's union for this command, and its size is
    // passed; both descriptors are open. The kernel reads it during the call only.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn load(program: &[Op]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        program: u64,
        license: u64,
    }
    let license = c"Apache-2.0";
    let count = u32::try_from(program.len()).map_err(io::Error::other)?;
    let load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count,
        program: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    // SAFETY: `load` is the head of the kernel's union for this command, and its size is
    // passed; `program` and `license` outlive the call, and `count` is the program's length.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The last rule that matches decides, so the program tries them from the last to the first.
/// The context is type and access in one word, then major and minor.
fn compile(rules: &[Rule]) -> Vec<Op> {
    let op = |code, dst: u8, src: u8, offset, value| Op {
        code,
        registers: dst | src << 4,
        offset,
        value,
    };
    let mut program = vec![
        op(0x61, 2, 1, 0, 0),      // r2 = context.type_and_access
        op(0xbf, 3, 2, 0, 0),      // r3 = r2
        op(0x57, 2, 0, 0, 0xffff), // r2 &= 0xffff: the type
        op(0x77, 3, 0, 0, 16),     // r3 >>= 16: the access
        op(0x61, 4, 1, 4, 0),      // r4 = context.major
        op(0x61, 5, 1, 8, 0),      // r5 = context.minor
    ];
    for rule in rules.iter().rev() {
        let mut tests = Vec::new();
        match rule.kind {
            'b' => tests.push(op(0x55, 2, 0, 0, 1)), // skip if r2 != block
            'c' => tests.push(op(0x55, 2, 0, 0, 2)), // skip if r2 != character
            _ => {}
        }
        let mask = rule.mask();
        if mask != ALL {
            tests.push(op(0xbf, 1, 3, 0, 0)); // r1 = r3
            if rule.allow {
                // Skip if it asks for more than this rule gives.
                tests.push(op(0x57, 1, 0, 0, ALL & !mask));
                tests.push(op(0x55, 1, 0, 0, 0));
            } else {
                // Skip if it asks for nothing that this rule denies.
                tests.push(op(0x57, 1, 0, 0, mask));
                tests.push(op(0x15, 1, 0, 0, 0));
            }
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                tests.push(op(0x55, register, 0, 0, number.cast_signed()));
            }
        }
        // A jump skips the rest of the tests and the two instructions of the verdict.
        let length = tests.len();
        for (at, test) in tests.iter_mut().enumerate() {
            if matches!(test.code, 0x55 | 0x15) {
                test.offset = i16::try_from(length - at - 1 + 2).unwrap_or(i16::MAX);
            }
        }
        program.append(&mut tests);
        program.push(op(0xb7, 0, 0, 0, i32::from(rule.allow)));
        program.push(op(0x95, 0, 0, 0, 0));
        if length == 0 {
            // It decides all that is left, and the kernel refuses what is never reached.
            return program;
        }
    }
    program.push(op(0xb7, 0, 0, 0, 0)); // r0 = 0: refused
    program.push(op(0x95, 0, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: char, major: Option<u32>, minor: Option<u32>, access: &str) -> Rule {
        Rule { allow, kind, major, minor, access: access.to_owned() }
    }

    /// What the compiled program says, by running its few instructions here.
    fn permits(rules: &[Rule], kind: u64, access: u64, major: u64, minor: u64) -> bool {
        let program = compile(rules);
        let context = [kind | access << 16, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0;
        loop {
            let op = program[at];
            let (dst, src) = (usize::from(op.registers & 15), usize::from(op.registers >> 4));
            let value = u64::try_from(op.value).unwrap();
            at += 1;
            let jump = usize::try_from(op.offset).unwrap();
            match op.code {
                0x61 => registers[dst] = context[usize::try_from(op.offset).unwrap() / 4],
                0xbf => registers[dst] = registers[src],
                0xb7 => registers[dst] = value,
                0x57 => registers[dst] &= value,
                0x77 => registers[dst] >>= value,
                0x55 if registers[dst] != value => at += jump,
                0x15 if registers[dst] == value => at += jump,
                0x55 | 0x15 => {}
                0x95 => return registers[0] != 0,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let rules = [
            rule(false, 'a', None, None, "rwm"),
            rule(true, 'c', None, None, "m"),
            rule(true, 'c', Some(1), Some(3), "rw"),
            rule(true, 'b', Some(8), None, "r"),
            rule(false, 'b', Some(8), Some(1), "rw"),
        ];
        assert!(permits(&rules, 2, 1, 5, 5), "mknod of any character device");
        assert!(permits(&rules, 2, 6, 1, 3), "/dev/null");
        assert!(!permits(&rules, 2, 7, 1, 3), "more than the rule gives");
        assert!(!permits(&rules, 2, 2, 1, 5));
        assert!(permits(&rules, 1, 2, 8, 0));
        assert!(!permits(&rules, 1, 4, 8, 0));
        assert!(!permits(&rules, 1, 2, 8, 1));
        assert!(!permits(&[], 2, 2, 1, 3), "nothing is permitted by no rule");
    }

    #[test]
    fn v1_takes_the_rules_as_text() {
        assert_eq!(rule(false, 'a', None, None, "rwm").v1(), ("devices.deny", "a".to_owned()));
        let tty = rule(true, 'c', Some(136), None, "rw").v1();
        assert_eq!(tty, ("devices.allow", "c 136:* rw".to_owned()));
    }
}
