//! `wick bundle` and `wick load`: from a store into a file, and from there onto a node that has no
//! registry.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use wick_testing::onnx;

use crate::support::{Sandbox, str, text};

const SIGNED: &str = "registry.example/vision/plus-one:1.2.3";
const UNSIGNED: &str = "registry.example/vision/times-two:1";
const RULES: &str = "# For the site.\ndefault = \"deny\"\n[[key]]\nname = \"release\"\n\
    file = \"release.pub\"\n[[rule]]\nimages = [\"registry.example/vision/*\"]\n\
    keys = [\"release\"]\n";

/// A store with a signed image and another, and a policy that wants a signature for both.
fn prepared() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.json(&["key", "generate", "release", "--no-passphrase"]);
    fs::write(sandbox.path("policy.toml"), RULES).unwrap();
    let package = sandbox.package("plus-one");
    sandbox.json(&["pack", str(&package), "-o", "signed.tar", "--name", SIGNED]);
    sandbox.json(&["sign", "signed.tar", "--key", "release.key"]);
    sandbox.json(&["load", "signed.tar"]);
    let other = sandbox.package_of("times-two", &onnx::add_scalar(2.0, &[-1, 4]), "");
    sandbox.json(&["pack", str(&other), "-o", "other.tar", "--name", UNSIGNED]);
    sandbox.json(&["load", "other.tar"]);
    sandbox
}

/// Run it, expect a failure with this exit and code, and read its JSON.
#[track_caller]
fn refused(sandbox: &Sandbox, args: &[&str], exit: i32, code: &str) -> Value {
    let output = sandbox.run(&[args, &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(exit), "{}", text(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["code"], code, "{json}");
    json
}

fn names(sandbox: &Sandbox, store: &str) -> Vec<String> {
    let images = sandbox.json(&["images", "--store", store]);
    let names = images["images"].as_array().unwrap().iter().map(|image| image["names"].clone());
    names.flat_map(|names| serde_json::from_value::<Vec<String>>(names).unwrap()).collect()
}

/// Files of a folder, hidden ones too.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_site_gets_image_signature_and_policy_and_runs_it_without_a_registry() {
    let sandbox = prepared();
    let bundle = ["bundle", SIGNED, "-o", "site.tar", "--policy", "policy.toml"];
    let made = sandbox.json(&bundle);
    assert_eq!(made["images"][0]["signatures"], 1, "{made}");
    let bytes = fs::read(sandbox.path("site.tar")).unwrap();
    sandbox.json(&bundle);
    assert!(fs::read(sandbox.path("site.tar")).unwrap() == bytes, "the same again");

    let load = [
        "load",
        "site.tar",
        "--store",
        "site",
        "--node",
        "--signatures",
        "node",
        "--install-policy=etc/wick/policy.toml",
    ];
    let loaded = sandbox.json(&load);
    assert_eq!(loaded["digest"], made["digest"]);
    assert_eq!(loaded["images"][0]["name"], SIGNED);
    assert_eq!(loaded["node"]["signatures"], 1);
    assert_eq!(loaded["policy"], json!({ "path": "etc/wick/policy.toml", "changed": true }));
    assert_eq!(names(&sandbox, "site"), [SIGNED]);
    assert_eq!(files(&sandbox.path("node/by-package")).len(), 1);
    // Whole in itself, and as the shim wants it.
    let policy = sandbox.path("etc/wick/policy.toml");
    let there = fs::read_to_string(&policy).unwrap();
    assert!(
        there.starts_with("# For the site.\n") && there.contains("BEGIN PUBLIC KEY"),
        "{there}"
    );
    let meta = fs::metadata(&policy).unwrap();
    let owner = fs::metadata(sandbox.path("site.tar")).unwrap().uid();
    assert_eq!((meta.permissions().mode() & 0o777, meta.uid()), (0o644, owner));
    fs::remove_file(sandbox.path("release.pub")).unwrap();
    let site = ["--policy", str(&policy), "--store", "site", "--signatures", "none"];
    let verified = sandbox.json(&[&["verify", SIGNED, "--pull", "never"], &site[..]].concat());
    assert_eq!(verified["by"], json!(["release"]));
    let server = sandbox.serve(&[&[SIGNED, "--pull", "never"], &site[..]].concat());
    let answer = sandbox.json(&["infer", server.url(), "-i", "[1, 2, 3, 4]"]);
    assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0, 4.0, 5.0]));

    // Twice is as good as once.
    let again = sandbox.json(&load);
    assert_eq!(again["policy"]["changed"], false);
    assert!(again["kept"].as_u64().unwrap() > 0, "{again}");
    assert_eq!(names(&sandbox, "site"), [SIGNED]);
}

