//! Models replaced while they serve.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wick_engine::Grants;
use wick_serve::{RepositoryError, Source, State, Watch};
use wick_testing::onnx;

use crate::support::{Fixture, Reply, four, write_package};

/// What the model adds to zero.
fn added(reply: &Reply) -> f64 {
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    reply.json()["outputs"][0]["data"][0].as_f64().unwrap()
}

/// Clients that ask without a pause until told to stop; none may ever fail.
struct Load {
    clients: JoinSet<Vec<f64>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start(fixture: &Fixture) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let (router, stop) = (fixture.router(), Arc::clone(&stop));
            clients.spawn(async move {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let request = http::Request::post("/v2/models/m/infer");
                    let request = request.body(four([0.0; 4]).into()).unwrap();
                    let value = added(&crate::support::call(router.clone(), request).await);
                    if seen.last() != Some(&value) {
                        seen.push(value);
                    }
                    tokio::task::yield_now().await;
                }
                seen
            });
        }
        Self { clients, stop }
    }

    /// The values that each client saw, in order.
    async fn stop(self) -> Vec<Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await
    }
}

async fn until_added(fixture: &Fixture, want: f64) {
    let start = Instant::now();
    while added(&fixture.post("/v2/models/m/infer", four([0.0; 4])).await) != want {
        assert!(start.elapsed() < Duration::from_secs(20), "never reloaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn write_adding(folder: &Path, version: &str, value: f32) {
    write_package(folder, "m", version, &onnx::add_scalar(value, &[4]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_switches_over_without_a_failed_request() {
    let fixture = Fixture::adding(1.0, "").await;
    let load = Load::start(&fixture);
    for round in 2..6_u8 {
        write_adding(&fixture.path("m"), &format!("{round}.0.0"), f32::from(round));
        fixture.repository.reload("m").await.unwrap();
        let now = fixture.post("/v2/models/m/infer", four([0.0; 4])).await;
        assert_eq!(added(&now), f64::from(round));
        assert_eq!(now.json()["model_version"], format!("{round}.0.0"));
    }
    for seen in load.stop().await {
        assert!(seen.is_sorted(), "a client was sent back to an older version: {seen:?}");
    }
    assert_eq!(fixture.repository.statuses()[0].version.as_deref(), Some("5.0.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_package_leaves_the_old_version_serving_and_says_why() {
    let fixture = Fixture::adding(1.0, "").await;
    let load = Load::start(&fixture);
    let folder = fixture.path("m");
    let good = fs::read(folder.join("model.onnx")).unwrap();
    let manifest = fs::read_to_string(folder.join("wick.toml")).unwrap();
    let breaks: [&dyn Fn(); 5] = [
        &|| fs::write(folder.join("model.onnx"), &good[..good.len() / 2]).unwrap(),
        &|| fs::write(folder.join("model.onnx"), b"").unwrap(),
        &|| fs::remove_file(folder.join("model.onnx")).unwrap(),
        &|| fs::write(folder.join("wick.toml"), "[package").unwrap(),
        &|| {
            let renamed = manifest.replace("name = \"m\"", "name = \"other\"");
            fs::write(folder.join("wick.toml"), renamed).unwrap();
        },
    ];
    for (at, break_it) in breaks.iter().enumerate() {
        break_it();
        assert!(fixture.repository.reload("m").await.is_err(), "break {at}");
        let status = fixture.repository.statuses().remove(0);
        assert_eq!((status.state, status.version.as_deref()), (State::Ready, Some("1.0.0")));
        assert!(status.last_error.is_some());
        assert!(fixture.repository.is_ready());
        fs::write(folder.join("model.onnx"), &good).unwrap();
        fs::write(folder.join("wick.toml"), &manifest).unwrap();
    }
    fixture.repository.reload("m").await.unwrap();
    assert_eq!(fixture.repository.statuses()[0].last_error, None);
    for seen in load.stop().await {
        assert_eq!(seen, [1.0]);
    }
}

#[tokio::test]
async fn a_package_that_cannot_be_loaded_is_failed_until_it_can() {
    let fixture = Fixture::adding(1.0, "").await;
    let path = fixture.path("bad");
    write_package(&path, "bad", "1.0.0", b"no model", "");
    let source = Source { path: path.clone(), grants: Grants::default() };
    fixture.repository.add(source.clone()).await.unwrap();
    let failed = fixture.repository.load_all().await;
    assert!(matches!(&failed[..], [(name, RepositoryError::Load { .. })] if name == "bad"));
    assert!(!fixture.repository.is_ready());
    let reply = fixture.post("/v2/models/bad/infer", four([0.0; 4])).await;
    assert_eq!((reply.status.as_u16(), reply.json()["code"].clone()), (503, "not-ready".into()));
    let twice = fixture.repository.add(source).await;
    assert!(matches!(twice, Err(RepositoryError::Duplicate { .. })), "{twice:?}");

    write_package(&path, "bad", "1.0.1", &onnx::add_scalar(2.0, &[4]), "");
    fixture.repository.reload("bad").await.unwrap();
    assert!(fixture.repository.is_ready());
    assert_eq!(added(&fixture.post("/v2/models/bad/infer", four([0.0; 4])).await), 2.0);
    assert_eq!(fixture.get("/v2/models").await.json()["models"][0], "bad");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_package_is_reloaded_when_its_files_change() {
    let fixture = Fixture::adding(1.0, "").await;
    let stop = CancellationToken::new();
    let watch = Watch::new(fixture.repository.clone()).unwrap();
    let watching = tokio::spawn(watch.run(stop.clone()));
    let load = Load::start(&fixture);

    // In place, file by file.
    write_adding(&fixture.path("m"), "2.0.0", 2.0);
    until_added(&fixture, 2.0).await;

    // Slowly: half of the model, a pause longer than the settle time, the rest.
    let model = onnx::add_scalar(3.0, &[4]);
    let file = fixture.path("m").join("model.onnx");
    fs::write(&file, &model[..model.len() / 2]).unwrap();
    let start = Instant::now();
    while fixture.repository.statuses()[0].last_error.is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "half a model was not tried");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::write(&file, &model).unwrap();
    until_added(&fixture, 3.0).await;

    // As a whole, by renaming folders, twice: the new folder must be watched too.
    for (version, value) in [("4.0.0", 4.0), ("5.0.0", 5.0)] {
        let (next, last) = (fixture.path("next"), fixture.path("last"));
        write_adding(&next, version, value);
        let _ = fs::remove_dir_all(&last);
        fs::rename(fixture.path("m"), &last).unwrap();
        fs::rename(&next, fixture.path("m")).unwrap();
        until_added(&fixture, f64::from(value)).await;
    }
    write_adding(&fixture.path("m"), "6.0.0", 6.0);
    until_added(&fixture, 6.0).await;

    for seen in load.stop().await {
        assert!(seen.is_sorted(), "{seen:?}");
    }
    stop.cancel();
    watching.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_was_staged_answers_at_once_and_no_request_fails() {
    let fixture = Fixture::adding(1.0, "").await;
    let load = Load::start(&fixture);
    let mut shown = Vec::new();
    // Also back to a lower version: who stages decides, and not the numbers.
    for (round, version) in [(2_u8, "2.0.0"), (3, "1.5.0"), (4, "3.0.0")] {
        let path = fixture.path(&format!("set-{round}"));
        write_package(&path, "m", version, &onnx::add_scalar(f32::from(round), &[4]), "");
        let before = added(&fixture.post("/v2/models/m/infer", four([0.0; 4])).await);
        let staged = fixture.repository.stage(Source { path, grants: Grants::default() }).await;
        let staged = staged.unwrap();
        let still = added(&fixture.post("/v2/models/m/infer", four([0.0; 4])).await);
        assert_eq!((before, staged.name()), (still, "m"), "it answers before it is shown");
        fixture.repository.show([&staged]);
        let now = fixture.post("/v2/models/m/infer", four([0.0; 4])).await;
        assert_eq!(added(&now), f64::from(round));
        assert_eq!(now.json()["model_version"], version);
        shown.push(staged);
        if shown.len() > 1 {
            let old = shown.remove(0);
            old.quiet().await;
            old.end().await;
        }
    }
    let seen = load.stop().await;
    assert!(seen.iter().all(|values| values.is_sorted()), "{seen:?}");
    let traffic = fixture.repository.traffic();
    assert!(traffic.requests > 10 && traffic.errors == 0 && traffic.p99_us() > 0, "{traffic:?}");
}

#[tokio::test]
async fn what_cannot_be_staged_takes_nothing_away() {
    let fixture = Fixture::adding(1.0, "").await;
    let path = fixture.path("broken");
    write_package(&path, "m", "9.0.0", b"no model", "");
    let broken = fixture.repository.stage(Source { path, grants: Grants::default() }).await;
    assert!(matches!(broken, Err(RepositoryError::Load { .. })), "{broken:?}");
    assert_eq!(added(&fixture.post("/v2/models/m/infer", four([0.0; 4])).await), 1.0);
}
