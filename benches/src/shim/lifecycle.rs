//! Shims without containerd: how fast a container is made, and how many tasks a second go
//! from nothing to their end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::future::try_join_all;
use serde_json::json;

use crate::bar;
use crate::packages;
use crate::setup::Setup;
use crate::stats::{median, quantile, round};

use super::bundle::{Bundle, Program};
use super::driver::{Driver, Shim, Times};
use super::parts::Parts;
use super::phases;

/// Containers of each peer, after one that warms caches.
const STARTS: usize = 25;

/// Rounds of tasks, and tasks of each peer in a round, so many of them at once.
const TASK_ROUNDS: usize = 5;
const TASKS: usize = 32;
const AT_ONCE: usize = 8;

/// One shim and what it runs.
struct Peer {
    name: &'static str,
    shim: PathBuf,
    image: PathBuf,
    args: Vec<&'static str>,
    cgroup: String,
}

/// What one peer's containers took, in milliseconds.
#[derive(Default)]
struct Figures {
    shim: Vec<f64>,
    create: Vec<f64>,
    start: Vec<f64>,
    both: Vec<f64>,
}

/// Create and Start of a server: runc's is a static program, wick's a package with a model.
pub fn create_start(setup: &Setup, parts: &Parts) -> anyhow::Result<()> {
    let package = packages::small_passthrough(setup)?;
    let native = native_image(setup, parts)?;
    let mut peers = vec![
        Peer {
            name: "runc",
            shim: parts.runc_shim.clone(),
            image: native.clone(),
            args: vec!["/native", "serve"],
            cgroup: parts.cgroup.clone(),
        },
        Peer {
            name: "wick",
            shim: parts.wick_shim.clone(),
            image: package,
            args: vec!["/wick.toml"],
            cgroup: parts.cgroup.clone(),
        },
    ];
    peers.extend(parts.runwasi_shim.clone().map(|shim| Peer {
        name: "runwasi",
        shim,
        image: native,
        args: vec!["/native", "serve"],
        cgroup: parts.cgroup.clone(),
    }));
    let scratch = setup.folder("create-start")?;
    let mut figures: Vec<Figures> = peers.iter().map(|_| Figures::default()).collect();
    let mut table = phases::Table::default();
    runtime()?.block_on(async {
        let driver = driver(setup, parts, &scratch).await?;
        for round in 0..=STARTS {
            for (peer, figures) in peers.iter().zip(&mut figures) {
                let id = format!("{}-{round}", peer.name);
                let (bundle, shim, times) = peer.start(&driver, &scratch, &id).await?;
                // The first warms caches and is not counted.
                if round > 0 {
                    figures.add(&shim, &times);
                    table.add(peer.name, &bundle.folder);
                }
                shim.kill().await?;
                shim.finish().await?;
                driver.clean(&peer.shim, &bundle).await?;
            }
        }
        anyhow::Ok(())
    })?;
    table.print();
    let detail: serde_json::Map<_, _> =
        peers.iter().zip(&figures).map(|(peer, f)| (peer.name.to_owned(), f.json())).collect();
    let ratio = median(&figures[1].both) / median(&figures[0].both);
    bar::report("create-start-vs-runc", ratio, "ratio", detail.into());
    Ok(())
}