#[test]
fn an_image_that_the_policy_would_not_let_run_is_not_bundled() {
    let sandbox = prepared();
    let bundle = ["bundle", SIGNED, UNSIGNED, "-o", "site.tar", "--policy", "policy.toml"];
    let json = refused(&sandbox, &bundle, 77, "unsigned");
    let said = json["error"].as_str().unwrap();
    assert!(
        said.contains(UNSIGNED) && said.contains("by release") && !said.contains(SIGNED),
        "{said}"
    );
    assert_eq!(json["refused"].as_array().unwrap().len(), 1, "{json}");
    assert!(!sandbox.path("site.tar").exists());
    refused(&sandbox, &[&bundle[..], &["--dry-run"]].concat(), 77, "unsigned");

    let made = sandbox.json(&[&bundle[..], &["--allow-refused"]].concat());
    assert_eq!(made["refused"][0]["name"], UNSIGNED);
    // The node is told which images have none.
    let loaded = sandbox.json(&["load", "site.tar", "--store", "site", "--node"]);
    assert_eq!(loaded["node"]["unsigned"], json!([UNSIGNED]));
    assert_eq!(loaded["has_policy"], true);
    // Without a policy nobody asks.
    sandbox.json(&["bundle", UNSIGNED, "-o", "site.tar"]);
    let human = text(&sandbox.run(&["load", "site.tar", "--store", "site", "--node"]));
    assert!(human.contains(&format!("{UNSIGNED} has no signatures")), "{human}");
    assert!(human.contains("ctr -n k8s.io images import site.tar"), "{human}");
    assert!(human.contains("k3s ctr images import site.tar"), "{human}");
}

