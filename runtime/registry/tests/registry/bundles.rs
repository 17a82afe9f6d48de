//! Bundles: images of a store in one file, and from there into another store.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use wick_package::oci::{self, Descriptor};
use wick_package::{Digest, Layout, Reason as _, Reference};
use wick_registry::{Artifact, Bundle, BundleError, Incoming, LoadError, Loaded, Store};

use crate::support::{Meter, Scratch, assert_whole, weights, weights_layer};

const WEIGHTS: usize = 100_000;
const POLICY: &str = "default = \"deny\"\n";

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A store with two images of the same weights, one of which has something that refers to it.
fn filled(scratch: &Scratch, weights: usize) -> Store {
    let store = scratch.store();
    let one = scratch.layout("a", "one", weights);
    let image = store.import_layout(&one, &name("r.example/team/a:1")).unwrap();
    let two = scratch.layout("b", "two", weights);
    store.import_layout(&two, &name("r.example/team/b:2")).unwrap();
    let artifact = Artifact {
        artifact_type: "application/x-test".to_owned(),
        annotations: [("dev.wick.test".to_owned(), "x".to_owned())].into(),
        layers: vec![("text/plain".to_owned(), Default::default(), b"signed".to_vec())],
    };
    store.attach_artifact(&store.lease().unwrap(), &image, &artifact).unwrap();
    store
}

fn images(store: &Store, names: &[&str]) -> Vec<(Reference, Descriptor)> {
    let find = |text: &&str| (name(text), store.find(text).unwrap().descriptor);
    names.iter().map(find).collect()
}

/// Write a bundle of these images; its file.
fn bundled(scratch: &Scratch, store: &Store, names: &[&str], policy: Option<&str>) -> PathBuf {
    let out = scratch.path("site.tar");
    let bundle = Bundle::plan(store, &images(store, names), policy.map(str::to_owned)).unwrap();
    bundle.write(&out, &()).unwrap();
    out
}

const BOTH: [&str; 2] = ["r.example/team/a:1", "r.example/team/b:2"];

fn other(scratch: &Scratch) -> Store {
    Store::open(scratch.path("other")).unwrap()
}

fn load(file: &Path, store: &Store) -> Result<Loaded, LoadError> {
    Incoming::open(file)?.load(store, &())
}

/// Nothing came of it, and a good file can still be loaded.
fn assert_nothing_named(store: &Store) {
    assert!(store.images().unwrap().is_empty());
    assert_eq!(store.check(&()).unwrap().faults, []);
}

#[test]
fn images_names_and_what_refers_to_them_arrive() {
    let scratch = Scratch::new();
    let store = filled(&scratch, WEIGHTS);
    let out = bundled(&scratch, &store, &BOTH, Some(POLICY));
    let incoming = Incoming::open(&out).unwrap();
    assert_eq!(incoming.policy(), Some(POLICY));
    let seen: Vec<_> =
        incoming.images().iter().map(|it| (it.name.as_str(), it.referrers)).collect();
    assert_eq!(seen, [(BOTH[0], 1), (BOTH[1], 0)]);
    assert!(incoming.images().iter().all(|it| it.size > WEIGHTS as u64 && it.absent.is_empty()));

    let there = other(&scratch);
    let meter = Meter::default();
    let first = incoming.load(&there, &meter).unwrap();
    assert!(first.moved > WEIGHTS as u64 && first.moved < 2 * WEIGHTS as u64, "weights once");
    assert_eq!((first.kept, meter.moved.load(Ordering::Relaxed)), (0, first.moved));
    for text in BOTH {
        let (here, there) = (store.find(text).unwrap(), there.find(text).unwrap());
        assert_eq!(here.digest(), there.digest());
        assert_eq!(here.referrers.len(), there.referrers.len());
    }
    let (package, _lease) = there.open_package(&there.find(BOTH[0]).unwrap().descriptor).unwrap();
    package.verify().unwrap();
    assert_whole(&there);

    let again = load(&out, &there).unwrap();
    assert!(again.kept > WEIGHTS as u64 && again.moved < 20_000, "{again:?}");
    assert_eq!(there.images().unwrap().len(), 2);
    assert_eq!(there.find(BOTH[0]).unwrap().referrers.len(), 1);
    assert_whole(&there);
}

#[test]
fn the_same_images_give_the_same_bytes_in_any_order_and_from_any_store() {
    let scratch = Scratch::new();
    let store = filled(&scratch, WEIGHTS);
    let first = fs::read(bundled(&scratch, &store, &BOTH, Some(POLICY))).unwrap();
    let there = other(&scratch);
    load(&scratch.path("site.tar"), &there).unwrap();
    let turned = [BOTH[1], BOTH[0], BOTH[1]];
    for store in [store, there] {
        let again = fs::read(bundled(&scratch, &store, &turned, Some(POLICY))).unwrap();
        assert!(again == first, "{} and {} bytes", again.len(), first.len());
    }
}

