//! The commands with a real registry, Debian's `docker-registry`: run by `cargo xtask registry`.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use wick_package::{Digest, oci};
use wick_testing::onnx;

use crate::support::{Sandbox, str, text};

/// Longest wait for the registry to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// `ann` with the password `secret`, as htpasswd writes it.
const HTPASSWD: &str = "ann:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// The same for Docker's file.
const DOCKER_AUTH: &str = "YW5uOnNlY3JldA==";

/// A running registry.
pub struct Real {
    pub addr: SocketAddr,
    child: Child,
}

// === impl Real ===

impl Real {
    /// Start it with its data in the sandbox.
    pub fn start(sandbox: &Sandbox, auth: bool) -> Self {
        let executable = std::env::var_os("WICK_TEST_REGISTRY");
        let executable = executable.expect("run these by `cargo xtask registry`");
        let dir = sandbox.path("registry");
        fs::create_dir_all(&dir).unwrap();
        let root = dir.display();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
             http: {{addr: '{addr}', secret: tests}}\n"
        );
        if auth {
            fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: tests, path: {root}/htpasswd}}}}\n");
        }
        fs::write(dir.join("config.yml"), config).unwrap();
        let mut command = Command::new(executable);
        command.arg("serve").arg(dir.join("config.yml")).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { addr, child }
    }

    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.addr)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
#[ignore = "needs docker-registry; cargo xtask registry"]
fn a_package_is_pushed_pulled_listed_copied_run_and_removed() {
    let sandbox = Sandbox::new();
    let real = Real::start(&sandbox, false);
    let package = sandbox.package("plus-one");
    let (image, copy) = (real.image("team/plus-one:1"), real.image("edge/plus-one:1"));
    let pushed = sandbox.json(&["push", str(&package), &image, "--plain-http"]);
    let packed = sandbox.json(&["pack", str(&package), "-o", "image.tar", "--name", &image]);
    assert_eq!(pushed["digest"], packed["digest"]);
    let tar = sandbox.json(&["push", "image.tar", &real.image("team/plus-one:2"), "--plain-http"]);
    assert_eq!(tar["digest"], packed["digest"]);
    let tags = sandbox.json(&["list", &image, "--plain-http"]);
    assert_eq!(tags["tags"], json!(["1", "2"]));

    let seen = sandbox.json(&["inspect", &image, "--plain-http"]);
    assert_eq!(seen["name"], "plus-one");
    assert_eq!(seen["image"]["platforms"], json!(["linux/amd64", "linux/arm64"]));
    assert!(seen["files"][0]["digest"].as_str().unwrap().starts_with("sha256:"), "{seen}");
    assert!(sandbox.json(&["images"])["images"].as_array().unwrap().is_empty());

    let copied = sandbox.json(&["copy", &image, &copy, "--plain-http"]);
    assert_eq!(copied["digest"], pushed["digest"]);

    // It pulls what is missing, and then needs no registry.
    let server = sandbox.serve(&[&copy, "--plain-http"]);
    let answer = sandbox.json(&["infer", server.url(), "-i", "[1, 2, 3, 4]"]);
    assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0, 4.0, 5.0]));
    let images = sandbox.json(&["images"]);
    assert_eq!(images["images"][0]["names"], json!([copy]));
    // What runs is not collected, whatever its age and size.
    sandbox.json(&["gc", "--max-size", "0B", "--unused", "0s", "--grace", "0s"]);
    let again = sandbox.json(&["infer", server.url(), "-i", "[5, 2, 3, 4]"]);
    assert_eq!(again["outputs"][0]["data"][0], json!(6.0));
    drop(server);
    drop(real);
    let server = sandbox.serve(&[&copy]);
    drop(server);
    assert_eq!(sandbox.json(&["images", "--check"])["faults"], json!([]));
    let human = text(&sandbox.run(&["images"]));
    assert!(human.contains(&copy) && human.contains("REFERRERS"), "{human}");
    let removed = sandbox.json(&["rm", &copy]);
    assert_eq!(removed["images"], json!([copy]));
    assert!(removed["bytes"].as_u64().unwrap() > 0);
    assert_eq!(sandbox.run(&["run", &copy, "--pull", "never"]).status.code(), Some(66));
}

