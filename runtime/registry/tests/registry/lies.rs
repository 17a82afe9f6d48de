//! Registries that fail or lie. Nothing wrong ever gets into the store, and the error says what it
//! was.

use std::time::Duration;

use serde_json::json;
use wick_package::oci::{self, Descriptor, Platform};
use wick_package::{Digest, OpenError, Reason as _, error_text};
use wick_registry::{Registry, RegistryError, Settings, StoreError};

use crate::liar::{Act, Liar};
use crate::support::{Scratch, assert_whole, client, quiet, settings, weights, weights_layer};

/// Pull what `lie` has prepared; the error, after which the store is as whole as it was.
async fn refused(lie: impl FnOnce(&Liar, &str)) -> RegistryError {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", 200_000);
    liar.serve(&layout, "1");
    lie(&liar, &weights_layer(&layout).0.to_string());
    let store = scratch.store();
    let settings = Settings { stall_timeout: Duration::from_millis(300), ..settings() };
    let client = Registry::new(settings).unwrap();
    let error = client.pull(&liar.reference("1"), &store, quiet()).await.unwrap_err();
    assert!(store.images().unwrap().is_empty(), "{error}");
    assert_whole(&store);
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_has_its_own_error() {
    let said = r#"{"errors":[{"code":"DENIED","message":"not\u001b[31m yours"}]}"#;
    let cases = [
        (401, "unauthorized", "wants to know who you are"),
        (403, "forbidden", "does not permit it (not[31m yours)"),
        (404, "image-not-found", "has no such thing (not[31m yours)"),
        (429, "registry-busy", "is asked too often: try again later"),
        (500, "registry-failed", "failed with status 500"),
        (503, "registry-failed", "failed with status 503"),
        (418, "registry-failed", "failed with status 418"),
    ];
    for (status, code, words) in cases {
        let lie = |liar: &Liar, _: &str| {
            liar.rule("manifests/1", 99, Act::Answer(status, vec![], said.to_owned()));
        };
        let error = refused(lie).await;
        assert_eq!(error.code(), code, "{status}: {error}");
        assert!(error.to_string().contains(words), "{status}: {error}");
        assert!(error.to_string().contains("team/app:1: 127.0.0.1:"), "{status}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_from_a_missing_one() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let basic = vec![("www-authenticate", "Basic realm=\"x\"".to_owned())];
    liar.rule("manifests/1", 99, Act::Answer(401, basic, String::new()));
    let credentials = liar.known("ann", "wrong");
    let client = Registry::new(Settings { credentials, ..settings() }).unwrap();
    let error = client.pull(&liar.reference("1"), &scratch.store(), quiet()).await.unwrap_err();
    assert!(matches!(error, RegistryError::BadCredentials { .. }), "{error}");
    assert!(!error_text(&error).contains("wrong"), "no password in an error: {error}");
    assert_eq!(liar.seen().len(), 2, "it is not tried over and over");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_were_asked_for_are_refused() {
    let same_length = |liar: &Liar, weights: &str| {
        let len = liar.len_of(weights);
        liar.rule(weights, 99, Act::Other(vec![7; len].into()));
    };
    let error = refused(same_length).await;
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");

    let longer = |liar: &Liar, weights: &str| {
        let len = liar.len_of(weights);
        liar.rule(weights, 99, Act::Other(vec![7; len + 1].into()));
    };
    assert_eq!(refused(longer).await.code(), "damaged-transfer");

    let manifest = |liar: &Liar, _: &str| {
        let other = r#"{"schemaVersion":2,"layers":[],"config":{}}"#;
        liar.rule("manifests/1", 99, Act::Other(other.into()));
    };
    let error = refused(manifest).await;
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_length_than_the_manifest_says_is_refused() {
    for wrong in [10_u64, 10_000_000] {
        let error = refused(|liar, weights| liar.rule(weights, 99, Act::Claim(wrong))).await;
        match error {
            RegistryError::Length { got, .. } => assert_eq!(got, wrong),
            // The connection may end before the header is looked at.
            other => panic!("{wrong}: {other}"),
        }
    }
    let error = refused(|liar, _| {
        liar.rule("manifests/1", 9, Act::Other(vec![b' '; 5 << 20].into()));
    });
    assert!(error.await.to_string().contains("at most 4194304"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_begins_elsewhere_is_refused() {
    let error = refused(|liar, weights| {
        liar.rule(weights, 1, Act::Cut(1000));
        let range = vec![("content-range", "bytes 5-9/10".to_owned())];
        liar.rule(weights, 9, Act::Answer(206, range, "12345".to_owned()));
    })
    .await;
    assert!(error.to_string().contains("from byte 5 instead of 1000"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_cuts_or_says_nothing_is_given_up() {
    let error = refused(|liar, weights| liar.rule(weights, 99, Act::Cut(0))).await;
    assert!(matches!(error, RegistryError::Cut { .. }), "{error}");
    let error = refused(|liar, weights| liar.rule(weights, 99, Act::Silence)).await;
    assert!(matches!(error, RegistryError::Stalled { .. }), "{error}");
    assert_eq!(error.code(), "registry-unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_redirects_and_such_out_of_encryption_are_refused() {
    let error = refused(|liar, weights| {
        let around = format!("http://{}/v2/team/app/blobs/{weights}", liar.addr);
        liar.rule(weights, 99, Act::Answer(302, vec![("location", around)], String::new()));
    })
    .await;
    assert!(error.to_string().contains("redirects more than 5 times"), "{error}");
    let error = refused(|liar, weights| {
        let file = vec![("location", "file:///etc/passwd".to_owned())];
        liar.rule(weights, 99, Act::Answer(302, file, String::new()));
    })
    .await;
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_two_things_at_once_are_refused() {
    let both = json!({ "schemaVersion": 2, "manifests": [], "layers": [], "config": {} });
    let other = json!({ "schemaVersion": 2, "mediaType": "text/plain", "manifests": [] });
    for (document, words) in [(both, "at once"), (other, "text/plain"), (json!(7), "")] {
        let (scratch, liar) = (Scratch::new(), Liar::start().await);
        let index = liar.document(oci::INDEX, document.to_string());
        liar.tag("1", index.digest);
        let pull = client().pull(&liar.reference("1"), &scratch.store(), quiet()).await;
        let error = pull.unwrap_err();
        assert!(matches!(error, RegistryError::Answer { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_says_another_type_of_its_child_is_refused() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let manifest = json!({ "schemaVersion": 2, "layers": [], "config": {
        "mediaType": oci::CONFIG, "digest": Digest::of(b"{}"), "size": 2,
    } });
    let manifest = liar.document(oci::MANIFEST, manifest.to_string());
    let lie = Descriptor {
        media_type: oci::INDEX.to_owned(),
        platform: Some(Platform::host()),
        ..manifest
    };
    let index = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [lie] });
    liar.tag("1", liar.document(oci::INDEX, index.to_string()).digest);
    let store = scratch.store();
    let error = client().pull(&liar.reference("1"), &store, quiet()).await.unwrap_err();
    assert!(error.to_string().contains("its index says"), "{error}");
    assert!(store.images().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_documents_are_bounded_all_together() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let next = vec![("link", "</v2/team/app/tags/list?last=x>; rel=\"next\"".to_owned())];
    let page = json!({ "tags": ["x".repeat(3 << 20)] }).to_string();
    liar.rule("tags/list", 99, Act::Answer(200, next, page));
    let error = client().tags(&liar.reference("1")).await.unwrap_err();
    assert!(error.to_string().contains("more than 16777216 bytes of tags"), "{error}");
    assert_eq!(liar.seen_of("tags/list").len(), 6);

    // Indexes in an index, each with manifests that are as large as one may be.
    let manifest = |number: usize| {
        let config = Descriptor::of(oci::CONFIG, b"{}");
        let text = "x".repeat(1 << 20);
        let image = json!({
            "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": [],
            "annotations": { "n": number.to_string(), "text": text },
        });
        liar.document(oci::MANIFEST, image.to_string())
    };
    let index = |manifests: Vec<Descriptor>| {
        let index = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": manifests });
        liar.document(oci::INDEX, index.to_string())
    };
    let large = index((0..40).map(manifest).collect());
    let small = (0..9).map(|part| {
        let one = |number: usize| {
            let config = Descriptor::of(oci::CONFIG, b"{}");
            let image = json!({ "schemaVersion": 2, "config": config, "layers": [], "n": number });
            liar.document(oci::MANIFEST, image.to_string())
        };
        index((0..60).map(|number| one(part * 60 + number)).collect())
    });
    let many = index(small.collect());
    let to = format!("{}/team/copy:1", liar.addr).parse().unwrap();
    for (top, words) in [
        (large, "bytes of documents: at most 33554432 are taken"),
        (many, "has 513 documents: at most 512 are taken"),
    ] {
        liar.tag("1", top.digest);
        let error = client().copy(&liar.reference("1"), &to, quiet()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    drop(scratch);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_very_many_referrers_is_not_copied_in_part() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let image = liar.serve(&scratch.layout("a", "one", 1000), "1");
    let all: Vec<_> = (0..257).map(|n: usize| Descriptor::of("x", &n.to_le_bytes())).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": all });
    let index = liar.document(oci::INDEX, index.to_string());
    liar.tag(&format!("sha256-{}", image.hex()), index.digest);
    let to = format!("{}/team/copy:1", liar.addr).parse().unwrap();
    let error = client().copy(&liar.reference("1"), &to, quiet()).await.unwrap_err();
    assert!(error.to_string().contains("has 257 referrers: at most 256 are taken"), "{error}");
    assert!(liar.seen().iter().all(|seen| !seen.path.contains("team/copy")), "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_leads_out_of_the_package_is_never_opened() {
    for (name, kind) in [
        ("../evil", b'0'),
        ("/etc/passwd", b'0'),
        ("a/../../evil", b'0'),
        ("link", b'2'),
        ("hard", b'1'),
    ] {
        let (scratch, liar) = (Scratch::new(), Liar::start().await);
        hostile(&liar, name, kind);
        let store = scratch.store();
        // The bytes are what they say to be: they may lie in the store, where nothing unpacks.
        let pulled = client().pull(&liar.reference("1"), &store, quiet()).await.unwrap();
        let error = store.open_package(&pulled.image).unwrap_err();
        assert!(matches!(error, StoreError::Open(OpenError::Layout { .. })), "{name}: {error}");
        assert!(error_text(&error).contains(name), "{}", error_text(&error));
        let error = client().inspect(&liar.reference("1")).await.unwrap_err();
        assert!(error_text(&error).contains(name), "{}", error_text(&error));
    }
}

/// An image whose only layer has a member of this name and kind.
fn hostile(liar: &Liar, name: &str, kind: u8) {
    let mut layer = vec![0_u8; 512];
    layer[..name.len()].copy_from_slice(name.as_bytes());
    layer[100..107].copy_from_slice(b"0000644");
    layer[124..135].copy_from_slice(b"00000000000");
    layer[136..147].copy_from_slice(b"00000000000");
    layer[156] = kind;
    layer[157..168].copy_from_slice(b"/etc/shadow");
    layer[257..263].copy_from_slice(b"ustar\0");
    layer[148..156].copy_from_slice(b"        ");
    let sum: u32 = layer.iter().map(|byte| u32::from(*byte)).sum();
    layer[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    layer.extend([0; 1024]);
    let layer = liar.blob(oci::LAYER, layer);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
    });
    let config = liar.blob(oci::CONFIG, config.to_string());
    let image = json!({
        "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": [layer],
    });
    let manifest = liar.document(oci::MANIFEST, image.to_string());
    let entry = Descriptor { platform: Some(Platform::host()), ..manifest };
    let index = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [entry] });
    let index = liar.document(oci::INDEX, index.to_string());
    liar.tag("1", index.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_beginning_is_fetched_again() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", 200_000);
    liar.serve(&layout, "1");
    let store = scratch.store();
    let partial = store.root().join("ingest").join(weights_layer(&layout).0.hex());
    std::fs::write(&partial, weights(5000)).unwrap();
    let pulled = client().pull(&liar.reference("1"), &store, quiet()).await.unwrap();
    assert_eq!(liar.seen_of(&weights_layer(&layout).0.to_string()).len(), 2);
    assert!(pulled.moved > 200_000);
    assert_whole(&store);
}
