//! A command: it prints its arguments and does what the first one says.
//!
//! ```text
//!  NUMBER         end with this status       loop           never end
//!  panic          panic                      eat            take memory until it is refused
//!  print TEXT     TEXT without a line's end, and wait for an hour
//!  env            its environment            ls PATH        names in a folder
//!  cat PATH       a file                     write PATH TEXT
//!  connect HOST:PORT                         tick           a number every 50 ms
//! ```
//!
//! What is refused is printed with its reason, and the status is 1.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "what a command prints, and how it ends, is what is tested"
)]

use std::hint::black_box;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Bytes that it takes at once.
const BITE: usize = 16 << 20;

fn main() {
    let args: Vec<_> = std::env::args().collect();
    println!("{}", args.join(" "));
    eprintln!("{} arguments", args.len() - 1);
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    if let Err(error) = run(&words) {
        println!("refused: {error}");
        std::process::exit(1);
    }
}

fn run(words: &[&str]) -> io::Result<()> {
    match words {
        [] => {}
        ["loop"] => loop {
            black_box(0);
        },
        ["panic"] => panic!("no luck as a tool"),
        ["eat"] => eat(),
        ["print", text] => {
            print!("{text}");
            io::stdout().flush()?;
            std::thread::sleep(Duration::from_secs(3600));
        }
        ["tick"] => {
            for number in 0_u64.. {
                println!("tick {number}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        ["env"] => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["ls", path] => {
            for entry in std::fs::read_dir(path)? {
                println!("{}", entry?.file_name().to_string_lossy());
            }
        }
        ["cat", path] => println!("{}", std::fs::read_to_string(path)?),
        ["write", path, text] => std::fs::write(path, text)?,
        ["connect", address] => drop(TcpStream::connect(address)?),
        [status, ..] => std::process::exit(status.parse().unwrap_or(1)),
    }
    Ok(())
}

fn eat() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1_u8; BITE]));
        println!("{} MiB", (eaten.len() * BITE) >> 20);
    }
}