#[test]
fn the_layout_is_as_containerd_reads_it_and_has_each_blob_once() {
    let scratch = Scratch::new();
    let store = filled(&scratch, WEIGHTS);
    let mut all = images(&store, &BOTH);
    let pinned = format!("r.example/team/a@{}", all[0].1.digest);
    all.push((name(&pinned), all[0].1.clone()));
    let out = scratch.path("site.tar");
    let bundle = Bundle::plan(&store, &all, Some(POLICY.to_owned())).unwrap();
    let digest = bundle.write(&out, &()).unwrap();
    let layout = Layout::open(&out).unwrap();
    assert_eq!(layout.digest().unwrap(), digest);
    let index = layout.index().unwrap();
    let names = |key: &str| {
        let of = |entry: &Descriptor| entry.annotations.get(key).cloned();
        index.manifests.iter().map(of).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    let whole = names("io.containerd.image.name");
    assert_eq!(whole, [some(BOTH[0]), some(&pinned), some(BOTH[1]), None]);
    let tags = names("org.opencontainers.image.ref.name");
    assert_eq!(tags, [some("1"), None, some("2"), None]);
    // An artifact without a name: no image becomes of it.
    let artifact = index.manifests.last().unwrap();
    assert_eq!(artifact.artifact_type.as_deref(), Some("application/x-test"));
    let bytes = fs::read(&out).unwrap();
    let weights = weights(WEIGHTS);
    let count = bytes.windows(weights.len()).filter(|window| *window == weights).count();
    assert_eq!(count, 1, "what images share is there once");
    assert!(bytes.len() as u64 > bundle.size());
}

#[test]
fn a_file_that_is_cut_anywhere_leaves_nothing() {
    let scratch = Scratch::new();
    let store = filled(&scratch, 5000);
    let whole = fs::read(bundled(&scratch, &store, &BOTH, None)).unwrap();
    let (cut, there) = (scratch.path("cut.tar"), other(&scratch));
    for len in (0..whole.len() - 1024).step_by(1777).chain([whole.len() - 1024, whole.len() - 513])
    {
        fs::write(&cut, &whole[..len]).unwrap();
        let error = load(&cut, &there).unwrap_err();
        assert!(matches!(error, LoadError::Open(_)), "{len}: {error}");
        assert_nothing_named(&there);
    }
    load(&scratch.path("site.tar"), &there).unwrap();
    assert_whole(&there);
}

#[test]
fn a_changed_byte_of_a_blob_is_found_and_the_blob_is_named() {
    let scratch = Scratch::new();
    let store = filled(&scratch, WEIGHTS);
    let out = bundled(&scratch, &store, &BOTH, None);
    let mut bytes = fs::read(&out).unwrap();
    let content = weights(WEIGHTS);
    let at = bytes.windows(WEIGHTS).position(|window| window == content).unwrap();
    bytes[at + WEIGHTS / 2] ^= 1;
    fs::write(&out, &bytes).unwrap();
    let there = other(&scratch);
    let error = load(&out, &there).unwrap_err();
    assert_eq!(error.code(), "damaged-layout");
    let blob = weights_layer(&scratch.path("a")).0.to_string();
    assert!(error.to_string().contains(&blob), "{error}");
    assert_nothing_named(&there);
    bytes[at + WEIGHTS / 2] ^= 1;
    fs::write(&out, &bytes).unwrap();
    load(&out, &there).unwrap();
    assert_whole(&there);
}

#[test]
fn whatever_byte_changes_nothing_half_gets_a_name() {
    let scratch = Scratch::new();
    let store = filled(&scratch, 2000);
    let whole = fs::read(bundled(&scratch, &store, &BOTH, Some(POLICY))).unwrap();
    let file = scratch.path("changed.tar");
    let digests: BTreeSet<Digest> =
        store.images().unwrap().iter().map(wick_registry::StoredImage::digest).collect();
    for (round, at) in (0..whole.len()).step_by(401).enumerate() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (round % 8);
        fs::write(&file, &bytes).unwrap();
        let there = Store::open(scratch.path(&format!("there-{round}"))).unwrap();
        match load(&file, &there) {
            Err(_) => assert_nothing_named(&there),
            Ok(_) => {
                assert_whole(&there);
                let all = there.images().unwrap();
                assert!(all.iter().all(|it| digests.contains(&it.digest())), "byte {at}");
            }
        }
    }
}

/// Write a layout folder with this `index.json` beside the blobs of a store.
fn with_index(scratch: &Scratch, store: &Store, index: &serde_json::Value) -> PathBuf {
    let root = scratch.path("made");
    fs::create_dir_all(&root).unwrap();
    if !root.join("blobs").exists() {
        std::os::unix::fs::symlink(store.root().join("blobs"), root.join("blobs")).unwrap();
    }
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(root.join("index.json"), index.to_string()).unwrap();
    root
}

