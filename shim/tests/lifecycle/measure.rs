//! Figures, not checks: how long the steps take and how much memory a pod's processes have.
//! `cargo test -p containerd-shim-wick-v1 --test lifecycle -- --ignored`

use std::fs;
use std::time::{Duration, Instant};

use containerd_shim::protos::api::CreateTaskRequest;

use serde_json::Value;

use crate::runner::Case;
use crate::shim::{Containerd, tmpfs};
use crate::{spec, tools};

pub const ALL: &[Case] = &[
    ("the steps of a container", steps),
    ("the steps of an ordinary container", ordinary),
    ("the steps of containerd's runc shim", reference),
    ("the memory of pods", memory),
];

/// Containers that are measured.
const ROUNDS: usize = 40;

/// Pods at once.
const PODS: usize = 20;

fn median(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    format!("min {:.2} median {:.2} ms", ms(times[0]), ms(times[times.len() / 2]))
}

fn steps() {
    measure(&Containerd::new(), &|id| spec::wasm(id, &["serve"]));
}

fn ordinary() {
    if tools::has("runc") {
        measure(&Containerd::new(), &|id| spec::ordinary(id, "exec sleep 100"));
    }
}

/// The same container by containerd's own shim, of 2.0 or later: it must serve task API 3.
fn reference() {
    if let Some(shim) = tools::newest("containerd-shim-runc-v2") {
        let mut containerd = Containerd::new();
        containerd.shim = shim;
        measure(&containerd, &|id| spec::ordinary(id, "exec sleep 100"));
    }
}

fn measure(containerd: &Containerd, spec: &dyn Fn(&str) -> Value) {
    let mut times: [Vec<Duration>; 6] = Default::default();
    for at in 0..ROUNDS {
        let id = format!("t{at}");
        let spec = spec(&id);
        spec::bundle(&containerd.bundle(&id), &spec);
        let mut begun = Instant::now();
        let mut lap = |step: usize| {
            times[step].push(begun.elapsed());
            begun = Instant::now();
        };
        let shim = containerd.start(&id, &spec);
        lap(0);
        let rootfs = vec![tmpfs()];
        shim.create_with(CreateTaskRequest { id: id.clone(), rootfs, ..Default::default() })
            .unwrap();
        lap(1);
        shim.run(&id).unwrap();
        lap(2);
        shim.kill(&id, 9).unwrap();
        shim.wait(&id);
        lap(3);
        shim.delete(&id).unwrap();
        lap(4);
        shim.shutdown();
        containerd.action(&id, "delete");
        lap(5);
        if at == ROUNDS - 1 {
            let log = containerd.log(&id);
            println!("  {}", log.lines().find(|l| l.contains("started")).unwrap_or("no phases"));
        }
    }
    let names =
        ["shim start", "connect and Create", "Start", "kill to exit", "Delete", "delete action"];
    for (name, times) in names.iter().zip(&mut times) {
        println!("  {name}: {}", median(times));
    }
}

/// Resident and proportional memory in kB.
fn memory_of(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    };
    (field("Rss:"), field("Pss:"))
}

fn memory() {
    let containerd = Containerd::new();
    let mut pods = Vec::new();
    for at in 0..PODS {
        let id = format!("m{at}");
        let shim = containerd.start(&id, &spec::sandbox(&id, "pod"));
        let pause = shim.create(&id).unwrap();
        shim.run(&id).unwrap();
        let worker = format!("w{at}");
        spec::bundle(&containerd.bundle(&worker), &spec::in_pod(&worker, &id, pause, &["serve"]));
        shim.create(&worker).unwrap();
        shim.run(&worker).unwrap();
        pods.push((shim.shim_pid(&id), pause, shim, id, worker));
    }
    std::thread::sleep(Duration::from_secs(4));
    let sum = |pick: &dyn Fn(&(u32, u32)) -> u32| {
        let all: Vec<_> = pods.iter().map(|p| memory_of(pick(&(p.0, p.1)))).collect();
        let count = all.len() as u64;
        let (rss, pss): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        (rss.iter().sum::<u64>() / count, pss.iter().sum::<u64>() / count)
    };
    println!(
        "  at {PODS} pods, kB RSS and PSS: shim {:?}, pause {:?}",
        sum(&|p| p.0),
        sum(&|p| p.1)
    );
    for (_, _, shim, id, worker) in &pods {
        shim.delete(worker).unwrap();
        shim.delete(id).unwrap();
        shim.shutdown();
    }
}
