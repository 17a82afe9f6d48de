//! What the real cosign has left beside an image, which is its image bit for bit (the fixtures of
//! `wick_package`), and long lists of referrers: from a registry that lies. `real` pushes them too.

use serde_json::json;
use wick_package::Digest;
use wick_package::oci::{self, Descriptor};
use wick_package::signature::{Attached, COSIGN_TYPE, PublicKey, cosign_tag};
use wick_registry::{Registry, Settings, Store, StoredImage};

use crate::liar::{Act, Liar};
use crate::support::{Scratch, assert_whole, client, fixture, fixtures, quiet, settings};

/// Serve the image that cosign has signed, without its signatures.
fn signed(scratch: &Scratch, liar: &Liar) -> Digest {
    liar.serve(&fixtures(scratch, "image", "index.json"), "1")
}

/// Serve a manifest under cosign's tag, and cosign's own blobs.
fn tagged(liar: &Liar, image: Digest, manifest: Vec<u8>) {
    liar.blob(COSIGN_TYPE, fixture("payload.json"));
    liar.blob("application/vnd.oci.image.config.v1+json", fixture("sig-config.json"));
    let manifest = liar.document(oci::MANIFEST, manifest);
    liar.tag(&cosign_tag(image), manifest.digest);
}

/// Pull, and what the store has then.
async fn pulled(liar: &Liar, store: &Store) -> (usize, StoredImage) {
    let pulled = client().pull(&liar.reference("1"), store, quiet()).await.unwrap();
    assert_whole(store);
    (pulled.referrers, store.find(&liar.reference("1").to_string()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_under_cosigns_tag_come_with_the_image() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let image = signed(&scratch, &liar);
    assert_eq!(image, Digest::of(&fixture("index.json")), "what cosign has signed");
    tagged(&liar, image, fixture("sig-tag.json"));
    let store = scratch.store();
    let (count, stored) = pulled(&liar, &store).await;
    assert_eq!((count, stored.referrers.len()), (1, 1));
    assert_eq!(stored.referrers[0].artifact_type.as_deref(), Some(COSIGN_TYPE));

    let layout = store.layout().unwrap();
    let manifest = layout.document(&stored.referrers[0], "signatures").unwrap();
    let attached = Attached::of(&manifest, image).unwrap();
    let key = |name| PublicKey::from_pem(std::str::from_utf8(&fixture(name)).unwrap()).unwrap();
    for (one, key) in attached.into_iter().zip([key("p256.pub"), key("ed25519.pub")]) {
        let payload = layout.document(&one.blob(), "payload").unwrap();
        let (claim, _) = one.read(payload).unwrap().verify(image, [&key]).unwrap();
        assert_eq!(claim.image.as_deref(), Some("127.0.0.1:5055/vision/plus-one"));
    }
    // What is here does not come again.
    let asked = liar.seen_of("blobs/").len();
    assert_eq!(pulled(&liar, &store).await.0, 1);
    assert_eq!(liar.seen_of("blobs/").len(), asked);
    // Whoever has none of its layers can check it with less.
    let beside = client().beside(&liar.reference("1"), image).await.unwrap();
    assert_eq!(beside.documents[0], fixture("index.json"));
    assert!(beside.documents.len() > 1, "its platforms");
    let [(manifest, blobs)] = &beside.artifacts[..] else { panic!("{:?}", beside.artifacts) };
    let payload = Attached::of(manifest, image).unwrap().remove(0);
    assert!(blobs.iter().any(|blob| Digest::of(blob) == payload.blob().digest));
    let mirrored = Registry::new(Settings {
        mirrors: [(liar.addr.to_string(), vec!["127.0.0.1:1".to_owned()])].into(),
        ..settings()
    });
    let mirrored = mirrored.unwrap().beside(&liar.reference("1"), image).await.unwrap();
    assert_eq!(mirrored.artifacts.len(), 1, "a mirror that is away");
    // And nothing of it is in the way where it is only listed.
    let listed = client().referrers(&liar.reference("1"), image).await.unwrap();
    assert_eq!(listed.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_under_cosigns_tag_hides_neither_the_image_nor_other_signatures() {
    let many = {
        let mut manifest: serde_json::Value =
            serde_json::from_slice(&fixture("sig-tag.json")).unwrap();
        let layers = manifest["layers"].as_array().unwrap().clone();
        manifest["layers"] = layers.iter().cycle().take(66).cloned().collect();
        serde_json::to_vec(&manifest).unwrap()
    };
    let large = {
        let text = String::from_utf8(fixture("sig-tag.json")).unwrap();
        text.replacen("\"size\":246", &format!("\"size\":{}", u64::MAX), 2).into_bytes()
    };
    let other = format!("blobs/{}", Digest::of(&fixture("payload.json")));
    for manifest in [fixture("sig-tag.json"), many, large] {
        let (scratch, liar) = (Scratch::new(), Liar::start().await);
        let image = signed(&scratch, &liar);
        tagged(&liar, image, manifest);
        liar.rule(other.clone(), 99, Act::Other(vec![b'x'; 246].into()));
        let referrer = listed(&liar, image);
        let (count, stored) = pulled(&liar, &scratch.store()).await;
        assert_eq!((count, stored.referrers[0].digest), (1, referrer.digest));
    }
    // Somebody's index under that tag.
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let image = signed(&scratch, &liar);
    liar.tag(&cosign_tag(image), image);
    listed(&liar, image);
    assert_eq!(pulled(&liar, &scratch.store()).await.0, 1);
}

/// Serve an artifact that refers to an image, listed under the fallback tag.
fn listed(liar: &Liar, image: Digest) -> Descriptor {
    let empty = liar.blob("application/vnd.oci.empty.v1+json", "{}");
    let subject = Descriptor::new(oci::INDEX, image, 1);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": oci::MANIFEST, "artifactType": "application/x-test",
        "config": empty, "layers": [], "subject": subject,
    });
    let manifest = liar.document(oci::MANIFEST, manifest.to_string());
    let index = json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [manifest]});
    let index = liar.document(oci::INDEX, index.to_string());
    liar.tag(&format!("sha256-{}", image.hex()), index.digest);
    manifest
}

