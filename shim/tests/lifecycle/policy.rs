//! A policy in force: what is signed runs, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim::protos::api::CreateTaskRequest;
use containerd_shim::protos::types::mount::Mount;
use serde_json::{Value, json};
use wick_package::Digest;
use wick_package::signature::{Envelope, NodeStore, PrivateKey, Signature, Subject};

use crate::cases::{self, group};
use crate::runner::Case;
use crate::shim::{Containerd, Shim, until};
use crate::{spec, tools};

pub const ALL: &[Case] = &[
    ("under a policy an unsigned package is refused, and the message says what to do", unsigned),
    ("a policy is for packages, and no side-car is one", beside),
    ("an envelope in the pod's annotation lets its package run", annotated),
    ("an envelope in the node's store lets its package run, with a tag or a digest", stored),
    ("a signature by another key, for another digest or another name does not count", foreign),
    ("a good envelope lets no other files run", tampered),
    ("a mount over a signed file is refused", covered),
    ("a worker is told whether a signature was asked for", told),
    ("weights that are not in the image are not signed", unpacked),
    ("what was hashed is remembered until a file changes", remembered),
    ("a policy that can't be read or trusted lets nothing run", broken_policy),
    ("a rule that asks for nothing, and the default, let packages run", free),
];

const IMAGE: &str = "registry.example/vision/plus-one";
const MANIFEST: &str = "[package]\nname = \"plus-one\"\nversion = \"1.0.0\"\n\
    [[graph]]\nname = \"g\"\npath = \"weights/model.onnx\"\nbackend = \"tract\"\n";

/// The image's layers: the code, and the weights.
const LAYERS: [&[(&str, &str)]; 2] =
    [&[("wick.toml", MANIFEST)], &[("weights/model.onnx", "weights")]];

/// A name, what somebody does to the unpacked layers, and what is said of it.
type Change = (&'static str, fn(&Path), &'static str);

/// The node with a policy, and an image that was unpacked.
struct Node {
    containerd: Containerd,
}

fn key() -> PrivateKey {
    PrivateKey::from_seed(&[1; 32])
}

/// Index and manifest of the image, for every architecture.
fn documents() -> (Digest, Vec<Vec<u8>>) {
    let digest = |bytes: &[u8]| json!(Digest::of(bytes));
    let layer = |files: &[(&str, &str)]| {
        let listed: serde_json::Map<_, _> = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), digest(text.as_bytes())))
            .collect();
        json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 1,
            "digest": digest(files[0].0.as_bytes()),
            "annotations": {"dev.wick.files": Value::from(listed).to_string()},
        })
    };
    let layers: Vec<_> = LAYERS.iter().map(|files| layer(files)).collect();
    let manifest = json!({
        "schemaVersion": 2, "layers": layers,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 1,
            "digest": digest(b"config")},
    });
    let manifest = manifest.to_string().into_bytes();
    let platform = |architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": manifest.len(),
            "digest": digest(&manifest), "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let index = json!({"schemaVersion": 2, "manifests": [platform("amd64"), platform("arm64")]});
    let index = index.to_string().into_bytes();
    (Digest::of(&index), vec![index, manifest])
}

/// The image's envelope, with a signature that may be another's.
fn envelope(key: &PrivateKey, digest: Digest, image: &str) -> Envelope {
    let (index, documents) = documents();
    let subject = Subject {
        digest,
        image: image.parse().unwrap(),
        package: None,
        version: None,
        signed_at: None,
    };
    Envelope::new(index, documents, vec![Signature::sign(&subject, key)]).unwrap()
}

fn good() -> Envelope {
    envelope(&key(), documents().0, IMAGE)
}

