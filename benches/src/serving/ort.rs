//! The floor: ONNX Runtime in a loop without a server, in a process of its own, so that its
//! processor time is counted as that of the servers is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::direct::Floor;
use crate::packages;
use crate::setup::Setup;
use crate::stats::{median, round};

use super::cpu;

/// What the child is called on the command line.
pub const BARE: &str = "serving-bare";

/// Sessions, and threads of each.
type Layout = (usize, usize);

/// Turns of the floor in each of its layouts.
pub struct Turns {
    model: PathBuf,
    pub files: i64,
    slice: Duration,
    by_layout: BTreeMap<Layout, Vec<Turn>>,
}

#[derive(Clone, Copy)]
struct Turn {
    per_second: f64,
    cpu_ms: f64,
}

// === impl Turns ===

impl Turns {
    /// Of Magika, with so many files in a request.
    pub fn new(model: PathBuf, files: i64, slice: Duration) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        // One inference at a time; one on each core; one on all cores.
        let layouts = [(1, 1), (cores, 1), (1, cores)];
        let by_layout = layouts.map(|layout| (layout, Vec::new())).into();
        Ok(Self { model, files, slice, by_layout })
    }

    /// One turn of each layout.
    pub fn take(&mut self) -> anyhow::Result<()> {
        for (layout, turns) in &mut self.by_layout {
            let mut child = Command::new(std::env::current_exe()?);
            child.arg(BARE).arg(&self.model).arg(self.files.to_string());
            child.args([layout.0.to_string(), layout.1.to_string()]);
            let output = child.arg(self.slice.as_millis().to_string()).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "bare ONNX Runtime: {said}");
            let told: Value = serde_json::from_slice(&output.stdout)?;
            let number = |name: &str| told[name].as_f64().context("bare ONNX Runtime told nothing");
            turns.push(Turn { per_second: number("per_second")?, cpu_ms: number("cpu_ms")? });
        }
        Ok(())
    }

    /// Inferences a second in the layout that is fastest.
    pub fn best_per_second(&self) -> f64 {
        self.by_layout.values().map(|turns| middle(turns, |t| t.per_second)).fold(0.0, f64::max)
    }

    /// Inferences a second: one at a time, or in the layout that is fastest.
    pub fn per_second(&self, concurrency: usize) -> f64 {
        match self.by_layout.get(&(1, 1)) {
            Some(turns) if concurrency == 1 => middle(turns, |turn| turn.per_second),
            _ => self.best_per_second(),
        }
    }

    /// Processor time of an inference, with one inference at a time or one on each core: cores
    /// that share caches or pipes slow each other, and a server's must not be blamed for it.
    pub fn cpu_ms(&self, concurrency: usize) -> f64 {
        let single = self.by_layout.iter().filter(|((_, threads), _)| *threads == 1);
        let mut fitting =
            single.filter(|((sessions, _), _)| (*sessions == 1) == (concurrency == 1));
        let turns = fitting.next().or_else(|| self.by_layout.iter().next());
        turns.map_or(f64::NAN, |(_, turns)| middle(turns, |turn| turn.cpu_ms))
    }

    pub fn detail(&self) -> Value {
        let of = |turns: &Vec<Turn>| {
            json!({
                "per_second": round(middle(turns, |turn| turn.per_second)),
                "cpu_ms": round(middle(turns, |turn| turn.cpu_ms)),
            })
        };
        let name =
            |(sessions, threads): &Layout| format!("{sessions} sessions x {threads} threads");
        self.by_layout.iter().map(|(layout, turns)| (name(layout), of(turns))).collect()
    }
}

fn middle(turns: &[Turn], value: fn(&Turn) -> f64) -> f64 {
    median(&turns.iter().map(value).collect::<Vec<f64>>())
}

/// The child: run the larger model and tell what it cost.
pub fn bare(setup: &Setup, args: &[String]) -> anyhow::Result<()> {
    let [model, files, sessions, threads, millis] = args else { anyhow::bail!("five arguments") };
    let input = packages::magika_input(files.parse()?);
    let (sessions, threads): (usize, usize) = (sessions.parse()?, threads.parse()?);
    let time = Duration::from_millis(millis.parse()?);
    let floor = Floor::new(&setup.onnxruntime)?;
    let mut loaded = Vec::new();
    for _ in 0..sessions {
        let mut direct = floor.load(model.as_ref(), threads, &input)?;
        direct.run()?;
        loaded.push(direct);
    }
    let pid = std::process::id();
    let (cpu, start) = (cpu::seconds(pid)?, Instant::now());
    let counts: Vec<anyhow::Result<u64>> = std::thread::scope(|scope| {
        let loops = loaded.iter_mut().map(|direct| {
            scope.spawn(move || {
                let mut count = 0;
                while start.elapsed() < time {
                    direct.run()?;
                    count += 1;
                }
                Ok(count)
            })
        });
        let loops: Vec<_> = loops.collect();
        let ended = loops.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.map(|one| one.unwrap_or_else(|_| Err(anyhow::anyhow!("a loop panicked")))).collect()
    });
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), cpu::seconds(pid)? - cpu);
    let count = counts.into_iter().sum::<anyhow::Result<u64>>()? as f64;
    println!("{}", json!({"per_second": count / elapsed, "cpu_ms": cpu * 1e3 / count}));
    Ok(())
}