#[test]
fn another_policy_is_not_replaced_unless_asked_and_none_is_made_up() {
    let sandbox = prepared();
    sandbox.json(&["bundle", SIGNED, "-o", "site.tar", "--policy", "policy.toml"]);
    fs::create_dir(sandbox.path("etc")).unwrap();
    let place = sandbox.path("etc/policy.toml");
    fs::write(&place, "default = \"allow\"\n").unwrap();
    let load = ["load", "site.tar", "--store", "site", "--install-policy=etc/policy.toml"];
    refused(&sandbox, &load, 73, "exists");
    assert_eq!(fs::read_to_string(&place).unwrap(), "default = \"allow\"\n");
    assert!(names(&sandbox, "site").is_empty(), "it is refused before anything is loaded");
    sandbox.json(&[&load[..], &["--replace"]].concat());
    assert!(fs::read_to_string(&place).unwrap().contains("BEGIN PUBLIC KEY"));
    assert_eq!(files(&sandbox.path("etc")), ["policy.toml"]);
    // A link stays one.
    fs::rename(&place, sandbox.path("real.toml")).unwrap();
    fs::write(sandbox.path("real.toml"), "default = \"allow\"\n").unwrap();
    std::os::unix::fs::symlink(sandbox.path("real.toml"), &place).unwrap();
    sandbox.json(&[&load[..], &["--replace"]].concat());
    assert!(fs::symlink_metadata(&place).unwrap().is_symlink());
    assert!(fs::read_to_string(sandbox.path("real.toml")).unwrap().contains("BEGIN PUBLIC KEY"));

    // Where others could write it decides nothing.
    fs::create_dir(sandbox.path("open")).unwrap();
    fs::set_permissions(sandbox.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let open = ["load", "site.tar", "--store", "site", "--install-policy=open/policy.toml"];
    refused(&sandbox, &open, 73, "untrusted-file");

    sandbox.json(&["bundle", SIGNED, "-o", "bare.tar"]);
    let load = ["load", "bare.tar", "--store", "bare", "--install-policy=etc/new.toml"];
    refused(&sandbox, &load, 65, "no-policy");
    assert!(names(&sandbox, "bare").is_empty() && !sandbox.path("etc/new.toml").exists());
    refused(&sandbox, &["load", "site.tar", "--replace"], 64, "usage");
}

#[test]
fn a_tar_of_one_image_is_loaded_with_the_envelope_beside_it() {
    let sandbox = prepared();
    let load = ["load", "signed.tar", "--store", "site", "--node", "--signatures", "node"];
    let loaded = sandbox.json(&load);
    assert_eq!((&loaded["beside"], &loaded["node"]["signatures"]), (&json!(1), &json!(1)));
    let images = sandbox.json(&["images", "--store", "site"]);
    assert_eq!(images["images"][0]["referrers"].as_array().unwrap().len(), 1);
    sandbox.json(&load);
    let images = sandbox.json(&["images", "--store", "site"]);
    assert_eq!(images["images"][0]["referrers"].as_array().unwrap().len(), 1, "{images}");
    // One for another image is passed over.
    let (signed, other) = ("signed.tar.envelope.json", "other.tar.envelope.json");
    fs::copy(sandbox.path(signed), sandbox.path(other)).unwrap();
    let loaded = sandbox.json(&["load", "other.tar", "--store", "site", "--node"]);
    assert_eq!(loaded["node"]["unsigned"], json!([UNSIGNED]));
}

#[test]
fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let sandbox = prepared();
    let away = "localhost:1/a/b:1";
    let bundle = ["bundle", SIGNED, away, "-o", "site.tar", "--policy", "policy.toml", "--dry-run"];
    let plan = sandbox.json(&bundle);
    assert_eq!((&plan["missing"], &plan["dry_run"]), (&json!([away]), &json!(true)));
    assert_eq!(plan["images"][0]["signatures"], 1);
    assert!(plan["images"][0]["size"].as_u64().unwrap() > 0);
    assert!(!sandbox.path("site.tar").exists());
    let human = text(&sandbox.run(&bundle));
    assert!(human.contains("(would be pulled)") && human.contains(SIGNED), "{human}");

    sandbox.json(&["bundle", SIGNED, "-o", "site.tar", "--policy", "policy.toml"]);
    let load = [
        "load",
        "site.tar",
        "--store",
        "site",
        "--node",
        "--signatures",
        "node",
        "--install-policy=etc/policy.toml",
        "--dry-run",
    ];
    let plan = sandbox.json(&load);
    assert_eq!(
        (&plan["images"][0]["name"], &plan["images"][0]["referrers"]),
        (&json!(SIGNED), &json!(1))
    );
    assert_eq!(plan["policy"]["changed"], true);
    for path in ["site", "node", "etc"] {
        assert!(!sandbox.path(path).exists(), "{path}");
    }
    let human = text(&sandbox.run(&load));
    assert!(human.contains("would put the policy into etc/policy.toml"), "{human}");
}

#[test]
fn what_is_named_by_a_digest_keeps_the_names_that_it_has() {
    let sandbox = prepared();
    let made = sandbox.json(&["bundle", SIGNED, "-o", "site.tar"]);
    let digest = made["images"][0]["digest"].as_str().unwrap();
    let short = &digest["sha256:".len()..][..12];
    let by_digest = sandbox.json(&["bundle", short, "-o", "other.tar"]);
    assert_eq!(by_digest["digest"], made["digest"]);
    // A pod that pins the digest asks for that name.
    let pinned = format!("registry.example/vision/plus-one@{digest}");
    let both = sandbox.json(&["bundle", SIGNED, &pinned, "-o", "both.tar"]);
    assert_eq!(both["images"].as_array().unwrap().len(), 2);
    assert_eq!(both["size"], made["size"], "the blobs are there once");
    sandbox.json(&["load", "both.tar", "--store", "site"]);
    let mut names = names(&sandbox, "site");
    names.sort();
    assert_eq!(names, [SIGNED.to_owned(), pinned]);
}

