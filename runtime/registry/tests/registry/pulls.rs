//! Pulls that go well in the end, and what they move.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use wick_package::oci::{self, Descriptor, Platform};
use wick_package::{Digest, ImageDocuments, LayerRole, Layout, Reason as _};
use wick_registry::{Registry, RegistryError, Settings};

use crate::liar::{Act, Liar};
use crate::support::{Meter, Scratch, assert_whole, client, quiet, settings, weights_layer};

/// Weights of the tests' packages: several chunks.
const WEIGHTS: usize = 3_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pulled_is_what_was_packed() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let digest = liar.serve(&scratch.layout("a", "one", WEIGHTS), "1");
    let (store, meter) = (scratch.store(), Arc::new(Meter::default()));
    let pulled = client().pull(&liar.reference("1"), &store, meter.clone()).await.unwrap();
    assert_eq!(pulled.digest, digest);
    assert!(pulled.moved > WEIGHTS as u64 && pulled.kept == 0, "{pulled:?}");
    assert_eq!(meter.moved.load(Ordering::Relaxed), pulled.moved);

    let image = store.find(&liar.reference("1").to_string()).unwrap();
    assert!(store.is_complete(&image.descriptor));
    let (package, _lease) = store.open_package(&image.descriptor).unwrap();
    package.verify().unwrap();
    assert_eq!(package.digest(), digest);
    assert_eq!(package.manifest().name.as_str(), "app");
    assert_whole(&store);

    let again = client().pull(&liar.reference("1"), &store, quiet()).await.unwrap();
    assert!(again.moved < 20_000 && again.kept > WEIGHTS as u64, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_with_the_same_weights_moves_only_the_small_layer() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    liar.serve(&scratch.layout("a", "one", WEIGHTS), "1");
    let changed = scratch.layout("b", "another component", WEIGHTS);
    liar.serve(&changed, "2");
    let store = scratch.store();
    let first = client().pull(&liar.reference("1"), &store, quiet()).await.unwrap();
    let second = client().pull(&liar.reference("2"), &store, quiet()).await.unwrap();
    let (weights, size) = weights_layer(&changed);
    assert!(second.moved * 100 <= first.moved, "{} of {}", second.moved, first.moved);
    assert_eq!(liar.seen_of(&weights.to_string()).len(), 1);
    assert!(second.kept >= size);
    assert_eq!(store.images().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_pull_goes_on_at_the_byte() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", WEIGHTS);
    liar.serve(&layout, "1");
    let (weights, size) = weights_layer(&layout);
    let half = size as usize / 2;
    liar.rule(weights.to_string(), 1, Act::Cut(half));
    let store = scratch.store();
    let pulled = client().pull(&liar.reference("1"), &store, quiet()).await.unwrap();
    let seen = liar.seen_of(&weights.to_string());
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].range, Some(format!("bytes={half}-")));
    assert!(pulled.moved < size + 20_000, "nothing moved twice: {}", pulled.moved);
    assert_whole(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_cut_is_asked_for_again() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", 1000);
    let digest = liar.serve(&layout, "1");
    let (manifest, _) = manifests(&layout);
    let attached = signature(&liar, digest);
    for path in ["manifests/1".to_owned(), manifest.digest.to_string(), attached] {
        liar.rule(path, 2, Act::Cut(10));
    }
    let (store, meter) = (scratch.store(), Arc::new(Meter::default()));
    let pulled = client().pull(&liar.reference("1"), &store, meter.clone()).await.unwrap();
    assert_eq!((pulled.digest, pulled.referrers), (digest, 1));
    assert_eq!(liar.seen_of("manifests/1").len(), 3);
    assert_eq!(meter.waits.load(Ordering::Relaxed), 6);

    // And given up as a blob is.
    liar.rule("manifests/2", 99, Act::Cut(10));
    liar.tag("2", digest);
    let error = client().pull(&liar.reference("2"), &store, quiet()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Cut { .. }), "{error}");
    assert_eq!(liar.seen_of("manifests/2").len(), settings().backoff.failures as usize);
}

/// The manifests of a layout's index: this machine's, and the others'.
fn manifests(layout: &std::path::Path) -> (Descriptor, Vec<Descriptor>) {
    let layout = Layout::open(layout).unwrap();
    let index: oci::Index = layout.json(&layout.only_image().unwrap(), "index").unwrap();
    let ours = |entry: &Descriptor| entry.platform == Some(Platform::host());
    let (ours, others): (Vec<_>, Vec<_>) = index.manifests.into_iter().partition(ours);
    (ours[0].clone(), others)
}