#[test]
#[ignore = "needs docker-registry; cargo xtask registry"]
fn dockers_file_has_the_password() {
    let sandbox = Sandbox::new();
    let real = Real::start(&sandbox, true);
    let package = sandbox.package("plus-one");
    let image = real.image("team/plus-one:1");
    let push = ["push", str(&package), &image, "--plain-http"];
    let output = sandbox.run(&push);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("docker login"), "{}", text(&output));
    let docker = sandbox.path("home/.docker");
    fs::create_dir_all(&docker).unwrap();
    let auths = json!({ "auths": { real.addr.to_string(): { "auth": DOCKER_AUTH } } });
    fs::write(docker.join("config.json"), auths.to_string()).unwrap();
    sandbox.json(&push);
    fs::write(docker.join("config.json"), "{ broken").unwrap();
    let output = sandbox.run(&push);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("config.json"), "{}", text(&output));
    let user = format!("{}=ann", real.addr);
    for (user, want) in [(user.as_str(), 0), ("other.example=ann", 2)] {
        let mut given = sandbox.wick(&[&push[..], &["--registry-user", user]].concat());
        let output = given.env("WICK_REGISTRY_PASSWORD", "secret").output().unwrap();
        assert_eq!(output.status.code(), Some(want), "{}", text(&output));
    }
}

#[test]
#[ignore = "needs docker-registry; cargo xtask registry"]
fn a_full_disk_is_told_and_what_came_is_used_by_the_next_pull() {
    let sandbox = Sandbox::new();
    let real = Real::start(&sandbox, false);
    let image = pushed_with_weights(&sandbox, &real, 3 << 20);
    // No file may be longer than 1 MiB, as on a disk with so much room.
    let command = format!(
        "trap '' XFSZ; ulimit -f 2048; exec {} pull {image} --plain-http --output json",
        env!("CARGO_BIN_EXE_wick")
    );
    let mut limited = Command::new("sh");
    limited.args(["-c", &command]).current_dir(sandbox.path(".")).env("HOME", sandbox.path("home"));
    let output = limited.env_remove("XDG_DATA_HOME").env_remove("WICK_STORE").output().unwrap();
    assert_eq!(output.status.code(), Some(73), "{}", text(&output));
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], "disk-full", "{error}");
    assert_eq!(sandbox.json(&["images", "--check"])["faults"], json!([]));
    let pulled = sandbox.json(&["pull", &image, "--plain-http"]);
    // All but the chunk that found no room.
    assert!(pulled["kept"].as_u64().unwrap() >= 1 << 19, "{pulled}");
}

