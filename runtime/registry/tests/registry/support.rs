//! Packages, stores and clients for the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use wick_package::pack::{Format, Options, write_layout};
use wick_package::{Digest, Layout, Package, oci};
use wick_registry::{Backoff, Credentials, PlainHttp, Progress, Registry, Settings, Store};

/// A folder of a test's own.
pub struct Scratch(pub TempDir);

/// Counts what moves.
#[derive(Default)]
pub struct Meter {
    pub moved: AtomicU64,
    pub kept: AtomicU64,
    pub undone: AtomicU64,
    pub waits: AtomicU64,
}

// === impl Scratch ===

impl Scratch {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn store(&self) -> Store {
        Store::open(self.path("store")).unwrap()
    }

    /// A layout folder of a package with weights of `len` bytes and a component with this text.
    pub fn layout(&self, name: &str, component: &str, len: usize) -> PathBuf {
        let dir = self.path(&format!("{name}.package"));
        fs::create_dir_all(&dir).unwrap();
        let manifest = "[package]\nname = \"app\"\nversion = \"1.0.0\"\n\
                        [handler]\ncomponent = \"handler.wasm\"\n\
                        [[graph]]\nname = \"g\"\npath = \"model.onnx\"\n\
                        [[input]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [-1]\n";
        fs::write(dir.join("wick.toml"), manifest).unwrap();
        fs::write(dir.join("handler.wasm"), component).unwrap();
        fs::write(dir.join("model.onnx"), weights(len)).unwrap();
        let package = Package::open(&dir).unwrap();
        let out = self.path(name);
        let options = Options { format: Format::Folder, reference: None };
        write_layout(&package, &out, &options, &mut |_| {}).unwrap();
        out
    }
}

/// A file that the real cosign has made, or that it has signed.
pub fn fixture(name: &str) -> Vec<u8> {
    fs::read(fixture_folder().join(name)).unwrap()
}

fn fixture_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../package/tests/signature/fixtures")
}

/// A layout folder with all fixtures for blobs, whose image is the document `top`.
pub fn fixtures(scratch: &Scratch, name: &str, top: &str) -> PathBuf {
    let out = scratch.path(name);
    fs::create_dir_all(out.join("blobs/sha256")).unwrap();
    for entry in fs::read_dir(fixture_folder()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        fs::write(out.join(oci::blob_name(Digest::of(&bytes))), bytes).unwrap();
    }
    let kind = if top.contains("index") { oci::INDEX } else { oci::MANIFEST };
    let index = serde_json::json!({
        "schemaVersion": 2, "manifests": [oci::Descriptor::of(kind, &fixture(top))],
    });
    fs::write(out.join("index.json"), index.to_string()).unwrap();
    fs::write(out.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    out
}

/// Bytes that don't repeat soon.
pub fn weights(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// The digest and length of the weights' layer of a layout.
pub fn weights_layer(layout: &Path) -> (Digest, u64) {
    let layout = Layout::open(layout).unwrap();
    let index: oci::Index = layout.json(&layout.only_image().unwrap(), "index").unwrap();
    let image: oci::Image = layout.json(&index.manifests[0], "manifest").unwrap();
    let layer = image.layers.last().unwrap();
    (layer.digest, layer.size)
}

/// Fast settings for a registry on loopback.
pub fn settings() -> Settings {
    Settings {
        plain_http: PlainHttp::Always,
        credentials: Credentials::Anonymous,
        stall_timeout: Duration::from_secs(5),
        backoff: Backoff {
            failures: 4,
            first: Duration::from_millis(10),
            most: Duration::from_millis(50),
            patience: Duration::from_secs(5),
        },
        ..Settings::default()
    }
}

pub fn client() -> Registry {
    Registry::new(settings()).unwrap()
}

pub fn quiet() -> Arc<dyn Progress> {
    Arc::new(())
}

impl Progress for Meter {
    fn moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    fn kept(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Ordering::Relaxed);
    }

    fn undone(&self, bytes: u64) {
        self.undone.fetch_add(bytes, Ordering::Relaxed);
    }

    fn waiting(&self, _why: &str, _time: Duration) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }
}

/// All of a store is as it says.
pub fn assert_whole(store: &Store) {
    let report = store.check(&()).unwrap();
    assert_eq!(report.faults, [], "{report:?}");
}