impl Node {
    fn new() -> Self {
        let containerd = Containerd::new();
        let folder = containerd.folder.path();
        let policy = "default = \"deny\"\n[[key]]\nname = \"release\"\nfile = \"release.pub\"\n\
             [[rule]]\nimages = [\"localhost/*\"]\nunsigned = true\n\
             [[rule]]\nimages = [\"registry.example/*\"]\nkeys = [\"release\"]\n";
        fs::write(folder.join("policy.toml"), policy).unwrap();
        fs::write(folder.join("release.pub"), key().public().to_pem()).unwrap();
        for (at, files) in LAYERS.iter().enumerate() {
            for (name, text) in *files {
                let path = folder.join(format!("layer-{at}")).join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
        Self { containerd }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.containerd.folder.path().join(name)
    }

    fn store(&self) -> NodeStore {
        NodeStore::new(self.path("signatures"), 0)
    }

    /// The container's root: both layers.
    fn rootfs(&self) -> Mount {
        let lower =
            format!("{}:{}", self.path("layer-1").display(), self.path("layer-0").display());
        let options = vec![format!("lowerdir={lower}")];
        Mount { type_: "overlay".into(), source: "overlay".into(), options, ..Default::default() }
    }

    /// What the kubelet asks for.
    fn spec(&self, id: &str, image: &str, envelope: Option<&Envelope>) -> Value {
        let mut spec = spec::wasm(id, &["serve"]);
        spec["process"]["args"][0] = json!("/wick.toml");
        spec["annotations"]["io.kubernetes.cri.image-name"] = json!(image);
        if let Some(envelope) = envelope {
            spec["annotations"]["wick.dev/signature"] = json!(envelope.to_json());
        }
        spec
    }

    fn create(&self, shim: &Shim<'_>, id: &str) -> Result<u32, String> {
        let rootfs = vec![self.rootfs()];
        shim.create_with(CreateTaskRequest { id: id.into(), rootfs, ..Default::default() })
    }

    fn runs(&self, id: &str, spec: &Value) {
        let shim = self.containerd.start(id, spec);
        self.create(&shim, id).unwrap_or_else(|error| panic!("{error}"));
        shim.run(id).unwrap();
        shim.kill(id, 15).unwrap();
        assert_eq!(shim.wait(id), 0);
        shim.delete(id).unwrap();
        shim.shutdown();
    }

    /// Refused with each of these words, and nothing is left.
    fn refused(&self, id: &str, spec: &Value, words: &[&str]) {
        let shim = self.containerd.start(id, spec);
        let error = self.create(&shim, id).expect_err("the policy lets it run");
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(error.contains("the node's policy does not let this package run"), "{error}");
        assert!(error.contains("PERMISSION_DENIED"), "{error}");
        assert!(!group("memory", id).exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*self.containerd.bundle(id).to_string_lossy()), "{mounts}");
        shim.shutdown();
    }
}

fn unsigned() {
    let node = Node::new();
    let image = format!("{IMAGE}:1.0.0");
    let words = [&*image, "has no signature", "wants one by release", "wick sign"];
    node.refused("u", &node.spec("u", &image, None), &words);
    let words = ["no rule of", "docker.io/library/stranger", "[[rule]]"];
    node.refused("s", &node.spec("s", "stranger", Some(&good())), &words);
    let mut nameless = node.spec("n", IMAGE, Some(&good()));
    nameless["annotations"].as_object_mut().unwrap().remove("io.kubernetes.cri.image-name");
    node.refused("n", &nameless, &["does not say which image"]);
}

/// A side-car is no package.
fn beside() {
    if !tools::has("runc") {
        return;
    }
    let node = Node::new();
    let shim = node.containerd.start("o", &spec::ordinary("o", "exit 3"));
    shim.create("o").unwrap();
    shim.run("o").unwrap();
    assert_eq!(shim.wait("o"), 3);
    shim.delete("o").unwrap();
    shim.shutdown();
}

fn annotated() {
    let node = Node::new();
    node.runs("a", &node.spec("a", IMAGE, Some(&good())));
    let pinned = format!("{IMAGE}:1.0.0@{}", good().digest());
    node.runs("p", &node.spec("p", &pinned, Some(&good())));
    let log = node.containerd.log("a");
    assert!(log.contains("the policy lets it run") && log.contains("release"), "{log}");
    assert!(log.contains(" policy="), "a phase of its own: {log}");
    // For this container alone.
    let mut spec = node.spec("m", IMAGE, None);
    spec["annotations"]["wick.dev/signature.m"] = json!(good().to_json());
    node.runs("m", &spec);
    let mut spec = node.spec("b", IMAGE, None);
    spec["annotations"]["wick.dev/signature"] = json!("{}");
    node.refused("b", &spec, &["wick.dev/signature", "envelope"]);
}

fn stored() {
    let node = Node::new();
    node.store().put(good()).unwrap();
    node.runs("t", &node.spec("t", &format!("{IMAGE}:1.0.0"), None));
    node.runs("d", &node.spec("d", &format!("{IMAGE}@{}", good().digest()), None));
    // One in the annotation that is worth nothing hides none in the store.
    let other = envelope(&PrivateKey::from_seed(&[2; 32]), good().digest(), IMAGE);
    node.runs("b", &node.spec("b", IMAGE, Some(&other)));
    // Others could have written it.
    std::os::unix::fs::chown(node.path("signatures/sha256"), Some(1234), None).unwrap();
    node.refused("o", &node.spec("o", IMAGE, None), &["belongs to user 1234"]);
}

fn foreign() {
    let node = Node::new();
    let digest = good().digest();
    let by_another = envelope(&PrivateKey::from_seed(&[2; 32]), digest, IMAGE);
    node.refused(
        "k",
        &node.spec("k", IMAGE, Some(&by_another)),
        &["no key of the 1", "annotation"],
    );
    let for_another = envelope(&key(), Digest::of(b"another index"), IMAGE);
    node.refused(
        "d",
        &node.spec("d", IMAGE, Some(&for_another)),
        &["the signature is for sha256:"],
    );
    let renamed = envelope(&key(), digest, "registry.example/vision/ocr");
    node.refused("n", &node.spec("n", IMAGE, Some(&renamed)), &["registry.example/vision/ocr"]);
    let pinned = format!("{IMAGE}@{}", Digest::of(b"pinned"));
    node.refused("p", &node.spec("p", &pinned, Some(&good())), &["pins another digest"]);
}

fn tampered() {
    let changes: [Change; 5] = [
        (
            "c",
            |root| fs::write(root.join("layer-0/wick.toml"), format!("{MANIFEST}\n")).unwrap(),
            "`wick.toml` has digest",
        ),
        (
            "w",
            |root| fs::write(root.join("layer-1/weights/model.onnx"), "WEIGHTS").unwrap(),
            "`weights/model.onnx` has digest",
        ),
        (
            "m",
            |root| fs::write(root.join("layer-1/more.bin"), "more").unwrap(),
            "the image has `more.bin`, which was not signed",
        ),
        (
            "l",
            |root| std::os::unix::fs::symlink("/etc/passwd", root.join("layer-1/link")).unwrap(),
            "`link` is a link",
        ),
        (
            "g",
            |root| fs::remove_file(root.join("layer-1/weights/model.onnx")).unwrap(),
            "`weights/model.onnx` is missing",
        ),
    ];
    for (id, change, word) in changes {
        let node = Node::new();
        change(node.containerd.folder.path());
        let words = ["what runs is not what was signed", word];
        node.refused(id, &node.spec(id, IMAGE, Some(&good())), &words);
    }
    let node = Node::new();
    let mut spec = node.spec("e", IMAGE, Some(&good()));
    spec["process"]["args"][0] = json!("/other/wick.toml");
    node.refused("e", &spec, &["`/other/wick.toml` is none of the signed files"]);
}

fn covered() {
    let node = Node::new();
    for (id, place) in
        [("f", "/wick.toml"), ("d", "/weights"), ("r", "/x/../"), ("s", "/weights/./")]
    {
        let mut spec = node.spec(id, IMAGE, Some(&good()));
        spec["mounts"] = json!([{"destination": place, "type": "bind", "source": "/tmp",
            "options": ["rbind", "ro"]}]);
        node.refused(id, &spec, &["over the signed"]);
    }
    let mut spec = node.spec("b", IMAGE, Some(&good()));
    spec["mounts"] = json!([{"destination": "/mnt/data", "type": "bind", "source": "/tmp",
        "options": ["rbind", "ro"]}]);
    node.runs("b", &spec);
}

/// It reads a signed image where nothing can be mounted over it, and follows no links for mounts.
fn told() {
    let node = Node::new();
    for (id, image, sealed) in [("s", IMAGE, "true"), ("f", "localhost/x", "false")] {
        let file = node.path(&format!("told-{id}"));
        let mut spec = node.spec(id, image, Some(&good()));
        spec["process"]["args"] = json!(["/wick.toml", "tell", file]);
        let shim = node.containerd.start(id, &spec);
        node.create(&shim, id).unwrap();
        shim.run(id).unwrap();
        until("it has told", || !cases::told(&file, "env ").is_empty());
        assert_eq!(cases::told(&file, "sealed"), sealed);
        shim.delete(id).unwrap();
        shim.shutdown();
    }
}

/// The manifest names weights that a pod would have to mount.
fn unpacked() {
    let node = Node::new();
    fs::remove_dir_all(node.path("layer-1")).unwrap();
    fs::create_dir(node.path("layer-1")).unwrap();
    let (_, documents) = documents();
    let manifest: Value = serde_json::from_slice(&documents[1]).unwrap();
    let mut manifest = manifest;
    manifest["layers"].as_array_mut().unwrap().pop();
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::of(&manifest);
    let subject = Subject {
        digest,
        image: IMAGE.parse().unwrap(),
        package: None,
        version: None,
        signed_at: None,
    };
    let signature = Signature::sign(&subject, &key());
    let envelope = Envelope::new(digest, vec![manifest], vec![signature]).unwrap();
    let spec = node.spec("w", IMAGE, Some(&envelope));
    node.refused("w", &spec, &["wick.toml names `weights/model.onnx`, which is not in the image"]);
}

fn remembered() {
    let node = Node::new();
    fs::create_dir(node.path("cache")).unwrap();
    let spec = |id: &str| node.spec(id, IMAGE, Some(&good()));
    node.runs("a", &spec("a"));
    let checked = || fs::read_dir(node.path("cache/checked")).unwrap().flatten().count();
    assert_eq!(checked(), 1);
    node.runs("b", &spec("b"));
    assert_eq!(checked(), 1);
    // As long as before, and with the old times.
    let file = node.path("layer-1/weights/model.onnx");
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, "WEIGHTS").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(before).unwrap();
    node.refused("c", &spec("c"), &["`weights/model.onnx` has digest"]);
    fs::write(&file, "weights").unwrap();
    node.runs("d", &spec("d"));
}