#[test]
#[ignore = "needs docker-registry; cargo xtask registry"]
fn kills_at_any_instant_leave_a_store_that_is_whole() {
    let sandbox = Sandbox::new();
    let real = Real::start(&sandbox, false);
    let one = pushed_with_weights(&sandbox, &real, 2 << 20);
    let two = pushed_with_weights(&sandbox, &real, 5 << 20);
    sandbox.json(&["pull", &one, "--plain-http"]);
    let collect = ["gc", "--grace", "0s"];
    let pull = ["pull", &two, "--plain-http"];
    let start = |args: &[&str]| {
        sandbox.wick(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for round in 0..30_u64 {
        let (mut pulls, mut collects) = (start(&pull), start(&collect));
        // Spread over the whole length of both.
        std::thread::sleep(Duration::from_millis(3 * round));
        for child in [&mut pulls, &mut collects] {
            drop(child.kill());
            drop(child.wait());
        }
        let check = sandbox.json(&["images", "--check"]);
        assert_eq!(check["faults"], json!([]), "after {round} kills");
        let images = sandbox.json(&["images"]);
        let images = images["images"].as_array().unwrap();
        assert!(images.iter().any(|image| image["names"] == json!([one])), "after {round} kills");
        if images.len() == 2 {
            sandbox.json(&["rm", &two]);
        }
    }
    sandbox.json(&pull);
    assert_eq!(sandbox.json(&["images", "--check"])["faults"], json!([]));
}

/// Push a package whose weights have this length; the image's name.
fn pushed_with_weights(sandbox: &Sandbox, real: &Real, len: usize) -> String {
    let name = format!("weights-{len}");
    let mut model = onnx::add_scalar(1.0, &[-1, 4]);
    // Nothing loads it.
    let filler: Vec<u8> =
        (0..len as u64).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    model.extend(filler);
    let package = sandbox.package_of(&name, &model, "");
    let image = real.image(&format!("team/{name}:1"));
    sandbox.json(&["push", str(&package), &image, "--plain-http"]);
    image
}

#[test]
#[ignore = "needs docker-registry; cargo xtask registry"]
fn a_signature_travels_with_its_image_and_a_policy_asks_for_it() {
    let sandbox = Sandbox::new();
    let real = Real::start(&sandbox, false);
    let package = sandbox.package("plus-one");
    let (image, copy) = (real.image("team/plus-one:1"), real.image("edge/plus-one:1"));
    sandbox.json(&["push", str(&package), &image, "--plain-http"]);
    sandbox.json(&["key", "generate", "release", "--no-passphrase"]);
    let policy = format!(
        "default = \"deny\"\n[[key]]\nname = \"release\"\nfile = \"release.pub\"\n\
         [[rule]]\nimages = [\"{}\"]\nkeys = [\"release\"]\n",
        real.image("*")
    );
    fs::write(sandbox.path("policy.toml"), &policy).unwrap();
    let code = |args: &[&str]| {
        let output = sandbox.run(&[args, &["--plain-http", "--policy", "policy.toml"]].concat());
        assert!(!text(&output).contains("panicked"), "{}", text(&output));
        output.status.code()
    };
    let run = ["run", &image, "--check-config", "--store", "unsigned"];
    assert_eq!(code(&run), Some(77));

    let signed = sandbox.json(&["sign", &image, "--key", "release.key", "--plain-http"]);
    assert_eq!(signed["to"], real.image("team/plus-one"));
    // Another machine pulls the signature with the image.
    assert_eq!(code(&["verify", &image, "--store", "signed"]), Some(0));
    assert_eq!(code(&["run", &image, "--check-config", "--store", "signed"]), Some(0));

    // A copy takes the signature along, and it is for another name.
    sandbox.json(&["copy", &image, &copy, "--plain-http"]);
    assert_eq!(code(&["verify", &copy, "--store", "copied"]), Some(77));
    let mirrored = format!("{policy}signed_as = [\"{}\"]\n", real.image("team/*"));
    fs::write(sandbox.path("policy.toml"), mirrored).unwrap();
    assert_eq!(code(&["verify", &copy, "--store", "copied"]), Some(0));
}

#[test]
#[ignore = "needs docker-registry; cargo xtask registry"]
fn who_has_signed_at_a_registry_is_shown_and_the_envelope_is_had_from_there() {
    let sandbox = Sandbox::new();
    let real = Real::start(&sandbox, false);
    let image = real.image("team/plus-one:1");
    sandbox.json(&["push", str(&sandbox.package("plus-one")), &image, "--plain-http"]);
    sandbox.json(&["key", "generate", "release", "--no-passphrase"]);
    let inspect = ["inspect", &image, "--plain-http", "--key", "release.pub"];
    assert_eq!(sandbox.json(&inspect)["signatures"], json!([]));
    assert!(text(&sandbox.run(&inspect)).contains("Signatures\nnone"));
    sandbox.json(&["sign", &image, "--key", "release.key", "--plain-http"]);

    // The store, which has the image from signing, has the signature as well.
    let verify = ["verify", &image, "--key", "release.pub"];
    let verified = sandbox.json(&[&verify[..], &["--pull", "never"]].concat());
    let seen = sandbox.json(&[&inspect[..], &["--remote", "--store", "empty"]].concat());
    let signature = &seen["signatures"][0];
    assert_eq!(seen["signatures"].as_array().unwrap().len(), 1, "{seen}");
    assert_eq!(signature["name"], real.image("team/plus-one"));
    assert_eq!(signature["created"], verified["signed_at"]);
    assert_eq!((&signature["by"], &signature["verified"]), (&json!("release.pub"), &json!(true)));
    let empty = sandbox.json(&["images", "--store", "empty"]);
    assert_eq!(empty["images"], json!([]), "no layer was pulled");

    // Another machine makes the envelope, and a third needs nothing else beside the image.
    let out = ["--out", "envelope.json", "--plain-http", "--store", "other"];
    sandbox.json(&[&verify[..], &out].concat());
    let pack = ["pack", "plus-one", "-o", "image.tar", "--name", &image];
    assert_eq!(sandbox.json(&pack)["digest"], seen["digest"]);
    let offline = ["verify", "image.tar", "--key", "release.pub"];
    assert_eq!(sandbox.run(&offline).status.code(), Some(77));
    sandbox.json(&[&offline[..], &["--envelope", "envelope.json"]].concat());
    sandbox.json(&[&verify[..], &["--node", "--plain-http", "--store", "other"]].concat());
    sandbox.json(&offline);
}

/// The files that the real cosign has made, and what it has signed.
fn fixtures() -> std::path::PathBuf {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../../runtime/package/tests/signature/fixtures")
}

/// A layout of all fixtures whose image is one of them.
fn layout(sandbox: &Sandbox, name: &str, top: &str) -> String {
    let out = sandbox.path(name);
    fs::create_dir_all(out.join("blobs/sha256")).unwrap();
    for entry in fs::read_dir(fixtures()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let blob = out.join("blobs/sha256").join(Digest::of(&bytes).hex());
        fs::write(blob, bytes).unwrap();
    }
    let kind = if top.contains("index") { oci::INDEX } else { oci::MANIFEST };
    let top = oci::Descriptor::of(kind, &fs::read(fixtures().join(top)).unwrap());
    let index = json!({"schemaVersion": 2, "manifests": [top]});
    fs::write(out.join("index.json"), index.to_string()).unwrap();
    fs::write(out.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    str(&out).to_owned()
}

#[test]
#[ignore = "needs docker-registry; cargo xtask registry"]
fn what_cosign_2_has_signed_at_a_registry_runs_under_a_policy() {
    let sandbox = Sandbox::new();
    let real = Real::start(&sandbox, false);
    let (image, copy) = (real.image("vision/plus-one:1"), real.image("edge/plus-one:1"));
    let pushed =
        sandbox.json(&["push", &layout(&sandbox, "image", "index.json"), &image, "--plain-http"]);
    let digest = pushed["digest"].as_str().unwrap();
    let keys = fixtures();
    let policy = |keys_of_rule: &str| {
        let text = format!(
            "default = \"deny\"\n[[key]]\nname = \"ops\"\nfile = \"{0}/p256.pub\"\n\
             [[key]]\nname = \"edge\"\nfile = \"{0}/ed25519.pub\"\n\
             [[rule]]\nimages = [\"*\"]\nkeys = [{keys_of_rule}]\nmin = 2\n\
             signed_as = [\"127.0.0.1:5055/vision/*\"]\n",
            keys.display()
        );
        fs::write(sandbox.path("policy.toml"), text).unwrap();
    };
    policy("\"ops\", \"edge\"");
    let under = ["--policy", "policy.toml", "--plain-http"];
    let code = |args: &[&str]| sandbox.run(&[args, &under].concat()).status.code();
    assert_eq!(code(&["verify", &image, "--store", "before"]), Some(77));

    let tag = format!("{}.sig", digest.replace(':', "-"));
    let signatures = layout(&sandbox, "signatures", "sig-tag.json");
    let under_tag = real.image(&format!("vision/plus-one:{tag}"));
    sandbox.json(&["push", &signatures, &under_tag, "--plain-http"]);
    let pulled = sandbox.json(&["pull", &image, "--plain-http"]);
    assert_eq!(pulled["referrers"], 1);
    let verified = sandbox.json(&["verify", &image, "--policy", "policy.toml"]);
    assert_eq!(verified["by"], json!(["ops", "edge"]));
    assert_eq!(code(&["run", &image, "--check-config"]), Some(0));
    sandbox.json(&["copy", &image, &copy, "--plain-http"]);
    assert_eq!(code(&["run", &copy, "--check-config", "--store", "copied"]), Some(0));
    // What has been judged unsigned before is asked for again.
    assert_eq!(code(&["verify", &image, "--store", "before"]), Some(77));
    assert_eq!(code(&["verify", &image, "--store", "before", "--pull", "always"]), Some(0));

    // From the registry and from the store it looks the same.
    for more in [&["--remote"][..], &[]] {
        let inspect = [&["inspect", &image], &under[..], more].concat();
        let seen = sandbox.json(&inspect);
        let by: Vec<_> =
            seen["signatures"].as_array().unwrap().iter().map(|it| it["by"].clone()).collect();
        assert_eq!(by, [json!("ops"), json!("edge")], "{seen}");
        let first = &seen["signatures"][0];
        assert_eq!(first["form"], "simple-signing");
        assert_eq!(first["name"], "127.0.0.1:5055/vision/plus-one");
        assert_eq!(first["created"], json!(null), "this form has no place for it");
    }
    // And the envelope has it for a node.
    sandbox.json(&[&["verify", &image], &under[..], &["--out", "envelope.json"]].concat());
    let envelope = fs::read_to_string(sandbox.path("envelope.json")).unwrap();
    assert!(envelope.contains("\"cosign\""), "{envelope}");
}

#[test]
#[ignore = "needs docker-registry; cargo xtask registry"]
fn a_node_gets_signatures_with_a_pull_and_a_bundle_pulls_what_is_missing() {
    let sandbox = Sandbox::new();
    let real = Real::start(&sandbox, false);
    let package = sandbox.package("plus-one");
    let image = real.image("team/plus-one:1");
    sandbox.json(&["push", str(&package), &image, "--plain-http"]);
    sandbox.json(&["key", "generate", "release", "--no-passphrase"]);
    let pull = ["pull", &image, "--plain-http", "--node"];
    let pulled = sandbox.json(&pull);
    assert_eq!((&pulled["node"]["unsigned"], &pulled["moved"].is_u64()), (&json!([image]), &true));
    let human = sandbox.run(&pull);
    assert_eq!(human.status.code(), Some(0), "{}", text(&human));
    assert!(text(&human).contains("has no signatures"), "{}", text(&human));
    assert!(!sandbox.path("signatures").exists());

    sandbox.json(&["sign", &image, "--key", "release.key", "--plain-http"]);
    let pulled = sandbox.json(&pull);
    assert_eq!(pulled["node"]["signatures"], 1, "{pulled}");
    assert_eq!(fs::read_dir(sandbox.path("signatures/by-package")).unwrap().count(), 1);
    let elsewhere = sandbox.json(&[&pull[..], &["--signatures", "elsewhere"]].concat());
    assert_eq!(elsewhere["node"]["store"], "elsewhere");
    assert!(sandbox.path("elsewhere/by-package").is_dir());

    // A store that has nothing, and then an image whose signature came later.
    let bundle = ["bundle", &image, "-o", "site.tar", "--plain-http", "--store", "fresh"];
    let made = sandbox.json(&bundle);
    assert_eq!(
        (&made["images"][0]["name"], &made["images"][0]["signatures"]),
        (&json!(image), &json!(1))
    );
    sandbox.json(&["key", "generate", "second", "--no-passphrase"]);
    sandbox.json(&["sign", &image, "--key", "second.key", "--plain-http"]);
    assert_eq!(sandbox.json(&bundle)["digest"], made["digest"]);
    let newer = sandbox.json(&[&bundle[..], &["--pull", "always"]].concat());
    assert_eq!(newer["images"][0]["signatures"], 2);
    drop(real);
    sandbox.json(&["load", "site.tar", "--store", "site"]);
    let verify = ["verify", &image, "--key", "second.pub", "--pull", "never", "--store", "site"];
    assert_eq!(sandbox.json(&verify)["by"], json!(["second.pub"]));
}
