//! What every test stands on: a folder with a hub, a repository with a policy, and somebody who asks.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wick_hub::{GitSettings, Hub, Settings, Source};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const DIGEST: &str = "sha256:0101010101010101010101010101010101010101010101010101010101010101";

/// A folder with a hub's keys and a repository beside them.
pub struct Bench {
    folder: tempfile::TempDir,
    pub token: String,
}

/// Somebody with a token who speaks to a hub.
#[derive(Clone)]
pub struct Caller {
    address: SocketAddr,
    token: String,
    http: reqwest::Client,
}

/// Wait until it holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A rollout of one version of a model, with what else it says.
pub fn rollout(name: &str, version: u8, more: &str) -> String {
    let digest = DIGEST.replace("01", &format!("{version:02x}"));
    format!(
        "apiVersion: wick.dev/v1alpha1\nkind: Rollout\nmetadata:\n  name: {name}\nspec:\n  models:\n  \
         - name: ocr\n    image: registry.example/ocr@{digest}\n    disk: 1Mi\n    memory: 1Mi\n{more}"
    )
}

// === impl Bench ===

impl Bench {
    pub fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let hub = folder.path().join("hub");
        wick_hub::init(&hub, &names).unwrap();
        let token = wick_hub::make_token(&hub, "admin", wick_hub::Role::Admin).unwrap();
        let bench = Self { folder, token };
        fs::create_dir_all(bench.repository()).unwrap();
        bench.git(&["init", "--quiet", "--initial-branch", "main"]);
        bench.git(&["config", "user.email", "test@example"]);
        bench.git(&["config", "user.name", "test"]);
        bench
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("hub")
    }

    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("fleet")
    }

    pub fn git(&self, args: &[&str]) {
        let done =
            Command::new("git").arg("-C").arg(self.repository()).args(args).output().unwrap();
        assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.repository().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn commit(&self, path: &str, text: &str) {
        self.write(path, text);
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "change"]);
    }

    pub fn settings(&self, broker: wick_hub::Broker) -> Settings {
        let git = GitSettings {
            url: format!("file://{}", self.repository().display()),
            reference: "main".to_owned(),
            token: None,
            ssh_key: None,
        };
        Settings {
            dir: self.dir(),
            link: broker.clone(),
            broker,
            source: Source::Git(git, Duration::from_secs(1)),
            admin_token: None,
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: false,
            control: None,
        }
    }

    pub async fn hub(&self, broker: wick_hub::Broker) -> (Hub, Caller) {
        let hub = Hub::start(self.settings(broker)).await.unwrap();
        let caller = Caller::new(hub.api, &self.token);
        (hub, caller)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(Path::new(name))).unwrap()
    }
}

// === impl Caller ===

impl Caller {
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned(), http: reqwest::Client::new() }
    }

    #[must_use]
    pub fn with(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    pub async fn get(&self, path: &str) -> Value {
        let (code, value) = self.call(reqwest::Method::GET, path, None).await;
        assert_eq!(code, 200, "{path}: {value}");
        value
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(reqwest::Method::POST, path, Some(body)).await
    }

    pub async fn text(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.address);
        self.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// The token with which this site may enrol.
    pub async fn enrolment(&self, site: &str, again: bool) -> String {
        let (code, made) =
            self.post("/v1/enrolments", &json!({"site": site, "again": again})).await;
        assert_eq!(code, 200, "{made}");
        made["token"].as_str().unwrap().to_owned()
    }

    pub async fn phase(&self, rollout: &str) -> String {
        let (_, value) =
            self.call(reqwest::Method::GET, &format!("/v1/rollouts/{rollout}"), None).await;
        value["phase"].as_str().unwrap_or_default().to_owned()
    }

    async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let url = format!("http://{}{path}", self.address);
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let code = answer.status().as_u16();
        (code, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }
}
