//! Garbage collection against pulls and uses that go on. What it decides is tested beside the code.

use std::fs::{self, File};
use std::time::Duration;

use wick_package::oci::{self, Descriptor};
use wick_registry::gc::Limits;
use wick_registry::{Artifact, Store};

use crate::liar::{Act, Liar};
use crate::support::{Scratch, assert_whole, client, quiet, weights_layer};

const ALL: Limits = Limits { unused: None, bytes: None, grace: Duration::ZERO };

fn blobs(store: &Store) -> usize {
    fs::read_dir(store.root().join("blobs/sha256")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_pull_that_goes_on_is_collected() {
    let (scratch, liar) = (Scratch::new(), Liar::start().await);
    let layout = scratch.layout("a", "one", 1_000_000);
    liar.serve(&layout, "1");
    let weights = weights_layer(&layout).0.to_string();
    liar.rule(weights, 1, Act::Slow(Duration::from_millis(40)));
    let (store, other) = (scratch.store(), scratch.store());
    let reference = liar.reference("1");
    let pull = tokio::spawn(async move { client().pull(&reference, &store, quiet()).await });
    let mut rounds = 0;
    while !pull.is_finished() {
        other.gc(&ALL, false).unwrap();
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pull.await.unwrap().unwrap();
    assert!(rounds > 20, "{rounds}");
    assert_whole(&other);
    assert_eq!(liar.seen_of("/blobs/").len(), 4, "nothing was fetched twice");
}

#[test]
fn what_a_dead_process_left_goes_and_its_lease_too() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let digest = store.put(b"orphan").unwrap();
    // The file of a lease, without its lock: its process is dead.
    fs::write(store.root().join("leases/lease-dead"), format!("{digest}\n")).unwrap();
    let partial = store.root().join("ingest").join("00ff");
    fs::write(&partial, b"some").unwrap();
    let young = Limits { grace: Duration::from_secs(3600), ..ALL };
    assert_eq!(store.gc(&young, false).unwrap().bytes, 0, "it may go on");
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    for path in [&store.blob_path(digest), &partial] {
        File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    let dry = store.gc(&young, true).unwrap();
    assert_eq!((dry.blobs, dry.partials, dry.bytes), (1, 1, 10));
    assert_eq!(store.gc(&young, false).unwrap(), dry);
    assert_eq!((blobs(&store), partial.exists()), (0, false));
    assert_eq!(fs::read_dir(store.root().join("leases")).unwrap().count(), 0);
}

#[test]
fn a_download_that_somebody_holds_is_not_removed() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let partial = store.root().join("ingest").join("00ff");
    fs::write(&partial, b"some").unwrap();
    let holder = File::options().write(true).open(&partial).unwrap();
    holder.lock().unwrap();
    std::thread::sleep(Duration::from_millis(10));
    store.gc(&ALL, false).unwrap();
    assert!(partial.exists());
    let packed = store.scratch().unwrap();
    std::thread::sleep(Duration::from_millis(10));
    store.gc(&ALL, false).unwrap();
    assert!(packed.path().is_dir());
    drop(holder);
    store.gc(&ALL, false).unwrap();
    assert!(!partial.exists());
}

#[test]
fn an_image_that_can_not_be_read_stays_and_the_rest_is_collected() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let name = |text: &str| text.parse().unwrap();
    let layout = scratch.layout("a", "one", 1000);
    let image = store.import_layout(&layout, &name("localhost/app:1")).unwrap();
    let whole = blobs(&store);
    // An index that says of its manifest that it is an index.
    let index: oci::Index = store.layout().unwrap().json(&image, "index").unwrap();
    let lie = Descriptor { media_type: oci::INDEX.to_owned(), ..index.manifests[0].clone() };
    let lying = serde_json::json!({
        "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [lie],
    });
    let lying = lying.to_string().into_bytes();
    let lease = store.lease().unwrap();
    store.put(&lying).unwrap();
    store.name(&lease, &Descriptor::of(oci::INDEX, &lying), &name("localhost/liar:1")).unwrap();
    // And one whose index is another file now.
    let other = store.import_layout(&scratch.layout("b", "two", 50), &name("localhost/rot:1"));
    let rotten = store.blob_path(other.unwrap().digest);
    fs::write(&rotten, "rot").unwrap();
    drop(lease);
    let orphan = store.put(b"orphan").unwrap();
    std::thread::sleep(Duration::from_millis(10));

    let swept = store.gc(&ALL, false).unwrap();
    let damaged: Vec<_> = swept.damaged.iter().map(|damaged| damaged.image.as_str()).collect();
    assert_eq!(damaged, ["localhost/liar:1", "localhost/rot:1"]);
    assert!(swept.damaged[0].why.contains("not the JSON"), "{:?}", swept.damaged);
    assert!(!store.blob_path(orphan).exists() && rotten.exists());
    // What the lying index leads to is all that is left of the image.
    store.remove("localhost/app:1", false).unwrap();
    store.gc(&ALL, false).unwrap();
    let gone = 1 + 2 * (index.manifests.len() - 1);
    assert_eq!(blobs(&store), whole - gone + 1 + 1);
    // And it can be removed.
    for name in ["localhost/liar:1", "localhost/rot:1"] {
        store.remove(name, false).unwrap();
    }
    assert_eq!(blobs(&store), 0);
}

#[test]
fn signatures_go_with_an_image_that_lost_its_last_name() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let name = |text: &str| text.parse().unwrap();
    let old = store.import_layout(&scratch.layout("a", "one", 10), &name("localhost/app:1"));
    let old = old.unwrap();
    let artifact = |text: &str| Artifact {
        artifact_type: "application/x-test".to_owned(),
        annotations: Default::default(),
        layers: vec![("text/plain".to_owned(), Default::default(), text.as_bytes().to_vec())],
    };
    let lease = store.lease().unwrap();
    store.attach_artifact(&lease, &old, &artifact("signed")).unwrap();
    let elsewhere = Descriptor::of("x", b"an image of containerd");
    store.attach_artifact(&lease, &elsewhere, &artifact("other")).unwrap();
    store.name(&lease, &old, &name("localhost/app:old")).unwrap();
    let new = scratch.layout("b", "two", 20);
    let new = store.import_layout(&new, &name("localhost/app:1")).unwrap();
    assert_eq!(store.referrers(old.digest).unwrap().len(), 1, "it has a name still");
    store.name(&lease, &new, &name("localhost/app:old")).unwrap();
    assert_eq!(store.referrers(old.digest).unwrap().len(), 0);
    assert_eq!(store.referrers(elsewhere.digest).unwrap().len(), 1);
    drop(lease);
    std::thread::sleep(Duration::from_millis(10));
    store.gc(&ALL, false).unwrap();
    store.remove("localhost/app:1", false).unwrap();
    store.remove("localhost/app:old", false).unwrap();
    // The manifest, the text, and the empty config of the other.
    assert_eq!(blobs(&store), 3);
    assert_whole(&store);
}

#[test]
fn signatures_live_and_die_with_their_image() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let layout = scratch.layout("a", "one", 1000);
    let reference = "localhost/app:1".parse().unwrap();
    let image = store.import_layout(&layout, &reference).unwrap();
    let artifact = Artifact {
        artifact_type: "application/x-test".to_owned(),
        annotations: Default::default(),
        layers: vec![("text/plain".to_owned(), Default::default(), b"signed".to_vec())],
    };
    let lease = store.lease().unwrap();
    store.attach_artifact(&lease, &image, &artifact).unwrap();
    let elsewhere = Descriptor::of("x", b"an image of containerd");
    store.attach_artifact(&lease, &elsewhere, &artifact).unwrap();
    drop(lease);
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(store.gc(&ALL, false).unwrap().blobs, 0);
    assert_eq!(store.find("localhost/app:1").unwrap().referrers.len(), 1);
    store.remove("localhost/app:1", false).unwrap();
    assert!(store.referrers(image.digest).unwrap().is_empty());
    store.gc(&ALL, false).unwrap();
    assert_eq!(store.referrers(elsewhere.digest).unwrap().len(), 1);
    // The manifest, the text, and the empty config of the other.
    assert_eq!(blobs(&store), 3);
    assert_whole(&store);
}