fn broken_policy() {
    let node = Node::new();
    let spec = |id: &str| node.spec(id, "localhost/x", None);
    let policy = node.path("policy.toml");
    let good = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, good.replace("default", "defualt")).unwrap();
    node.refused("m", &spec("m"), &["did you mean `default`?"]);
    fs::write(&policy, &good).unwrap();
    std::os::unix::fs::chown(&policy, Some(1234), None).unwrap();
    node.refused("o", &spec("o"), &["belongs to user 1234"]);
    std::os::unix::fs::chown(&policy, Some(0), None).unwrap();
    std::os::unix::fs::chown(node.path("release.pub"), Some(1234), None).unwrap();
    node.refused("k", &spec("k"), &["`release.pub`", "belongs to user 1234"]);
    fs::remove_file(node.path("release.pub")).unwrap();
    node.refused("g", &spec("g"), &["the key `release.pub` can't be read"]);
    // The node's owner has named it, so it must be there.
    let shim = node.containerd.start("n", &spec("n"));
    fs::remove_file(&policy).unwrap();
    let error = node.create(&shim, "n").unwrap_err();
    assert!(error.contains("policy.toml can't be read"), "{error}");
    shim.shutdown();
}

fn free() {
    let node = Node::new();
    node.runs("l", &node.spec("l", "localhost/anything:1", None));
    let policy = node.path("policy.toml");
    let text = fs::read_to_string(&policy).unwrap().replace("\"deny\"", "\"allow\"");
    fs::write(&policy, text).unwrap();
    node.runs("d", &node.spec("d", "stranger", None));
    let words = ["has no signature"];
    node.refused("r", &node.spec("r", IMAGE, None), &words);
}
