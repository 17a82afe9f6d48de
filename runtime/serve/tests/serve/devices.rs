//! A device that is lost while it serves. No machine of a test has one that can be: the device is made up, at the seam
//! where ONNX Runtime and tract are others.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use wick_engine::{Engine, EngineSettings, Grants};
use wick_nn::{
    Backend, Cancel, Device, DeviceUse, Found, Graph, GraphOptions, GraphSource, InferError,
    LoadError, Nn, NnSettings, Session, Tensor,
};
use wick_package::{Datatype, DeviceKind, Dim, TensorSpec};
use wick_serve::{CycleSettings, Repository, RepositorySettings, Source};

use crate::guests::{TENSORS, guest};
use crate::support::{Fixture, four};

/// A model's file, which only a device that is made up can read.
const FILE: &str = "for a device that is made up";

const INFER: &str = "/v2/models/m/infer";
const READY: &str = "/v2/health/ready";

/// Longest until a loss shows or is over.
const SEEN: Duration = Duration::from_secs(15);

/// A GPU whose graphs return their input. What was on it before it was lost never answers again.
#[derive(Debug, Default)]
struct Gpu {
    away: AtomicBool,
    /// The next load does not end while it is.
    hangs: AtomicBool,
    /// Loads that hang.
    hung: AtomicU64,
    losses: AtomicU64,
    loads: AtomicU64,
    /// On it now.
    graphs: AtomicU64,
}

/// The library that finds it.
#[derive(Debug)]
struct Driver(Arc<Gpu>);

struct OnGpu {
    gpu: Arc<Gpu>,
    /// How often it had been lost when this was loaded.
    losses: u64,
    tensors: [TensorSpec; 1],
    used: DeviceUse,
}

struct Running(Arc<Gpu>, u64);

// === impl Gpu ===

impl Gpu {
    fn lose(&self) {
        self.losses.fetch_add(1, Ordering::SeqCst);
        self.away.store(true, Ordering::SeqCst);
    }

    /// Hang, if this load is the one.
    fn hang(&self) {
        if self.hangs.load(Ordering::SeqCst) && self.hung.fetch_add(1, Ordering::SeqCst) == 0 {
            while self.hangs.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn device() -> Device {
        Device { kind: DeviceKind::Gpu, ..Device::cpu("MadeUpExecutionProvider") }
    }
}

impl Backend for Driver {
    fn name(&self) -> &'static str {
        "made-up"
    }

    fn version(&self) -> &'static str {
        "1.0"
    }

    fn find(&self, kinds: &[DeviceKind]) -> Found {
        let devices = kinds.contains(&DeviceKind::Gpu).then(Gpu::device).into_iter().collect();
        Found { devices, refused: Vec::new() }
    }

    fn load(
        &self,
        source: &GraphSource,
        device: &Device,
        options: &GraphOptions,
    ) -> Result<Arc<dyn Graph>, LoadError> {
        let gpu = Arc::clone(&self.0);
        if gpu.away.load(Ordering::SeqCst) {
            let (graph, device) = (source.name.to_string(), device.to_string());
            return Err(LoadError::DeviceFailed { graph, device, detail: "no device".to_owned() });
        }
        gpu.hang();
        gpu.loads.fetch_add(1, Ordering::SeqCst);
        gpu.graphs.fetch_add(1, Ordering::SeqCst);
        let losses = gpu.losses.load(Ordering::SeqCst);
        let x = TensorSpec {
            name: "x".to_owned(),
            datatype: Datatype::Fp32,
            shape: vec![Dim::Fixed(4)],
        };
        let used = DeviceUse {
            backend: self.name().to_owned(),
            backend_version: self.version().to_owned(),
            device: device.clone(),
            share: 1.0,
            threads: options.threads,
            refused: Vec::new(),
        };
        Ok(Arc::new(OnGpu { gpu, losses, tensors: [x], used }))
    }
}

impl Graph for OnGpu {
    fn inputs(&self) -> &[TensorSpec] {
        &self.tensors
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.tensors
    }

    fn device(&self) -> &DeviceUse {
        &self.used
    }

    fn session(&self) -> Result<Box<dyn Session>, InferError> {
        Ok(Box::new(Running(Arc::clone(&self.gpu), self.losses)))
    }
}

