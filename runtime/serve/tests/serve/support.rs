//! Packages in a temporary folder, and clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tower::ServiceExt as _;
use wick_engine::{Engine, EngineSettings, Grants};
use wick_nn::{Nn, NnSettings};
use wick_package::Datatype;
use wick_serve::{Repository, RepositorySettings, ServeSettings, Source, router};
use wick_testing::onnx;

/// A repository over packages in a folder of its own.
pub struct Fixture {
    pub dir: TempDir,
    pub repository: Repository,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Settings with short times, so that tests of slow clients are fast.
pub fn settings() -> ServeSettings {
    ServeSettings {
        addr: ([127, 0, 0, 1], 0).into(),
        header_timeout: Duration::from_millis(700),
        body_timeout: Duration::from_millis(500),
        drain: Duration::from_secs(10),
        ..ServeSettings::default()
    }
}

pub fn engine() -> Engine {
    let nn = NnSettings { backend_dirs: Vec::new(), onnxruntime: None, cache: None, cpus: 2 };
    let nn = Nn::new(nn).unwrap();
    let settings = EngineSettings { cache: None, max_instances: 8, max_memory: 64 << 20 };
    Engine::new(settings, nn).unwrap()
}

/// Write a package without handler. `limits` is the inside of `[limits]`.
pub fn write_package(folder: &Path, name: &str, version: &str, model: &[u8], limits: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("model.onnx"), model).unwrap();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"{version}\"\n\n[[graph]]\nname = \"g\"\n\
         path = \"model.onnx\"\n\n[limits]\n{limits}\n"
    );
    fs::write(folder.join("wick.toml"), manifest).unwrap();
}

impl Fixture {
    /// One model `m` that adds `value` to four numbers.
    pub async fn adding(value: f32, limits: &str) -> Self {
        Self::new(&[("m", &onnx::add_scalar(value, &[4]), limits)]).await
    }

    /// One model `m` that returns its input.
    pub async fn identity(datatype: Datatype, shape: &[i64]) -> Self {
        Self::new(&[("m", &onnx::identity(datatype, shape), "")]).await
    }

    pub async fn new(packages: &[(&str, &[u8], &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let settings = RepositorySettings { cpus: 2, drain: Duration::from_secs(5) };
        let repository = Repository::new(engine(), settings).unwrap();
        for (name, model, limits) in packages {
            let path = dir.path().join(name);
            write_package(&path, name, "1.0.0", model, limits);
            repository.add(Source { path, grants: Grants::default() }).await.unwrap();
        }
        assert!(!repository.is_ready(), "ready before anything is loaded");
        let failed = repository.load_all().await;
        assert!(failed.is_empty(), "{failed:?}");
        Self { dir, repository }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn router(&self) -> Router {
        router(self.repository.clone(), &settings())
    }

    pub async fn call(&self, request: Request<Body>) -> Reply {
        call(self.router(), request).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Reply {
        self.call(Request::post(path).body(body.into()).unwrap()).await
    }

    /// Post a JSON header and binary data.
    pub async fn post_mixed(&self, path: &str, header: &str, binary: &[u8]) -> Reply {
        let body = [header.as_bytes(), binary].concat();
        let request = Request::post(path)
            .header("inference-header-content-length", header.len())
            .body(body.into());
        self.call(request.unwrap()).await
    }
}

pub async fn call(router: Router, request: Request<Body>) -> Reply {
    let (head, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply { status: head.status, headers: head.headers, body }
}

/// A JSON request with one FP32 input `x` of four numbers.
pub fn four(numbers: [f32; 4]) -> String {
    format!(
        r#"{{"id":"i","inputs":[{{"name":"x","shape":[4],"datatype":"FP32","data":{numbers:?}}}]}}"#
    )
}