/// Something that refers to an image, listed under the fallback tag; its config's digest.
fn signature(liar: &Liar, image: Digest) -> String {
    let config = liar.blob("application/vnd.oci.empty.v1+json", "{                    }");
    let subject = json!({ "mediaType": oci::INDEX, "digest": image, "size": 1 });
    let artifact = json!({
        "schemaVersion": 2, "mediaType": oci::MANIFEST, "artifactType": "text/plain",
        "config": config, "layers": [], "subject": subject,
    });
    let artifact = liar.document(oci::MANIFEST, artifact.to_string());
    let index = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [artifact] });
    let index = liar.document(oci::INDEX, index.to_string());
    liar.tag(&format!("sha256-{}", image.hex()), index.digest);
    config.digest.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_of_others_that_is_broken_stops_nothing() {
    let other = br#"{"schemaVersion":2,"layers":[],"config":{}}"#;
    for act in [
        Act::Answer(404, vec![], String::new()),
        Act::Answer(500, vec![], String::new()),
        Act::Other(other.as_slice().into()),
        Act::Cut(10),
    ] {
        let (scratch, liar) = (Scratch::new(), Liar::start().await);
        let layout = scratch.layout("a", "one", 1000);
        let digest = liar.serve(&layout, "1");
        let (_, others) = manifests(&layout);
        liar.rule(others[0].digest.to_string(), 99, act);
        let store = scratch.store();
        let pulled = client().pull(&liar.reference("1"), &store, quiet()).await.unwrap();
        assert_eq!(pulled.digest, digest);
        assert!(!store.has(&others[0]) && store.is_complete(&pulled.image));
        let (package, _lease) = store.open_package(&pulled.image).unwrap();
        package.verify().unwrap();
        // What a signature is checked by: the index, and the manifest that leads to the files.
        let documents = ImageDocuments::read(&store.blob_path(digest)).unwrap();
        assert_eq!((documents.digest, documents.documents.len()), (digest, 2));
        assert_whole(&store);
        // Who asks for all platforms is told.
        let to = format!("{}/team/copy:1", liar.addr).parse().unwrap();
        client().copy(&liar.reference("1"), &to, quiet()).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_pull_failed_need_not_come_again() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", WEIGHTS);
    liar.serve(&layout, "1");
    let (weights, size) = weights_layer(&layout);
    let half = size as usize / 2;
    liar.rule(weights.to_string(), 1, Act::Cut(half));
    liar.rule(weights.to_string(), 10, Act::Answer(500, vec![], String::new()));
    let store = scratch.store();
    let error = client().pull(&liar.reference("1"), &store, quiet()).await.unwrap_err();
    assert_eq!(error.code(), "registry-failed", "{error}");
    assert!(store.images().unwrap().is_empty());

    let second = Liar::start().await;
    second.serve(&layout, "1");
    let pulled = client().pull(&second.reference("1"), &store, quiet()).await.unwrap();
    assert!(pulled.kept >= half as u64, "{pulled:?}");
    assert!(pulled.moved <= size - half as u64 + 20_000, "{pulled:?}");
    assert_whole(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_ranges_sends_all_of_it_again() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", WEIGHTS);
    liar.serve(&layout, "1");
    let weights = weights_layer(&layout).0.to_string();
    liar.rule(weights.clone(), 1, Act::Cut(1_000_000));
    liar.rule(weights, 1, Act::NoRange);
    let (store, meter) = (scratch.store(), Arc::new(Meter::default()));
    client().pull(&liar.reference("1"), &store, meter.clone()).await.unwrap();
    assert_eq!(meter.undone.load(Ordering::Relaxed), 1_000_000);
    assert_whole(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_of_one_image_share_one_download() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", WEIGHTS);
    liar.serve(&layout, "1");
    let (weights, size) = weights_layer(&layout);
    liar.rule(weights.to_string(), 1, Act::Slow(Duration::from_millis(30)));
    // Two stores over one folder, as two processes have them.
    let (one, two) = (scratch.store(), scratch.store());
    let (client, reference) = (client(), liar.reference("1"));
    let (one, two) = tokio::join!(
        client.pull(&reference, &one, quiet()),
        client.pull(&reference, &two, quiet())
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.digest, two.digest);
    assert_eq!(liar.seen_of(&weights.to_string()).len(), 1);
    assert!(one.kept.max(two.kept) >= size);
    assert_whole(&scratch.store());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_during_the_pull_changes_nothing() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let second = liar.serve(&scratch.layout("b", "two", WEIGHTS + 1), "latest");
    let first = liar.serve(&scratch.layout("a", "one", WEIGHTS), "latest");
    liar.rule("manifests/latest", 1, Act::Move { tag: "latest".to_owned(), to: second });
    let store = scratch.store();
    let reference = liar.reference("latest");
    let pulled = client().pull(&reference, &store, quiet()).await.unwrap();
    assert_eq!(pulled.digest, first, "all of what the tag meant at the beginning");
    let image = store.find(&reference.to_string()).unwrap();
    store.open_package(&image.descriptor).unwrap().0.verify().unwrap();

    let pulled = client().pull(&reference, &store, quiet()).await.unwrap();
    assert_eq!(pulled.digest, second);
    assert_eq!(store.find(&reference.to_string()).unwrap().digest(), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_pulled_as_that_digest() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let digest = liar.serve(&scratch.layout("a", "one", 1000), "1");
    let store = scratch.store();
    let pinned = liar.reference("1").with_digest(digest);
    client().pull(&pinned, &store, quiet()).await.unwrap();
    assert_eq!(store.find(&pinned.to_string()).unwrap().digest(), digest);
    let other = liar.reference("1").with_digest(Digest::of(b"other"));
    let error = client().pull(&other, &store, quiet()).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_without_our_platform_lists_those_that_are_there() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let entry = |os: &str, architecture: &str| Descriptor {
        platform: Some(Platform { os: os.to_owned(), architecture: architecture.to_owned() }),
        ..Descriptor::of(oci::MANIFEST, architecture.as_bytes())
    };
    let index = oci::Index {
        annotations: oci::Annotations::new(),
        manifests: vec![
            entry("linux", "riscv64"),
            entry("windows", "amd64"),
            entry("unknown", "unknown"),
        ],
        media_type: Some(oci::INDEX.to_owned()),
        schema_version: 2,
    };
    let index = liar.document(oci::INDEX, serde_json::to_vec(&index).unwrap());
    liar.tag("1", index.digest);
    let error = client().pull(&liar.reference("1"), &scratch.store(), quiet()).await.unwrap_err();
    assert_eq!(error.code(), "no-platform");
    let text = error.to_string();
    assert!(text.ends_with("it is for linux/riscv64, windows/amd64"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_asked_too_often_is_asked_when_it_says() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    liar.serve(&scratch.layout("a", "one", 1000), "1");
    let later = vec![("retry-after", "1".to_owned())];
    liar.rule("manifests/1", 2, Act::Answer(429, later, String::new()));
    let begun = Instant::now();
    client().pull(&liar.reference("1"), &scratch.store(), quiet()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let seen = liar.seen_of("manifests/1");
    assert!(seen.windows(2).all(|pair| pair[1].at - pair[0].at >= Duration::from_secs(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_by_itself_is_tried_again() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    liar.serve(&scratch.layout("a", "one", 1000), "1");
    liar.rule("manifests/1", 1, Act::Answer(500, vec![], String::new()));
    liar.rule("manifests/1", 1, Act::Answer(503, vec![], String::new()));
    liar.rule("blobs/", 2, Act::Answer(502, vec![], String::new()));
    let meter = Arc::new(Meter::default());
    client().pull(&liar.reference("1"), &scratch.store(), meter.clone()).await.unwrap();
    assert!(meter.waits.load(Ordering::Relaxed) >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_asked_first_and_need_not_help() {
    let (scratch, liar, mirror) = (Scratch::new(), Liar::start().await, Liar::start().await);
    let layout = scratch.layout("a", "one", 1000);
    liar.serve(&layout, "1");
    let empty = Liar::start().await;
    mirror.serve(&layout, "1");
    let with = |mirrors: Vec<String>| {
        let mirrors = [(liar.addr.to_string(), mirrors)].into();
        Registry::new(Settings { mirrors, ..settings() }).unwrap()
    };
    let mirrors = vec![empty.addr.to_string(), mirror.addr.to_string()];
    let store = scratch.store();
    with(mirrors).pull(&liar.reference("1"), &store, quiet()).await.unwrap();
    assert!(liar.seen().is_empty() && !empty.seen().is_empty() && !mirror.seen().is_empty());
    store.find(&liar.reference("1").to_string()).unwrap();

    let other = Scratch::new();
    let only = with(vec![empty.addr.to_string()]);
    only.pull(&liar.reference("1"), &other.store(), quiet()).await.unwrap();
    assert!(!liar.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn inspecting_fetches_no_weights() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", WEIGHTS);
    let digest = liar.serve(&layout, "1");
    let seen = client().inspect(&liar.reference("1")).await.unwrap();
    assert_eq!(seen.digest, digest);
    assert_eq!(seen.manifest.inputs[0].name, "x");
    assert_eq!(seen.platforms, ["linux/amd64", "linux/arm64"]);
    let roles: Vec<_> = seen.layers.iter().map(|layer| layer.role).collect();
    assert_eq!(roles, [LayerRole::Code, LayerRole::Weights]);
    assert_eq!(seen.layers[1].files, ["model.onnx"]);
    assert!(seen.moved < 50_000);
    assert!(liar.seen_of(&weights_layer(&layout).0.to_string()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_once_with_the_password_that_only_its_server_sees() {
    let (scratch, liar, tokens) = (Scratch::new(), Liar::start().await, Liar::start().await);
    liar.serve(&scratch.layout("a", "one", 1000), "1");
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"here\",scope=\"repository:team/app:pull\"",
        tokens.addr
    );
    liar.rule(
        "manifests/1",
        1,
        Act::Answer(401, vec![("www-authenticate", challenge)], String::new()),
    );
    tokens.rule("/token", 9, Act::Answer(200, vec![], "{\"token\":\"t-1\"}".to_owned()));
    let credentials = liar.known("ann", "secret");
    let client = Registry::new(Settings { credentials, ..settings() }).unwrap();
    client.pull(&liar.reference("1"), &scratch.store(), quiet()).await.unwrap();
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].path, "/token?service=here&scope=repository%3Ateam%2Fapp%3Apull");
    assert_eq!(asked[0].authorization.as_deref(), Some("Basic YW5uOnNlY3JldA=="));
    let seen = liar.seen();
    assert_eq!(seen[0].authorization, None);
    assert!(seen[1..].iter().all(|seen| seen.authorization.as_deref() == Some("Bearer t-1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let (scratch, liar, elsewhere) = (Scratch::new(), Liar::start().await, Liar::start().await);
    let layout = scratch.layout("a", "one", 100_000);
    liar.serve(&layout, "1");
    elsewhere.serve(&layout, "1");
    let weights = weights_layer(&layout).0;
    let basic = vec![("www-authenticate", "Basic realm=\"x\"".to_owned())];
    liar.rule("manifests/1", 1, Act::Answer(401, basic, String::new()));
    let place = format!("http://{}/v2/team/app/blobs/{weights}", elsewhere.addr);
    liar.rule(weights.to_string(), 1, Act::Answer(307, vec![("location", place)], String::new()));
    let credentials = liar.known("ann", "secret");
    let client = Registry::new(Settings { credentials, ..settings() }).unwrap();
    let store = scratch.store();
    client.pull(&liar.reference("1"), &store, quiet()).await.unwrap();
    let here = liar.seen_of(&weights.to_string());
    assert!(here.iter().all(|seen| seen.authorization.is_some()), "{here:?}");
    let there = elsewhere.seen();
    assert_eq!(there.len(), 1);
    assert_eq!(there[0].authorization, None);
    assert_whole(&store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_pointed_to_can_not_ask_for_the_password() {
    let (scratch, liar, elsewhere) = (Scratch::new(), Liar::start().await, Liar::start().await);
    let layout = scratch.layout("a", "one", 1000);
    liar.serve(&layout, "1");
    let weights = weights_layer(&layout).0.to_string();
    let place = format!("http://{}/v2/team/app/blobs/{weights}", elsewhere.addr);
    liar.rule(weights.clone(), 99, Act::Answer(307, vec![("location", place)], String::new()));
    for challenge in [
        "Basic realm=\"x\"".to_owned(),
        format!("Bearer realm=\"http://{}/token\"", elsewhere.addr),
    ] {
        let asks = vec![("www-authenticate", challenge)];
        elsewhere.rule(weights.clone(), 1, Act::Answer(401, asks, String::new()));
        let credentials = liar.known("ann", "secret");
        let client = Registry::new(Settings { credentials, ..settings() }).unwrap();
        let error = client.pull(&liar.reference("1"), &scratch.store(), quiet()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    }
    let there = elsewhere.seen();
    assert!(there.iter().all(|seen| seen.authorization.is_none()), "{there:?}");
    assert!(there.iter().all(|seen| !seen.path.starts_with("/token")), "{there:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_ever_is_kept_for_a_day() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    liar.serve(&scratch.layout("a", "one", 1000), "1");
    let challenge = format!("Bearer realm=\"http://{}/token\"", liar.addr);
    let asks = vec![("www-authenticate", challenge)];
    liar.rule("manifests/1", 1, Act::Answer(401, asks, String::new()));
    let token = format!("{{\"token\":\"t\",\"expires_in\":{}}}", u64::MAX);
    liar.rule("/token", 1, Act::Answer(200, vec![], token));
    client().pull(&liar.reference("1"), &scratch.store(), quiet()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_spoken_only_where_it_was_asked_for() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    liar.serve(&scratch.layout("a", "one", 1000), "1");
    let with = |hosts: &[&str]| {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let plain_http = wick_registry::PlainHttp::Hosts(hosts);
        Registry::new(Settings { plain_http, ..settings() }).unwrap()
    };
    let (store, reference) = (scratch.store(), liar.reference("1"));
    let error = with(&["other:5000"]).pull(&reference, &store, quiet()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(liar.seen().is_empty(), "no word was sent in the open");
    let host = liar.addr.to_string();
    with(&[host.as_str()]).pull(&reference, &store, quiet()).await.unwrap();
}
