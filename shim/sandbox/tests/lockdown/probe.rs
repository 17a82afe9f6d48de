//! Locks itself down as an order on its standard input says, and then tries what its arguments
//! say, one line of output each. The tests read the lines; a test process itself has several
//! threads and must not be locked down.

#![allow(unsafe_code, reason = "makes system calls that no library offers, to see them refused")]
#![allow(clippy::print_stdout, reason = "its output is what tests read")]

use std::error::Error;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::thread::UnshareFlags;
use wick_sandbox::{Channel, Driver, Order};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((stage, rest)) if stage == "outer" => outer(rest),
        Some((stage, rest)) if stage == "inner" => inner(rest),
        _ => Err("say outer or inner".into()),
    };
    done.unwrap_or_else(|error| {
        println!("probe => {error}");
        ExitCode::from(9)
    })
}

/// Make namespaces, and go on in a child, which is the first process of its own.
fn outer(rest: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWCGROUP
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWNET;
    // SAFETY: descriptors are not unshared.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    let status = Command::new(std::env::current_exe()?).arg("inner").args(rest).status()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(8)))
}

fn inner(actions: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    wick_sandbox::close_inherited(0)?;
    let mut channel = Channel::new(wick_sandbox::adopt(0)?);
    let order: Order = channel.receive(None)?;
    let driver = Driver { name: "0-one.json".to_owned(), text: "of a driver".to_owned() };
    let phases = match wick_sandbox::lock_down(&order, &[driver]) {
        Ok(phases) => phases,
        Err(error) => {
            println!("lockdown => {}: {error}", error.code());
            return Ok(ExitCode::from(3));
        }
    };
    let phases: Vec<_> =
        phases.iter().map(|phase| format!("{} {}", phase.name, phase.micros)).collect();
    println!("lockdown => ok: {}", phases.join(", "));
    // Threads that come later are locked down as well.
    for _ in 0..2 {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    for action in actions {
        let done = act(action);
        match done {
            Ok(text) => println!("{action} => ok: {}", text.trim().replace('\n', "; ")),
            Err(error) => println!("{action} => error {}", error.raw_os_error().unwrap_or(-1)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn act(action: &str) -> io::Result<String> {
    let (verb, what) = action.split_once(':').unwrap_or((action, ""));
    match verb {
        "status" => status(),
        "threads" => {
            std::thread::spawn(|| ()).join().map_err(|_| io::Error::other("panicked"))?;
            Ok(String::new())
        }
        "read" => {
            let mut text = Vec::new();
            std::fs::File::open(what)?.take(4096).read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        "write" => std::fs::write(what, "x").map(|()| String::new()),
        "list" => {
            let names = std::fs::read_dir(what)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let mut names = names.collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names.join(" "))
        }
        "cwd" => Ok(std::env::current_dir()?.display().to_string()),
        "run" => Command::new(what).status().map(|status| status.to_string()),
        "exec" => Err(Command::new(what).exec()),
        "mkdir" => std::fs::create_dir(what).map(|()| String::new()),
        "mount" => {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("none", what, "tmpfs", flags, c"")?;
            Ok(String::new())
        }
        "descriptors" => act("list:/proc/self/fd"),
        "listen" => {
            let listener = std::net::TcpListener::bind(what)?;
            Ok(listener.local_addr()?.port().to_string())
        }
        "connect" => std::net::TcpStream::connect(what).map(|_| String::new()),
        "limit" => {
            let limits = std::fs::read_to_string("/proc/self/limits")?;
            Ok(limits.lines().find(|line| line.contains(what)).unwrap_or_default().to_owned())
        }
        "call" => call(what),
        "code" => code(what),
        _ => Err(io::Error::other("no such action")),
    }
}

/// A system call by number, with numbers for arguments.
fn call(what: &str) -> io::Result<String> {
    let numbers = what.split(',').map(str::parse::<libc::c_long>);
    let numbers = numbers.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
    // SAFETY: the tests pass no argument that the kernel would write through.
    let result = unsafe { libc::syscall(at(0), at(1), at(2), at(3), at(4), at(5), at(6)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result.to_string()) }
}

/// Map a file as code, which nothing runs.
fn code(path: &str) -> io::Result<String> {
    let file = std::fs::File::open(path)?;
    let flags = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::EXEC;
    let private = rustix::mm::MapFlags::PRIVATE;
    // SAFETY: a new mapping takes nobody's memory, and is left alone.
    unsafe { rustix::mm::mmap(std::ptr::null_mut(), 1, flags, private, &file, 0) }?;
    Ok(String::new())
}

/// What every thread may do, each different answer once.
fn status() -> io::Result<String> {
    const FIELDS: [&str; 11] = [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
    ];
    let mut answers = Vec::new();
    let mut threads = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("status"))?;
        let wanted = text.lines().filter_map(|line| line.split_once(':'));
        let wanted = wanted.filter(|(name, _)| FIELDS.contains(name));
        let parts = wanted.map(|(name, value)| {
            let value: Vec<_> = value.split_whitespace().collect();
            format!("{name}={}", value.join(","))
        });
        answers.push(parts.collect::<Vec<_>>().join(" "));
        threads += 1;
    }
    answers.sort();
    answers.dedup();
    Ok(format!("{threads} threads: {}", answers.join(" | ")))
}
