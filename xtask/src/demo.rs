//! `cargo xtask demo`: the whole road, from a fresh clone to answers of real models, each
//! step shown with what it took.
//!
//! ```text
//!   setup ─▶ build ─▶ pack three examples ─▶ serve the images ─▶ call them ─▶ stop
//! ```

pub mod fleet;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::house::House;
use crate::report::Seconds;
use crate::server::Server;
use crate::tools;
use crate::{bench, setup};

/// A package and what it is asked.
struct Example {
    name: &'static str,
    what: &'static str,
    calls: &'static [Call],
}

/// Flags of one `wick infer`; paths are relative to the tree.
struct Call(&'static [&'static str]);

const EXAMPLES: &[Example] = &[
    Example {
        name: "filetype",
        what: "any file in, its type out (Magika, a handler in Rust)",
        calls: &[
            Call(&["--input", "bytes=@examples/filetype/tests/samples/thermostat.py"]),
            Call(&["--input", "bytes=@examples/filetype/tests/samples/sun.jpg"]),
        ],
    },
    Example {
        name: "ocr",
        what: "a picture in, its text out (PP-OCRv6, two graphs in one handler)",
        calls: &[Call(&[
            "--input",
            "picture=@examples/ocr/tests/pictures/sign.png",
            "--only",
            "text",
            "--only",
            "score",
        ])],
    },
    Example {
        name: "passthrough",
        what: "a model without code: is this line of text upright (first number) or not?",
        calls: &[Call(&["--input", "x=@examples/orientation/pictures/rotated.png"])],
    },
];

/// Where `--serve` listens: what README.md names.
const ADDRESS: &str = "127.0.0.1:8080";

/// Longest start with cold caches: components are compiled, graphs optimised.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// What ONNX Runtime says of graphs that it optimises is not for a first look.
const LOG: &str = "warn,wick_nn::onnxruntime=error";

/// How far results are moved in.
const INDENT: &str = "    ";

pub fn run(house: &House, args: &[String]) -> anyhow::Result<()> {
    let keep = match args {
        [word, rest @ ..] if word == "fleet" => return fleet::run(house, rest),
        [] => false,
        [flag] if flag == "--serve" => true,
        _ => bail!("usage: cargo xtask demo [--serve | fleet [--sites NUMBER]]"),
    };
    timed("set up: models, ONNX Runtime, guests", || setup::run(house))?;
    timed("built wick", || bench::build(house))?;
    // A folder that the next demo writes again: Ctrl-C leaves no time to remove one.
    let folder = house.target.join("demo");
    fs::create_dir_all(&folder)?;
    let mut images = Vec::new();
    for example in EXAMPLES {
        let image = folder.join(format!("{}.tar", example.name));
        let what = format!("packed {} into an OCI image", example.name);
        timed(&what, || pack(house, example, &image))?;
        images.push(image);
    }
    let address = if keep { ADDRESS } else { "127.0.0.1:0" };
    let server = timed("serving all three, loaded and warm", || serve(house, &images, address))?;
    for example in EXAMPLES {
        println!("\n{}: {}", example.name, example.what);
        for call in example.calls {
            ask(house, &server, example, call)?;
        }
    }
    println!();
    if keep {
        println!("serving at {} until Ctrl-C; try\n", server.url());
        println!("{INDENT}curl {}/v2/models/filetype", server.url());
        // Ctrl-C reaches wick as well, which then drains; this process is not needed for it.
        return server.wait().map(drop);
    }
    let status = timed("stopped: SIGTERM, requests finished", || server.stop())?;
    ensure!(status.success(), "wick ended with {status}");
    println!("\nWhat next: `cargo xtask demo --serve`, `wick new`, README.md");
    Ok(())
}

/// Do a step and show what it took.
fn timed<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    let done = work()?;
    println!("{what:<44}{:>9}", Seconds(start.elapsed()).to_string());
    // Seen at once, also when standard output is a file.
    std::io::stdout().flush()?;
    Ok(done)
}

fn pack(house: &House, example: &Example, image: &Path) -> anyhow::Result<()> {
    let mut wick = Command::new(house.wick());
    wick.arg("pack").arg(house.examples().join(example.name)).arg("--out").arg(image);
    tools::output(wick.args(["--output", "json"])).map(drop)
}

fn serve(house: &House, images: &[PathBuf], address: &str) -> anyhow::Result<Server> {
    let mut wick = Command::new(house.wick());
    wick.arg("run").args(images).args(["--addr", address, "--output", "json"]);
    wick.arg("--onnxruntime").arg(house.onnxruntime()).env("RUST_LOG", LOG);
    Server::start(&mut wick, START_TIMEOUT)
}

/// One `wick infer`, shown as it is typed, and what it printed.
fn ask(house: &House, server: &Server, example: &Example, call: &Call) -> anyhow::Result<()> {
    let mut wick = Command::new(house.wick());
    wick.arg("infer").arg(server.url()).arg(example.name).args(call.0);
    println!("  $ wick infer {} {} {}", server.url(), example.name, call.0.join(" "));
    let output = wick.current_dir(&house.root).stdin(Stdio::null()).output();
    let output = output.context("run wick infer")?;
    for text in [&output.stdout, &output.stderr] {
        for line in String::from_utf8_lossy(text).lines() {
            println!("{INDENT}{line}");
        }
    }
    ensure!(output.status.success(), "wick infer failed: {}", output.status);
    Ok(())
}
