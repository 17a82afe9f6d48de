//! Versions side by side, models that leave memory and come back.

use std::fs;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use http::Request;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wick_engine::Grants;
use wick_serve::{
    CycleSettings, Repository, RepositoryError, RepositorySettings, ServeSettings, Source, State,
    router,
};
use wick_testing::onnx;

use crate::support::{Reply, call, engine, four, settings, write_package};

/// Longest wait for something that happens by itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// Packages `FOLDER` with a model name, a version, and what the model adds.
struct Served {
    dir: TempDir,
    repository: Repository,
}

type Package<'a> = (&'a str, &'a str, &'a str, f32);

impl Served {
    async fn new(cycle: CycleSettings, packages: &[Package<'_>]) -> Self {
        let settings = RepositorySettings { cpus: 2, drain: Duration::from_secs(5) };
        let repository = Repository::with_cycle(engine(), settings, cycle).unwrap();
        let served = Self { dir: TempDir::new().unwrap(), repository };
        for package in packages {
            served.write(*package);
            served.add(package.0).await.unwrap();
        }
        let failed = served.repository.load_all().await;
        assert!(failed.is_empty(), "{failed:?}");
        served
    }

    fn write(&self, (folder, name, version, value): Package<'_>) {
        let model = onnx::add_scalar(value, &[4]);
        write_package(&self.dir.path().join(folder), name, version, &model, "");
    }

    async fn add(&self, folder: &str) -> Result<String, RepositoryError> {
        let path = self.dir.path().join(folder);
        self.repository.add(Source { path, grants: Grants::default() }).await
    }

    fn router(&self) -> Router {
        let settings = ServeSettings { model_control: true, ..settings() };
        router(self.repository.clone(), &settings)
    }

    async fn get(&self, path: &str) -> Reply {
        call(self.router(), Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: String) -> Reply {
        call(self.router(), Request::post(path).body(body.into()).unwrap()).await
    }

    /// What the model, or a version of it, adds to zero; or the status of the refusal.
    async fn added(&self, model: &str) -> Result<f64, u16> {
        let reply = self.post(&format!("/v2/models/{model}/infer"), four([0.0; 4])).await;
        match reply.status.as_u16() {
            200 => Ok(reply.json()["outputs"][0]["data"][0].as_f64().unwrap()),
            status => Err(status),
        }
    }

    fn states(&self) -> Vec<(String, State)> {
        let statuses = self.repository.statuses().into_iter();
        statuses
            .map(|model| (format!("{} {}", model.name, model.version.unwrap()), model.state))
            .collect()
    }

    async fn until(&self, model: &str, want: State) {
        let start = Instant::now();
        let is = || self.states().iter().any(|(name, state)| name == model && *state == want);
        while !is() {
            assert!(start.elapsed() < PATIENCE, "{model} is never {want:?}: {:?}", self.states());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn policy(text: &str) -> CycleSettings {
    CycleSettings { versions: text.parse().unwrap(), ..CycleSettings::default() }
}

const TWO: [Package<'_>; 2] = [("new", "m", "1.10.0", 10.0), ("old", "m", "1.9.0", 9.0)];

#[tokio::test]
async fn versions_of_one_model_answer_side_by_side_and_the_newest_is_the_default() {
    let served = Served::new(policy("all"), &TWO).await;
    assert_eq!(served.added("m").await, Ok(10.0));
    assert_eq!(served.added("m/versions/1.9.0").await, Ok(9.0));
    assert_eq!(served.added("m/versions/1.10.0").await, Ok(10.0));
    assert_eq!(served.added("m/versions/3.0.0").await, Err(404));
    let metadata = served.get("/v2/models/m/versions/1.9.0").await.json();
    assert_eq!(metadata["versions"], json!(["1.10.0", "1.9.0"]));
    let stats = served.get("/v2/models/m/stats").await.json();
    let counts: Vec<_> = stats["model_stats"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["version"].clone(), one["inference_count"].clone()))
        .collect();
    assert_eq!(counts, [(json!("1.10.0"), json!(2)), (json!("1.9.0"), json!(1))]);
    let metrics = served.get("/metrics").await;
    let series = "nv_inference_count{model=\"m\",version=\"1.9.0\"} 1";
    assert!(metrics.text().contains(series), "{}", metrics.text());
}

#[tokio::test]
async fn only_the_newest_is_loaded_unless_the_policy_says_otherwise() {
    let served = Served::new(CycleSettings::default(), &TWO).await;
    assert!(served.repository.is_ready());
    assert_eq!(served.added("m").await, Ok(10.0));
    assert_eq!(served.added("m/versions/1.9.0").await, Err(503));
    let index = served.post("/v2/repository/index", String::new()).await.json();
    let entry = |version, state, reason| json!({"name": "m", "version": version, "state": state, "reason": reason});
    let want = [entry("1.9.0", "UNAVAILABLE", "unloaded"), entry("1.10.0", "READY", "")];
    assert_eq!(index, json!(want));

    let listed = Served::new(policy("1.9.0"), &TWO).await;
    assert_eq!(listed.added("m").await, Ok(9.0));
    assert_eq!(listed.added("m/versions/1.10.0").await, Err(503));
}

#[tokio::test]
async fn two_packages_of_the_same_version_are_refused_by_name() {
    let served = Served::new(CycleSettings::default(), &TWO).await;
    served.write(("again", "m", "1.9.0", 1.0));
    let error = served.add("again").await.unwrap_err().to_string();
    assert!(error.contains("1.9.0") && error.contains("again"), "{error}");
    // In place, too: the one that was there goes on.
    served.write(("new", "m", "1.9.0", 1.0));
    let error = served.repository.reload("m").await.unwrap_err();
    assert!(matches!(error, RepositoryError::Duplicate { .. }), "{error}");
    assert_eq!(served.added("m").await, Ok(10.0));
}

#[tokio::test]
async fn a_newer_version_takes_over_and_a_broken_one_does_not() {
    let served = Served::new(CycleSettings::default(), &TWO).await;
    served.write(("old", "m", "2.0.0", 20.0));
    fs::write(served.dir.path().join("old/model.onnx"), b"broken").unwrap();
    assert!(served.repository.reload("m").await.is_err());
    assert_eq!(served.added("m").await, Ok(10.0), "the old version serves");
    assert!(served.repository.is_ready());
    assert_eq!(served.states()[1], ("m 2.0.0".to_owned(), State::Failed));

    served.write(("old", "m", "2.0.0", 20.0));
    served.repository.reload("m").await.unwrap();
    assert_eq!(served.added("m").await, Ok(20.0));
    served.until("m 1.10.0", State::Unloaded).await;
    assert_eq!(served.added("m/versions/1.10.0").await, Err(503));
}

#[tokio::test]
async fn unloading_takes_all_versions_and_loading_brings_them_back() {
    let served = Served::new(policy("all"), &TWO).await;
    let unload = served.post("/v2/repository/models/m/unload", String::new()).await;
    assert_eq!(unload.status, 200);
    let unloaded = |(_, state): &(String, State)| *state == State::Unloaded;
    assert!(served.states().iter().all(unloaded), "{:?}", served.states());
    assert!(!served.repository.is_ready());
    for model in ["m", "m/versions/1.9.0"] {
        assert_eq!(served.added(model).await, Err(503), "an explicit unload is not undone");
    }
    let load = served.post("/v2/repository/models/m/load", String::new()).await;
    assert_eq!(load.status, 200);
    assert_eq!(served.added("m/versions/1.9.0").await, Ok(9.0));
}

/// A repository that is tended, with a model that rests soon.
async fn resting(packages: &[Package<'_>]) -> (Served, CancellationToken) {
    let idle_graph = Some(Duration::from_millis(200));
    let cycle = CycleSettings { idle_graph, ..CycleSettings::default() };
    let served = Served::new(cycle, packages).await;
    let stop = CancellationToken::new();
    let (repository, stopped) = (served.repository.clone(), stop.clone());
    tokio::spawn(async move { repository.tend(stopped).await });
    (served, stop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_model_is_cold_and_ready_and_the_first_requests_share_one_load() {
    let (served, stop) = resting(&[("m", "m", "1.0.0", 1.0)]).await;
    served.until("m 1.0.0", State::Cold).await;
    assert!(served.repository.is_ready());
    assert_eq!(served.get("/v2/models/m/ready").await.status, 200);
    let metadata = served.get("/v2/models/m").await.json();
    assert_eq!(metadata["properties"]["state"], "cold");
    assert_eq!(metadata["inputs"][0]["name"], "x", "its tensors are known all the same");
    // Nobody of them fails, and only one of them loads.
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let request = Request::post("/v2/models/m/infer").body(four([0.0; 4]).into()).unwrap();
        clients.spawn(call(served.router(), request));
    }
    for reply in clients.join_all().await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(served.states()[0].1, State::Ready);
    let wakes = served.get("/metrics").await;
    let phase = "wick_cold_start_seconds{model=\"m\",phase=\"wake\"}";
    assert!(wakes.text().contains(phase), "{}", wakes.text());
    served.until("m 1.0.0", State::Cold).await;
    assert_eq!(served.added("m").await, Ok(1.0), "and again");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_model_whose_package_changed_comes_back_as_what_it_is_now() {
    let (served, stop) = resting(&[("m", "m", "1.0.0", 1.0)]).await;
    served.until("m 1.0.0", State::Cold).await;
    served.write(("m", "m", "1.1.0", 2.0));
    let reply = served.post("/v2/models/m/infer", four([0.0; 4])).await;
    assert_eq!(reply.json()["model_version"], "1.1.0");
    assert_eq!(reply.json()["outputs"][0]["data"][0], 2.0);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_model_that_cannot_be_loaded_is_failed_until_it_can() {
    let (served, stop) = resting(&[("m", "m", "1.0.0", 1.0)]).await;
    served.until("m 1.0.0", State::Cold).await;
    let (file, away) = (served.dir.path().join("m/model.onnx"), served.dir.path().join("away"));
    fs::rename(&file, &away).unwrap();
    assert_eq!(served.added("m").await, Err(503));
    assert!(!served.repository.is_ready(), "a state never lies");
    assert_eq!(served.states()[0].1, State::Failed);
    assert!(served.repository.statuses()[0].last_error.is_some());
    fs::rename(&away, &file).unwrap();
    assert_eq!(served.added("m").await, Ok(1.0));
    assert!(served.repository.is_ready());
    stop.cancel();
}
