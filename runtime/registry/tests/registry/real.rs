//! A real registry, Debian's `docker-registry`: run by `cargo xtask registry`, which tells where it
//! is. It keeps no list of referrers, so these tests also see the fallback by tag.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wick_package::signature::cosign_tag;
use wick_package::{Digest, Reason as _, Reference, oci};
use wick_registry::{Artifact, Credentials, Registry, Settings};

use crate::support::{
    Scratch, assert_whole, client, fixture, fixtures, quiet, settings, weights_layer,
};

/// Longest wait for the registry to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// `ann` with the password `secret`, as htpasswd writes it.
const HTPASSWD: &str = "ann:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Weights of the tests' packages.
const WEIGHTS: usize = 2_000_000;

/// A running registry.
pub struct Real {
    addr: SocketAddr,
    child: Child,
    dir: TempDir,
}

// === impl Real ===

impl Real {
    fn start(auth: bool) -> Self {
        let executable = std::env::var_os("WICK_TEST_REGISTRY");
        let executable = PathBuf::from(executable.expect("run these by `cargo xtask registry`"));
        let dir = TempDir::new().unwrap();
        let root = dir.path().display();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '{addr}', secret: tests}}\n"
        );
        if auth {
            fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: tests, path: {root}/htpasswd}}}}\n");
        }
        let file = dir.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(executable);
        command.arg("serve").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { addr, child, dir }
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.addr).parse().unwrap()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        let _ = &self.dir;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker-registry; cargo xtask registry"]
async fn a_package_goes_there_and_back() {
    let (scratch, real) = (Scratch::new(), Real::start(false));
    let layout = scratch.layout("a", "one", WEIGHTS);
    let reference = real.reference("team/app:1");
    let pushed = client().push_layout(&layout, &reference, quiet()).await.unwrap();
    assert!(pushed.moved > WEIGHTS as u64 && pushed.kept == 0, "{pushed:?}");
    let again = client().push_layout(&layout, &reference, quiet()).await.unwrap();
    assert!(again.moved < 20_000 && again.kept > WEIGHTS as u64, "{again:?}");

    let store = scratch.store();
    let pulled = client().pull(&reference, &store, quiet()).await.unwrap();
    assert_eq!(pulled.digest, pushed.digest);
    let (package, _lease) = store.open_package(&pulled.image).unwrap();
    package.verify().unwrap();
    assert_whole(&store);
    assert_eq!(client().digest(&reference).await.unwrap(), pushed.digest);
    let seen = client().inspect(&reference).await.unwrap();
    assert_eq!((seen.digest, seen.moved < 50_000), (pushed.digest, true));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker-registry; cargo xtask registry"]
async fn a_changed_component_moves_only_the_small_layer_both_ways() {
    let (scratch, real) = (Scratch::new(), Real::start(false));
    let store = scratch.store();
    let (one, two) = (real.reference("team/app:1"), real.reference("team/app:2"));
    let layouts = [scratch.layout("a", "one", WEIGHTS), scratch.layout("b", "two", WEIGHTS)];
    let first = client().push_layout(&layouts[0], &one, quiet()).await.unwrap();
    let second = client().push_layout(&layouts[1], &two, quiet()).await.unwrap();
    assert!(second.moved * 100 <= first.moved, "{} of {}", second.moved, first.moved);
    let first = client().pull(&one, &store, quiet()).await.unwrap();
    let second = client().pull(&two, &store, quiet()).await.unwrap();
    assert!(second.moved * 100 <= first.moved, "{} of {}", second.moved, first.moved);
    let tags = client().tags(&one).await.unwrap();
    assert_eq!(tags, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker-registry; cargo xtask registry"]
async fn a_pull_goes_on_where_an_earlier_process_stopped() {
    let (scratch, real) = (Scratch::new(), Real::start(false));
    let layout = scratch.layout("a", "one", WEIGHTS);
    let reference = real.reference("team/app:1");
    client().push_layout(&layout, &reference, quiet()).await.unwrap();
    let store = scratch.store();
    let (weights, size) = weights_layer(&layout);
    let half = size as usize / 2;
    let bytes = fs::read(layout.join("blobs/sha256").join(weights.hex())).unwrap();
    fs::write(store.root().join("ingest").join(weights.hex()), &bytes[..half]).unwrap();
    let pulled = client().pull(&reference, &store, quiet()).await.unwrap();
    assert!(pulled.moved <= size - half as u64 + 20_000, "{pulled:?}");
    assert_whole(&store);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker-registry; cargo xtask registry"]
async fn blobs_are_mounted_from_a_repository_that_has_them() {
    let (scratch, real) = (Scratch::new(), Real::start(false));
    let store = scratch.store();
    let (one, two) = (real.reference("team/app:1"), real.reference("other/app:1"));
    client().push_layout(&scratch.layout("a", "one", WEIGHTS), &one, quiet()).await.unwrap();
    let pulled = client().pull(&one, &store, quiet()).await.unwrap();
    let pushed = client().push_stored(&store, &pulled.image, &two, quiet()).await.unwrap();
    assert!(pushed.moved < 20_000 && pushed.kept > WEIGHTS as u64, "{pushed:?}");
    let copied = client().copy(&one, &real.reference("third/app:1"), quiet()).await.unwrap();
    assert!(copied.moved < 20_000 && copied.kept > WEIGHTS as u64, "{copied:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker-registry; cargo xtask registry"]
async fn a_copy_has_the_same_digest_and_what_refers_to_it() {
    let (scratch, from, to) = (Scratch::new(), Real::start(false), Real::start(false));
    let reference = from.reference("team/app:1");
    let layout = scratch.layout("a", "one", WEIGHTS);
    let pushed = client().push_layout(&layout, &reference, quiet()).await.unwrap();
    client().attach(&reference, pushed.digest, &signature("one")).await.unwrap();
    let target = to.reference("edge/app:1");
    let copied = client().copy(&reference, &target, quiet()).await.unwrap();
    assert_eq!((copied.digest, copied.referrers), (pushed.digest, 1));
    let pulled = client().pull(&target, &scratch.store(), quiet()).await.unwrap();
    assert_eq!((pulled.digest, pulled.referrers), (pushed.digest, 1));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker-registry; cargo xtask registry"]
async fn signatures_are_attached_listed_pulled_and_pushed_on() {
    let (scratch, real) = (Scratch::new(), Real::start(false));
    let reference = real.reference("team/app:1");
    let layout = scratch.layout("a", "one", 1000);
    let pushed = client().push_layout(&layout, &reference, quiet()).await.unwrap();
    assert!(client().referrers(&reference, pushed.digest).await.unwrap().is_empty());
    client().attach(&reference, pushed.digest, &signature("one")).await.unwrap();
    client().attach(&reference, pushed.digest, &signature("one")).await.unwrap();
    client().attach(&reference, pushed.digest, &signature("two")).await.unwrap();
    let listed = client().referrers(&reference, pushed.digest).await.unwrap();
    assert_eq!(listed.len(), 2, "attached twice is there once");
    assert_eq!(listed[0].artifact_type.as_deref(), Some("application/x-test"));
    let manifest = client().artifact(&reference, &listed[0]).await.unwrap();
    let image: oci::Image = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(image.subject.unwrap().digest, pushed.digest);
    let layer = client().artifact_blob(&reference, &image.layers[0]).await.unwrap();
    assert_eq!(layer.as_ref(), b"one");

    let store = scratch.store();
    let pulled = client().pull(&reference, &store, quiet()).await.unwrap();
    assert_eq!(pulled.referrers, 2);
    assert_eq!(store.referrers(pulled.digest).unwrap().len(), 2);
    assert_whole(&store);
    let other = real.reference("other/app:1");
    let onward = client().push_stored(&store, &pulled.image, &other, quiet()).await.unwrap();
    assert_eq!(onward.referrers, 2);
    assert_eq!(client().referrers(&other, pushed.digest).await.unwrap().len(), 2);
    let missing = client().attach(&reference, layers_digest(), &signature("x")).await;
    assert!(missing.unwrap_err().is_not_found());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker-registry; cargo xtask registry"]
async fn signatures_of_cosign_travel_under_their_tag_and_none_is_lost() {
    let (scratch, real) = (Scratch::new(), Real::start(false));
    let (image, signatures) = ("index.json", "sig-tag.json");
    let digest = Digest::of(&fixture(image));
    let tag = cosign_tag(digest);
    let from = real.reference("vision/plus-one:1");
    let under = |repository: &str| real.reference(&format!("{repository}:{tag}"));
    let push = async |layout: &Path, to: &Reference| {
        client().push_layout(layout, to, quiet()).await.unwrap();
    };
    push(&fixtures(&scratch, "image", image), &from).await;
    push(&fixtures(&scratch, "signatures", signatures), &under("vision/plus-one")).await;
    let whole = Digest::of(&fixture(signatures));

    let store = scratch.store();
    let pulled = client().pull(&from, &store, quiet()).await.unwrap();
    assert_eq!((pulled.digest, pulled.referrers), (digest, 1));
    assert_whole(&store);
    let pushed = real.reference("pushed/plus-one:1");
    client().push_stored(&store, &pulled.image, &pushed, quiet()).await.unwrap();
    assert_eq!(client().digest(&under("pushed/plus-one")).await.unwrap(), whole);
    let copied = real.reference("copied/plus-one:1");
    assert_eq!(client().copy(&from, &copied, quiet()).await.unwrap().referrers, 1);
    assert_eq!(client().digest(&under("copied/plus-one")).await.unwrap(), whole);
    // It is in no list of referrers, where nobody would look for it.
    let listed = client().referrers(&copied, digest).await.unwrap();
    assert_eq!(listed.iter().map(|it| it.digest).collect::<Vec<_>>(), [whole]);

    // One of the two there: it becomes two. One that is not among the two: it stays.
    let variant = |change: &dyn Fn(&mut Vec<serde_json::Value>)| {
        let mut manifest: serde_json::Value = serde_json::from_slice(&fixture(signatures)).unwrap();
        change(manifest["layers"].as_array_mut().unwrap());
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let layout = fixtures(&scratch, "variant", signatures);
        fs::write(layout.join(oci::blob_name(Digest::of(&bytes))), &bytes).unwrap();
        let top = oci::Descriptor::of(oci::MANIFEST, &bytes);
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [top]});
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        (layout, Digest::of(&bytes))
    };
    let (fewer, _) = variant(&|layers| layers.truncate(1));
    push(&fewer, &under("fewer/plus-one")).await;
    client().copy(&from, &real.reference("fewer/plus-one:1"), quiet()).await.unwrap();
    assert_eq!(client().digest(&under("fewer/plus-one")).await.unwrap(), whole);
    let (other, its) = variant(&|layers| {
        layers.truncate(1);
        layers[0]["annotations"] = serde_json::json!({"another": "signature"});
    });
    push(&other, &under("other/plus-one")).await;
    let refused = client().copy(&from, &real.reference("other/plus-one:1"), quiet()).await;
    assert_eq!(refused.unwrap_err().code(), "other-signatures");
    assert_eq!(client().digest(&under("other/plus-one")).await.unwrap(), its);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs docker-registry; cargo xtask registry"]
async fn a_registry_with_passwords_wants_the_right_one() {
    let (scratch, real) = (Scratch::new(), Real::start(true));
    let layout = scratch.layout("a", "one", 1000);
    let reference = real.reference("team/app:1");
    let with = |password: &str| {
        let (user, password) = ("ann".to_owned(), password.to_owned());
        let registry = real.addr.to_string();
        let credentials = Credentials::Given { registry, user, password };
        Registry::new(Settings { credentials, ..settings() }).unwrap()
    };
    for (client, words) in [(client(), "who you are"), (with("wrong"), "refuses the user")] {
        let error = client.push_layout(&layout, &reference, quiet()).await.unwrap_err();
        assert_eq!(error.code(), "unauthorized");
        assert!(error.to_string().contains(words), "{error}");
    }
    with("secret").push_layout(&layout, &reference, quiet()).await.unwrap();
    with("secret").pull(&reference, &scratch.store(), quiet()).await.unwrap();
}

fn layers_digest() -> Digest {
    Digest::of(b"no such image")
}

fn signature(text: &str) -> Artifact {
    Artifact {
        artifact_type: "application/x-test".to_owned(),
        annotations: [("dev.wick.test".to_owned(), text.to_owned())].into(),
        layers: vec![("text/plain".to_owned(), Default::default(), text.as_bytes().to_vec())],
    }
}