#[test]
fn an_index_that_names_what_is_not_there_or_nothing_is_refused() {
    let scratch = Scratch::new();
    let store = filled(&scratch, 1000);
    let image = store.find(BOTH[0]).unwrap().descriptor;
    let entry = |digest: Digest, name: Option<&str>| {
        let mut entry = serde_json::to_value(&image).unwrap();
        entry["digest"] = digest.to_string().into();
        if let Some(name) = name {
            entry["annotations"][oci::IMAGE_NAME] = name.into();
        }
        entry
    };
    let gone = Digest::of(b"gone");
    let other_pin = format!("r.example/a@{gone}");
    let cases = [
        (vec![entry(gone, Some(BOTH[0]))], None, "damaged-layout", gone.to_string()),
        (vec![entry(image.digest, None)], None, "unsuitable-image", "has no name".to_owned()),
        (vec![entry(image.digest, Some("Not A Name"))], None, "unsuitable-image", String::new()),
        (vec![entry(image.digest, Some(&other_pin))], None, "unsuitable-image", String::new()),
        (vec![], None, "unsuitable-layout", "holds no image".to_owned()),
        (
            vec![entry(image.digest, Some(BOTH[0]))],
            Some(gone),
            "damaged-layout",
            "policy".to_owned(),
        ),
    ];
    let there = other(&scratch);
    for (manifests, policy, code, words) in cases {
        let mut index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
        if let Some(policy) = policy {
            index["annotations"] = serde_json::json!({ "dev.wick.policy": policy });
        }
        let error = load(&with_index(&scratch, &store, &index), &there).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error}: {source:?}");
        assert_eq!(error.code(), code, "{text}");
        assert!(text.contains(&words), "{text}");
        assert_nothing_named(&there);
    }
    // A blob of the image that is gone.
    let index = serde_json::json!({
        "schemaVersion": 2, "manifests": [entry(image.digest, Some(BOTH[0]))],
    });
    let made = with_index(&scratch, &store, &index);
    let weights = weights_layer(&scratch.path("a")).0;
    fs::remove_file(store.blob_path(weights)).unwrap();
    let error = load(&made, &there).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains(&weights.to_string()), "{source}");
    assert_nothing_named(&there);
}

#[test]
fn a_load_goes_on_where_a_killed_one_stopped() {
    let scratch = Scratch::new();
    let store = filled(&scratch, WEIGHTS);
    let out = bundled(&scratch, &store, &BOTH, None);
    let (weights, size) = weights_layer(&scratch.path("a"));
    let bytes = fs::read(store.blob_path(weights)).unwrap();
    let there = other(&scratch);
    let partial = there.root().join("ingest").join(weights.hex());
    fs::write(&partial, &bytes[..60_000]).unwrap();
    let loaded = load(&out, &there).unwrap();
    assert_eq!(loaded.kept, 60_000);
    assert_whole(&there);
    // What is left may be damaged: then it begins anew.
    there.remove(BOTH[0], false).unwrap();
    there.remove(BOTH[1], false).unwrap();
    assert!(!there.blob_path(weights).exists());
    let mut wrong = bytes[..60_000].to_vec();
    wrong[7] ^= 1;
    fs::write(&partial, &wrong).unwrap();
    let loaded = load(&out, &there).unwrap();
    assert!(loaded.moved > size && loaded.kept == 0, "{loaded:?}");
    assert_whole(&there);
}

#[test]
fn loads_at_once_all_end_well() {
    let scratch = Scratch::new();
    let store = filled(&scratch, WEIGHTS);
    let out = bundled(&scratch, &store, &BOTH, None);
    std::thread::scope(|scope| {
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(|| load(&out, &other(&scratch)))).collect();
        for done in loads {
            done.join().unwrap().unwrap();
        }
    });
    let there = other(&scratch);
    assert_eq!(there.images().unwrap().len(), 2);
    assert_whole(&there);
}

#[test]
fn a_damaged_store_gives_no_bundle() {
    let scratch = Scratch::new();
    let store = filled(&scratch, WEIGHTS);
    let weights = store.blob_path(weights_layer(&scratch.path("a")).0);
    let mut bytes = fs::read(&weights).unwrap();
    bytes[50_000] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    let out = scratch.path("site.tar");
    let bundle = Bundle::plan(&store, &images(&store, &BOTH), None).unwrap();
    let error = bundle.write(&out, &()).unwrap_err();
    assert!(matches!(error, BundleError::Write(_)), "{error}");
    assert_eq!(error.code(), "damaged-store");
    assert!(!out.exists());
    fs::remove_file(&weights).unwrap();
    let error = Bundle::plan(&store, &images(&store, &BOTH), None).unwrap_err();
    assert_eq!(error.code(), "damaged-store");
}

#[test]
fn what_a_bundle_needs_is_not_collected_while_it_is_written() {
    let scratch = Scratch::new();
    let store = filled(&scratch, WEIGHTS);
    let bundle = Bundle::plan(&store, &images(&store, &BOTH), None).unwrap();
    for text in BOTH {
        scratch.store().remove(text, false).unwrap();
    }
    bundle.write(&scratch.path("site.tar"), &()).unwrap();
    load(&scratch.path("site.tar"), &other(&scratch)).unwrap();
    assert_whole(&other(&scratch));
}