/// Tasks from nothing to their end: shim, Create, Start, exit, Delete, shim's end.
pub fn tasks(setup: &Setup, parts: &Parts) -> anyhow::Result<()> {
    let command = command_image(setup)?;
    let native = native_image(setup, parts)?;
    let args = vec!["/native", "exit"];
    let runc = Peer {
        name: "runc",
        shim: parts.runc_shim.clone(),
        image: native,
        args,
        cgroup: parts.cgroup.clone(),
    };
    let args = vec!["/tool.wasm", "0"];
    let wick = Peer {
        name: "wick",
        shim: parts.wick_shim.clone(),
        image: command,
        args,
        cgroup: parts.cgroup.clone(),
    };
    let scratch = setup.folder("tasks")?;
    let (mut of_runc, mut of_wick) = (vec![], vec![]);
    runtime()?.block_on(async {
        let driver = driver(setup, parts, &scratch).await?;
        for round in 0..=TASK_ROUNDS {
            for (peer, rates) in [(&runc, &mut of_runc), (&wick, &mut of_wick)] {
                let rate = rate(&driver, peer, &scratch, round).await?;
                if round > 0 {
                    rates.push(rate);
                }
            }
        }
        anyhow::Ok(())
    })?;
    let detail = json!({
        "at_once": AT_ONCE,
        "runc_per_second": round(median(&of_runc)),
        "wick_per_second": round(median(&of_wick)),
    });
    bar::report("tasks-vs-runc", median(&of_wick) / median(&of_runc), "ratio", detail);
    Ok(())
}

/// Tasks a second of one peer.
async fn rate(driver: &Driver, peer: &Peer, scratch: &Path, round: usize) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let lanes = (0..AT_ONCE).map(|lane| async move {
        for index in (lane..TASKS).step_by(AT_ONCE) {
            let id = format!("{}-{round}-{index}", peer.name);
            let (bundle, shim, _) = peer.start(driver, scratch, &id).await?;
            let code = shim.finish().await?;
            anyhow::ensure!(code == 0, "{id} ended with {code}");
            driver.clean(&peer.shim, &bundle).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(lanes).await?;
    Ok(TASKS as f64 / begin.elapsed().as_secs_f64())
}

// === impl Peer ===

impl Peer {
    async fn start(
        &self,
        driver: &Driver,
        scratch: &Path,
        id: &str,
    ) -> anyhow::Result<(Bundle, Shim, Times)> {
        let program = Program { image: &self.image, args: &self.args, cgroup: &self.cgroup };
        let bundle = Bundle::write(scratch, id, &program)?;
        let shim = driver.start(&self.shim, &bundle).await?;
        let times = shim.run(&bundle).await.with_context(|| format!("{id}: {}", log(&bundle)))?;
        Ok((bundle, shim, times))
    }
}

// === impl Figures ===

impl Figures {
    fn add(&mut self, shim: &Shim, times: &Times) {
        self.shim.push(shim.start_ms);
        self.create.push(times.create_ms);
        self.start.push(times.start_ms);
        self.both.push(times.create_ms + times.start_ms);
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "shim_start_ms": round(median(&self.shim)),
            "create_ms": round(median(&self.create)),
            "start_ms": round(median(&self.start)),
            "create_start_ms": round(median(&self.both)),
            "create_start_p90_ms": round(quantile(&self.both, 0.9)),
        })
    }
}

/// What a shim has logged, for an error.
fn log(bundle: &Bundle) -> String {
    fs::read_to_string(bundle.folder.join("log")).unwrap_or_default()
}

/// The files of an image with the static program.
fn native_image(setup: &Setup, parts: &Parts) -> anyhow::Result<PathBuf> {
    let image = setup.folder("native-image")?;
    fs::copy(&parts.native, image.join("native"))?;
    Ok(image)
}

/// The files of an image with a WebAssembly command.
fn command_image(setup: &Setup) -> anyhow::Result<PathBuf> {
    let image = setup.folder("command-image")?;
    fs::copy(setup.guests.join("tool.wasm"), image.join("tool.wasm"))?;
    Ok(image)
}

async fn driver(setup: &Setup, parts: &Parts, scratch: &Path) -> anyhow::Result<Driver> {
    let cache = setup.folder("shim-cache")?;
    let environment =
        vec![("WICK_WORKER".to_owned(), setup.wick.clone()), ("WICK_CACHE".to_owned(), cache)];
    Driver::new(scratch, &parts.runc_folder, environment).await
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(2).thread_keep_alive(Duration::from_secs(1));
    Ok(builder.build()?)
}