impl Drop for OnGpu {
    fn drop(&mut self) {
        self.gpu.graphs.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Session for Running {
    fn run(&mut self, inputs: &[Tensor], _cancel: &Cancel) -> Result<Vec<Tensor>, InferError> {
        if self.0.losses.load(Ordering::SeqCst) != self.1 {
            return Err(InferError::Backend {
                graph: "g".to_owned(),
                backend: "made-up".to_owned(),
                detail: "the device was lost".to_owned(),
            });
        }
        // As an index that is out of range would be.
        if inputs[0].as_slice::<f32>().unwrap()[0] == f32::MIN {
            return Err(InferError::Backend {
                graph: "g".to_owned(),
                backend: "made-up".to_owned(),
                detail: "not this number".to_owned(),
            });
        }
        Ok(inputs.to_vec())
    }
}

/// A package for the device.
fn write(dir: &TempDir, name: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("model.onnx"), FILE).unwrap();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\n\n[[graph]]\nname = \"g\"\n\
         path = \"model.onnx\"\ndevices = [\"gpu\"]\n"
    );
    fs::write(path.join("wick.toml"), manifest).unwrap();
    path
}

/// Models on the device, tended as a server tends them.
async fn served_as(
    gpu: &Arc<Gpu>,
    names: &[&str],
    cycle: CycleSettings,
) -> (Fixture, CancellationToken) {
    let nn = NnSettings { backend_dirs: Vec::new(), onnxruntime: None, cache: None, cpus: 2 };
    let nn = Nn::new(nn).unwrap().with_backend(Arc::new(Driver(Arc::clone(gpu))));
    let settings = EngineSettings { cache: None, max_instances: 8, max_memory: 64 << 20 };
    let engine = Engine::new(settings, nn).unwrap();
    let settings = RepositorySettings { cpus: 2, drain: SEEN };
    let repository = Repository::with_cycle(engine, settings, cycle).unwrap();
    let dir = TempDir::new().unwrap();
    for name in names {
        let path = write(&dir, name);
        repository.add(Source { path, grants: Grants::default() }).await.unwrap();
    }
    let failed = repository.load_all().await;
    assert!(failed.is_empty(), "{failed:?}");
    let stop = CancellationToken::new();
    let (tended, stopped) = (repository.clone(), stop.clone());
    tokio::spawn(async move { tended.tend(stopped).await });
    (Fixture { dir, repository }, stop)
}

async fn served(gpu: &Arc<Gpu>) -> (Fixture, CancellationToken) {
    served_as(gpu, &["m"], CycleSettings::default()).await
}

/// At most so many bytes on the device.
fn at_most(bytes: usize) -> CycleSettings {
    CycleSettings { max_device_memory: Some(bytes as u64), ..CycleSettings::default() }
}