/// A tar's member of this kind and name, without content.
fn member(kind: u8, name: &str) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(b"00000000000");
    header[148..156].fill(b' ');
    header[156] = kind;
    header[157..168].copy_from_slice(b"/etc/passwd");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn a_file_that_somebody_has_tampered_with_is_refused_and_leaves_no_image() {
    let sandbox = prepared();
    sandbox.json(&["bundle", SIGNED, "-o", "site.tar", "--policy", "policy.toml"]);
    let whole = fs::read(sandbox.path("site.tar")).unwrap();
    let model = fs::read(sandbox.path("plus-one/model.onnx")).unwrap();
    let weights = whole.windows(model.len()).position(|window| window == model).unwrap();
    let mut flipped = whole.clone();
    flipped[weights + model.len() / 2] ^= 1;
    let with = |kind: u8, name: &str| [member(kind, name), whole.clone()].concat();
    let blob = format!("blobs/sha256/{}", "0".repeat(64));
    let cases = [
        (whole[..whole.len() / 2].to_vec(), "ends in the middle"),
        (flipped, "has other bytes"),
        (with(b'0', "../../outside"), "leads out of it"),
        (with(b'0', "/outside"), "leads out of it"),
        (with(b'2', &blob), "is a link"),
        (with(b'2', "index.json"), "is a link"),
        (b"no tar at all".repeat(200), "is not a package"),
    ];
    for (bytes, words) in cases {
        fs::write(sandbox.path("bad.tar"), bytes).unwrap();
        let place = "--install-policy=etc/policy.toml";
        let load = ["load", "bad.tar", "--store", "site", "--node", "--signatures", "node", place];
        let output = sandbox.run(&load);
        assert_eq!(output.status.code(), Some(65), "{words}: {}", text(&output));
        assert!(text(&output).contains(words), "{words}: {}", text(&output));
        assert!(names(&sandbox, "site").is_empty(), "{words}");
        assert!(!sandbox.path("node").exists() && !sandbox.path("etc").exists(), "{words}");
    }
    assert!(!sandbox.path("../outside").exists());
    sandbox.json(&["load", "site.tar", "--store", "site"]);
    assert_eq!(sandbox.json(&["images", "--check", "--store", "site"])["faults"], json!([]));
    refused(&sandbox, &["load", "none.tar"], 66, "not-found");
    refused(&sandbox, &["load", "plus-one"], 65, "not-a-package");
}

/// An image of the store with weights of this length.
fn heavy(sandbox: &Sandbox, len: usize) -> String {
    let mut model = onnx::add_scalar(1.0, &[-1, 4]);
    // Nothing loads it.
    model.extend((0..len as u64).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8));
    let package = sandbox.package_of("heavy", &model, "");
    let name = "registry.example/heavy:1".to_owned();
    sandbox.json(&["pack", str(&package), "-o", "heavy.tar", "--name", &name]);
    sandbox.json(&["load", "heavy.tar"]);
    name
}

