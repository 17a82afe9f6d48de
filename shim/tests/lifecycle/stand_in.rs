//! A worker that is none: it speaks the protocol, locks nothing down, and does what the
//! second word of its order's arguments says.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use wick_sandbox::order::{Go, Order, Phase, Report};
use wick_sandbox::{Channel, channel::WORKER_FD};

pub fn main() {
    let inherited = descriptors();
    let mut channel = Channel::new(wick_sandbox::adopt(WORKER_FD).unwrap());
    let order: Order = channel.receive(None).unwrap();
    let behaviour = order.args.get(1).cloned().unwrap_or_default();
    let value = order.args.get(2).cloned().unwrap_or_default();
    if behaviour == "fail-ready" {
        return fail(&mut channel, "no backend of this name");
    }
    let phase = Phase { name: "lockdown".to_owned(), at: 1_795_530_096_000_000, micros: 7 };
    channel.send(&Report::Ready { phases: vec![phase] }).unwrap();
    if channel.receive::<Go>(None).is_err() {
        return;
    }
    if behaviour == "fail-start" {
        return fail(&mut channel, "the port is taken");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        channel.send(&Report::Started { addr: None, phases: Vec::new() }).unwrap();
        let code = match behaviour.as_str() {
            "exit" => value.parse().unwrap(),
            "abort" => std::process::abort(),
            "print" => {
                print!("{value}");
                std::io::stdout().flush().unwrap();
                eprint!("to stderr");
                0
            }
            "eat" => {
                let mut eaten: Vec<Vec<u8>> = Vec::new();
                loop {
                    eaten.push(vec![1; 1 << 20]);
                }
            }
            "stubborn" => loop {
                terminate.recv().await;
            },
            "count" => count(&value).await,
            "tell" => tell(&value, &order, &inherited).await,
            _ => {
                terminate.recv().await;
                0
            }
        };
        std::process::exit(code);
    });
}

fn fail(channel: &mut Channel, message: &str) {
    let failed = Report::Failed { code: "stand-in".to_owned(), message: message.to_owned() };
    channel.send(&failed).unwrap();
}

/// What is open, the folder that lists it included.
fn descriptors() -> String {
    let listed = fs::read_dir("/proc/thread-self/fd").unwrap().flatten();
    let names = listed.map(|e| e.file_name().to_string_lossy().into_owned());
    names.collect::<Vec<_>>().join(",")
}

/// Write a growing number to a file, so that a pause can be seen.
async fn count(file: &str) -> i32 {
    for number in 0u64.. {
        fs::write(file, number.to_string()).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    0
}

/// Write what this process sees of itself to a file, and wait.
async fn tell(file: &str, order: &Order, inherited: &str) -> i32 {
    let link = |name: &str| fs::read_link(format!("/proc/thread-self/ns/{name}")).ok();
    let mut text = String::new();
    for name in ["net", "ipc", "uts", "cgroup", "mnt"] {
        text += &format!("{name} {}\n", link(name).unwrap_or_default().display());
    }
    let hostname = rustix::system::uname();
    text += &format!("hostname {}\n", hostname.nodename().to_string_lossy());
    text += &format!("pid {}\n", std::process::id());
    text += &format!("cache {:?}\nbackends {:?}\n", order.cache, order.backends);
    text += &format!("sealed {}\n", order.sealed);
    for line in fs::read_to_string("/proc/thread-self/cgroup").unwrap_or_default().lines() {
        text += &format!("cgroup-line {line}\n");
    }
    text += &format!("fds {inherited}\n");
    text += &format!("env {}\n", std::env::vars().map(|(k, _)| k).collect::<Vec<_>>().join(","));
    fs::write(file, text).unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    terminate.recv().await;
    0
}