/// A page of a registry's own list, with so many entries, that names the next page.
fn page(entries: usize, next: Option<&str>) -> Act {
    let entry = |number| Descriptor::of(oci::MANIFEST, format!("{entries} {number}").as_bytes());
    let manifests: Vec<_> = (0..entries).map(entry).collect();
    let index = json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": manifests});
    let mut headers = vec![("content-type", oci::INDEX.to_owned())];
    headers.extend(next.map(|next| ("link", format!("<{next}>; rel=\"next\""))));
    Act::Answer(200, headers, index.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_of_referrers_are_read() {
    let liar = Liar::start().await;
    let image = Digest::of(b"image");
    let path = format!("/v2/team/app/referrers/{image}");
    // The second as a whole path, and the third relative to it.
    liar.rule("page=3", 1, page(4, None));
    liar.rule("page=2", 1, page(3, Some("?page=3")));
    liar.rule("referrers/", 1, page(2, Some(&format!("{path}?page=2"))));
    let listed = client().referrers(&liar.reference("1"), image).await.unwrap();
    assert_eq!(listed.len(), 9);
    assert_eq!(listed[8].digest, Digest::of(b"4 3"));
    assert_eq!(liar.seen_of("referrers/").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_referrers_has_an_end() {
    let image = Digest::of(b"image");
    let elsewhere = Liar::start().await;
    let other = format!("http://{}/v2/team/app/referrers/x", elsewhere.addr);
    let cases: [(Act, &str); 3] = [
        (page(1, Some("?again")), "more than 16 pages"),
        (page(1025, None), "more than 1024 artifacts"),
        (page(1, Some(&other)), "at another host"),
    ];
    for (act, words) in cases {
        let liar = Liar::start().await;
        liar.rule("referrers/", 99, act);
        let error = client().referrers(&liar.reference("1"), image).await.unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(liar.seen_of("referrers/").len() <= 16);
    }
    assert!(elsewhere.seen().is_empty());
    // A page that is none is no end.
    let liar = Liar::start().await;
    liar.rule("page=2", 9, Act::Answer(200, vec![], "<html>".to_owned()));
    liar.rule("referrers/", 1, page(1, Some("?page=2")));
    let error = client().referrers(&liar.reference("1"), image).await.unwrap_err();
    assert!(error.to_string().contains("no index"), "{error}");
    // The image comes all the same.
    let scratch = Scratch::new();
    let image = liar.serve(&scratch.layout("a", "one", 1000), "1");
    liar.rule("referrers/", 99, page(1, Some("?again")));
    assert_eq!(pulled(&liar, &scratch.store()).await.1.digest(), image);
}
