//! The example `batch`: a folder of files in, a line for each of them out.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::{Sandbox, str, text};

/// One byte more than the example's `MAX_SIZE`.
const TOO_LARGE: u64 = (64 << 30) + 1;

fn examples() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"))
}

/// The example's folder, with the files that `cargo xtask setup` puts into it.
fn example() -> PathBuf {
    let dir = examples().join("batch");
    let complete = ["handler.wasm", "model.onnx"].iter().all(|file| dir.join(file).exists());
    assert!(complete, "batch is not complete: run `cargo xtask setup`");
    dir
}

/// Folders `data`, with these samples of the example `filetype`, and `out`.
fn folders(sandbox: &Sandbox, samples: &[(&str, &str)]) {
    for &(sample, name) in samples {
        let to = sandbox.path("data").join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(examples().join("filetype/tests/samples").join(sample), to).unwrap();
    }
    fs::create_dir_all(sandbox.path("data")).unwrap();
    fs::create_dir_all(sandbox.path("out")).unwrap();
}

fn run(sandbox: &Sandbox, package: &Path, mounts: &[&str]) -> Output {
    let mut args = vec!["run", str(package)];
    let grants: Vec<_> = mounts.iter().map(|name| format!("{name}={name}")).collect();
    for grant in &grants {
        args.extend(["--grant-mount", grant]);
    }
    sandbox.run(&args)
}

/// File and label of each line, or file and the error behind an `!`.
fn labels(lines: &[u8]) -> Vec<(String, String)> {
    let lines = String::from_utf8(lines.to_vec()).unwrap();
    let label = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let score = line["score"].as_f64().unwrap_or(1.0);
        assert!((0.5..=1.0).contains(&score), "{line}");
        match line.get("error") {
            Some(_) => (text("file"), format!("!{}", text("error"))),
            None => (text("file"), text("label")),
        }
    };
    lines.lines().map(label).collect()
}

fn expected(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels.iter().map(|&(file, label)| (file.to_owned(), label.to_owned())).collect()
}

/// As a folder and as the image that a pod gets.
#[test]
fn a_batch_labels_the_files_of_a_folder() {
    let sandbox = Sandbox::new();
    folders(
        &sandbox,
        &[
            ("thermostat.py", "src/heat"),
            ("sun.png", "sun.bin"),
            ("bundle.zip", "src/old/bundle"),
            ("empty", "empty"),
        ],
    );
    symlink("src/heat", sandbox.path("data/again")).unwrap();
    let wanted = expected(&[
        ("empty", "empty"),
        ("src/heat", "python"),
        ("src/old/bundle", "zip"),
        ("sun.bin", "png"),
    ]);
    sandbox.json(&["pack", str(&example()), "-o", "batch.tar"]);
    for package in [example(), sandbox.path("batch.tar")] {
        let output = run(&sandbox, &package, &["data", "out"]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(labels(&output.stdout), wanted, "{said}");
        assert!(
            said.contains("done: 4 files, 0 of them with errors; 1 links or special"),
            "{said}"
        );
        assert_eq!(fs::read(sandbox.path("out/results.jsonl")).unwrap(), output.stdout);
        assert_eq!(fs::read_dir(sandbox.path("out")).unwrap().count(), 1, "a file is left over");
        fs::remove_file(sandbox.path("out/results.jsonl")).unwrap();
    }
}

#[test]
fn a_file_that_fails_is_a_line_and_an_exit_code() {
    let sandbox = Sandbox::new();
    folders(&sandbox, &[("thermostat.py", "a.py"), ("bundle.zip", "z.zip")]);
    // Sparse: it has a size and no blocks.
    fs::File::create(sandbox.path("data/disk.img")).unwrap().set_len(TOO_LARGE).unwrap();
    // No user can read it through `wasi:filesystem`, root neither; the others are not hidden.
    fs::write(sandbox.path("data").join(OsStr::from_bytes(b"caf\xe9.txt")), "latin").unwrap();
    let output = run(&sandbox, &example(), &["data", "out"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let wanted = expected(&[
        (".", "!a name in this folder is not UTF-8"),
        ("a.py", "python"),
        ("disk.img", "!it has 68719476737 bytes, and 68719476736 is the limit"),
        ("z.zip", "zip"),
    ]);
    assert_eq!(labels(&output.stdout), wanted);
    assert_eq!(fs::read(sandbox.path("out/results.jsonl")).unwrap(), output.stdout);
}

#[test]
fn what_a_batch_is_not_granted_it_says() {
    let sandbox = Sandbox::new();
    folders(&sandbox, &[]);
    for (mounts, code, says) in [
        (&["data", "out"][..], 0, "no files below /data, nothing to do"),
        (&["data"], 0, "no folder /out for a file"),
        (&["out"], 1, "there is no folder /data: grant it with --grant-mount data=DIR"),
    ] {
        let output = run(&sandbox, &example(), mounts);
        assert_eq!(output.status.code(), Some(code), "{mounts:?}: {}", text(&output));
        assert!(text(&output).contains(says), "{mounts:?}: {}", text(&output));
        assert!(output.stdout.is_empty(), "{mounts:?}: {}", text(&output));
    }
}

/// A worker knows a volume by the last part of its path; see docs/worker.md.
#[test]
fn the_manifest_of_the_job_mounts_what_the_package_wants() {
    let package = Sandbox::new().json(&["inspect", str(&example())]);
    let job = fs::read_to_string(example().join("job.yaml")).unwrap();
    let mounts = package["wants"]["mounts"].as_array().unwrap();
    assert_eq!(mounts.len(), 2);
    for mount in mounts {
        let line = format!("mountPath: /mnt/{}\n", mount["name"].as_str().unwrap());
        assert!(job.contains(&line), "job.yaml has no {line}");
    }
}