#[test]
fn a_full_disk_is_told_and_leaves_no_half_file() {
    let sandbox = Sandbox::new();
    let name = heavy(&sandbox, 3 << 20);
    // No file may be longer than 1 MiB, as on a disk with so much room.
    let limited = |args: &str| {
        let wick = env!("CARGO_BIN_EXE_wick");
        let command = format!("trap '' XFSZ; ulimit -f 2048; exec {wick} {args} --output json");
        let mut limited = Command::new("sh");
        limited.args(["-c", &command]).current_dir(sandbox.path("."));
        limited.env("HOME", sandbox.path("home"));
        let output = limited.env_remove("XDG_DATA_HOME").env_remove("WICK_STORE").output().unwrap();
        assert_eq!(output.status.code(), Some(73), "{}", text(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let error = limited(&format!("bundle {name} -o site.tar"));
    assert_eq!(error["code"], "cannot-write", "{error}");
    assert!(files(&sandbox.path(".")).iter().all(|file| !file.contains("site.tar")));

    sandbox.json(&["bundle", &name, "-o", "site.tar"]);
    let error = limited("load site.tar --store site");
    assert_eq!(error["code"], "disk-full", "{error}");
    assert!(names(&sandbox, "site").is_empty());
    let loaded = sandbox.json(&["load", "site.tar", "--store", "site"]);
    assert!(loaded["kept"].as_u64().unwrap() >= 1 << 19, "what came is used: {loaded}");
    assert_eq!(names(&sandbox, "site"), [name]);
}

#[test]
fn kills_at_any_instant_leave_whole_files_and_a_whole_store() {
    let sandbox = Sandbox::new();
    let name = heavy(&sandbox, 8 << 20);
    let kill_after = |args: &[&str], time: u64| {
        let mut wick = sandbox.wick(args);
        let mut child = wick.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(time));
        drop(child.kill());
        drop(child.wait());
    };
    let bundle = ["bundle", name.as_str(), "-o", "site.tar"];
    let load = ["load", "site.tar", "--store", "site"];
    for round in 0..10 {
        kill_after(&bundle, 5 * round);
        if sandbox.path("site.tar").exists() {
            let plan = sandbox.json(&[&load[..], &["--dry-run"]].concat());
            assert_eq!(plan["images"][0]["name"], name, "it is whole");
            fs::remove_file(sandbox.path("site.tar")).unwrap();
        }
    }
    sandbox.json(&bundle);
    let left: Vec<_> =
        files(&sandbox.path(".")).into_iter().filter(|it| it.ends_with("partial")).collect();
    assert!(left.is_empty(), "what was killed is cleared away: {left:?}");
    for round in 0..10 {
        kill_after(&load, 5 * round);
        let check = sandbox.json(&["images", "--check", "--store", "site"]);
        assert_eq!(check["faults"], json!([]), "after {round} kills");
    }
    sandbox.json(&load);
    assert_eq!(names(&sandbox, "site"), [name]);
    assert_eq!(sandbox.json(&["images", "--check", "--store", "site"])["faults"], json!([]));
}

#[test]
fn what_is_wrong_with_a_bundle_is_said_before_anything_is_pulled() {
    let sandbox = prepared();
    fs::write(sandbox.path("mine.txt"), "mine").unwrap();
    fs::write(sandbox.path("bad.toml"), "default = \"perhaps\"\n").unwrap();
    let away = "localhost:1/a/b:1";
    let cases: &[(&[&str], i32, &str)] = &[
        (&["bundle", SIGNED], 64, "usage"),
        (&["bundle", SIGNED, "-o", "x.tar", "--allow-refused"], 64, "usage"),
        (&["bundle", away, "-o", "x.tar", "--policy", "bad.toml"], 65, "bad-policy"),
        (&["bundle", away, "-o", "x.tar", "--policy", "none.toml"], 66, "not-found"),
        (&["bundle", away, "-o", "x.tar", "--plain-http"], 69, "registry-unreachable"),
        (&["bundle", away, "-o", "x.tar", "--pull", "never"], 66, "not-found"),
        (&["bundle", "slip", "-o", "x.tar"], 66, "not-found"),
        (&["bundle", SIGNED, "-o", "mine.txt"], 73, "output-occupied"),
        (&["bundle", SIGNED, "-o", "none/x.tar"], 73, "cannot-write"),
    ];
    for (args, exit, code) in cases {
        refused(&sandbox, args, *exit, code);
    }
    assert!(!sandbox.path("x.tar").exists());
    assert_eq!(fs::read(sandbox.path("mine.txt")).unwrap(), b"mine");
}