/// Wait until readiness has this status; requests go on meanwhile, and their statuses are returned.
async fn until(fixture: &Fixture, ready: StatusCode) -> Vec<StatusCode> {
    let begun = Instant::now();
    let mut statuses = Vec::new();
    while fixture.get(READY).await.status != ready {
        assert!(begun.elapsed() < SEEN, "it never got {ready}: {statuses:?}");
        statuses.push(fixture.post(INFER, four([1.0, 2.0, 3.0, 4.0])).await.status);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    statuses
}

#[tokio::test]
async fn models_that_share_a_device_leave_it_for_each_other() {
    let gpu = Arc::new(Gpu::default());
    // Twice the file counts, so that there is room for two of three.
    let names = ["a", "b", "c"];
    let (fixture, stop) = served_as(&gpu, &names, at_most(4 * FILE.len())).await;
    for round in 0..3 {
        for name in names {
            let path = format!("/v2/models/{name}/infer");
            let answer = fixture.post(&path, four([1.0, 2.0, 3.0, 4.0])).await;
            assert_eq!(answer.status, StatusCode::OK, "{name} in {round}: {}", answer.text());
            assert!(gpu.graphs.load(Ordering::SeqCst) <= 2, "more than there is room for");
            assert_eq!(fixture.get(READY).await.status, StatusCode::OK);
        }
    }
    assert!(gpu.loads.load(Ordering::SeqCst) > 3, "nobody has left it");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphs_that_a_guest_brings_count_for_its_device() {
    let gpu = Arc::new(Gpu::default());
    // Room for two models, and for nothing beside.
    let (fixture, stop) = served_as(&gpu, &["a"], at_most(4 * FILE.len())).await;
    let path = write(&fixture.dir, "m");
    fs::write(path.join("handler.wasm"), guest("hostile")).unwrap();
    fs::write(path.join("g.onnx"), FILE).unwrap();
    let graph = TENSORS.replace("\n[[input]]", "devices = [\"gpu\"]\n\n[[input]]");
    let manifest = format!(
        "[package]\nname = \"m\"\nversion = \"1.0.0\"\n\n[handler]\ncomponent = \"handler.wasm\"\n{graph}"
    );
    fs::write(path.join("wick.toml"), manifest).unwrap();
    fixture.repository.add(Source { path, grants: Grants::default() }).await.unwrap();
    assert!(fixture.repository.load_all().await.is_empty());
    assert_eq!(gpu.graphs.load(Ordering::SeqCst), 2);
    let body = r#"{"parameters":{"mode":"gpu-graph"},
        "inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,2]}]}"#;
    let answer = fixture.post(INFER, body).await;
    assert!(answer.text().contains("it was loaded"), "{}", answer.text());
    assert_eq!(gpu.graphs.load(Ordering::SeqCst), 3, "it is not kept for the next request");
    // A third model: the guest's leaves with what it brought, since that is one byte too much beside another.
    fixture.repository.unload("a").await.unwrap();
    assert_eq!(gpu.graphs.load(Ordering::SeqCst), 2);
    fixture.repository.load("a").await.unwrap();
    assert_eq!(gpu.graphs.load(Ordering::SeqCst), 1, "it stays beside what has no room for it");
    stop.cancel();
}

#[tokio::test]
async fn a_model_that_no_device_has_room_for_is_refused_with_the_setting() {
    let gpu = Arc::new(Gpu::default());
    let (fixture, stop) = served_as(&gpu, &[], at_most(FILE.len())).await;
    let path = write(&fixture.dir, "a");
    fixture.repository.add(Source { path, grants: Grants::default() }).await.unwrap();
    let failed = fixture.repository.load_all().await;
    let text = format!("{failed:?}");
    assert!(text.contains("NoRoom") && text.contains("--max-device-memory"), "{text}");
    assert_eq!(gpu.graphs.load(Ordering::SeqCst), 0, "it stayed on the device");
    stop.cancel();
}

/// A model whose load hangs on the device, with others beside it.
async fn hung(
    gpu: &Arc<Gpu>,
    names: &[&str],
    room_for: usize,
) -> (Fixture, CancellationToken, tokio::task::JoinHandle<()>) {
    let (fixture, stop) = served_as(gpu, names, at_most(room_for * 2 * FILE.len())).await;
    let path = write(&fixture.dir, "hung");
    fixture.repository.add(Source { path, grants: Grants::default() }).await.unwrap();
    gpu.hangs.store(true, Ordering::SeqCst);
    let repository = fixture.repository.clone();
    let load = tokio::spawn(async move { repository.load("hung").await.unwrap() });
    let begun = Instant::now();
    while gpu.hung.load(Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < SEEN, "nothing is loaded");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (fixture, stop, load)
}

#[tokio::test]
async fn a_load_that_hangs_keeps_its_room_and_no_other_model_from_coming() {
    let gpu = Arc::new(Gpu::default());
    let (fixture, stop, load) = hung(&gpu, &["a", "b"], 2).await;
    // There was room for two: one left for the one that hangs, and they take turns with what is left.
    for name in ["a", "b", "a"] {
        let path = format!("/v2/models/{name}/infer");
        let answer = fixture.post(&path, four([1.0, 2.0, 3.0, 4.0])).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
        assert_eq!(
            gpu.graphs.load(Ordering::SeqCst),
            1,
            "{name} took the room of the one that hangs"
        );
    }
    gpu.hangs.store(false, Ordering::SeqCst);
    load.await.unwrap();
    let answer = fixture.post("/v2/models/hung/infer", four([1.0, 2.0, 3.0, 4.0])).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(gpu.graphs.load(Ordering::SeqCst), 2);
    stop.cancel();
}

#[tokio::test]
async fn who_finds_no_room_beside_a_load_that_hangs_waits_for_its_end() {
    let gpu = Arc::new(Gpu::default());
    let (fixture, stop, load) = hung(&gpu, &["a"], 1).await;
    let asked = fixture.post("/v2/models/a/infer", four([1.0, 2.0, 3.0, 4.0]));
    let frees = async {
        // Longer than a load keeps others from looking for room.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(gpu.graphs.load(Ordering::SeqCst), 0, "there was no room");
        gpu.hangs.store(false, Ordering::SeqCst);
    };
    let (answer, ()) = tokio::join!(asked, frees);
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    load.await.unwrap();
    assert_eq!(gpu.graphs.load(Ordering::SeqCst), 1, "both are on the device");
    stop.cancel();
}

#[tokio::test]
async fn a_cold_model_whose_device_is_away_is_ready_again_when_it_is_back_though_nobody_asks() {
    let gpu = Arc::new(Gpu::default());
    let idle_graph = Some(Duration::from_millis(100));
    let cycle = CycleSettings { idle_graph, ..CycleSettings::default() };
    let (fixture, stop) = served_as(&gpu, &["m"], cycle).await;
    let begun = Instant::now();
    while gpu.graphs.load(Ordering::SeqCst) > 0 {
        assert!(begun.elapsed() < SEEN, "it never left the device");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fixture.get(READY).await.status, StatusCode::OK);
    gpu.lose();
    let answer = fixture.post(INFER, four([1.0, 2.0, 3.0, 4.0])).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert_eq!(fixture.get(READY).await.status, StatusCode::SERVICE_UNAVAILABLE);
    gpu.away.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    while fixture.get(READY).await.status != StatusCode::OK {
        assert!(begun.elapsed() < SEEN, "nobody brought it back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
}

#[tokio::test]
async fn a_device_that_is_lost_makes_its_model_unready_until_it_is_back() {
    let gpu = Arc::new(Gpu::default());
    let (fixture, stop) = served(&gpu).await;
    let answer = fixture.post(INFER, four([1.0, 2.0, 3.0, 4.0])).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());

    gpu.lose();
    let statuses = until(&fixture, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(statuses.iter().all(StatusCode::is_server_error), "{statuses:?}");
    // It is looked for again and again, and a request is told what is wrong.
    let begun = Instant::now();
    loop {
        let answer = fixture.post(INFER, four([1.0, 2.0, 3.0, 4.0])).await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            break;
        }
        assert!(begun.elapsed() < SEEN, "{}: {}", answer.status, answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gpu.loads.load(Ordering::SeqCst), 1, "it can't have been loaded");

    gpu.away.store(false, Ordering::SeqCst);
    until(&fixture, StatusCode::OK).await;
    let answer = fixture.post(INFER, four([5.0, 6.0, 7.0, 8.0])).await;
    assert_eq!(answer.json()["outputs"][0]["data"], serde_json::json!([5.0, 6.0, 7.0, 8.0]));
    assert_eq!(gpu.loads.load(Ordering::SeqCst), 2);
    let metrics = fixture.get("/metrics").await;
    let reloads = metrics.text().lines().find(|line| line.starts_with("wick_device_reloads{"));
    let count = reloads.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    assert!(count.is_some_and(|count| (1..6).contains(&count)), "{reloads:?}");
    stop.cancel();
}

#[tokio::test]
async fn a_device_that_is_soon_back_is_used_again() {
    let gpu = Arc::new(Gpu::default());
    let (fixture, stop) = served(&gpu).await;
    // Lost and back before anybody could look: its graph fails, and is loaded again without a word.
    gpu.lose();
    gpu.away.store(false, Ordering::SeqCst);
    let answer = fixture.post(INFER, four([1.0, 2.0, 3.0, 4.0])).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", answer.text());
    let begun = Instant::now();
    while gpu.loads.load(Ordering::SeqCst) < 2 {
        assert!(begun.elapsed() < SEEN, "it was not loaded again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until(&fixture, StatusCode::OK).await;
    stop.cancel();
}

/// An inference that fails by what it was asked is not the device's fault, however often.
#[tokio::test]
async fn a_request_that_a_graph_refuses_takes_nothing_off_its_device() {
    let gpu = Arc::new(Gpu::default());
    let (fixture, stop) = served(&gpu).await;
    for _ in 0..10 {
        let answer = fixture.post(INFER, four([f32::MIN, 0.0, 0.0, 0.0])).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // It was probed, since that might have been a loss, and has answered.
    assert_eq!(gpu.loads.load(Ordering::SeqCst), 1, "a model that answers was loaded again");
    assert_eq!(fixture.get(READY).await.status, StatusCode::OK);
    stop.cancel();
}
