//! The real model on small files. The labels beside them are what Magika's own Python
//! package (1.0.3, model standard_v3_3) says of these files.

use std::env;
use std::fs;
use std::path::PathBuf;

use filetype::infer;
use wick_guest::testing::Graphs;
use wick_guest::{Result, Tensor};

const SAMPLES: &[(&str, &str, &str, f32)] = &[
    ("backup.sh", "shell", "text/x-shellscript", 0.998_114),
    ("blank.txt", "txt", "text/plain", 1.0),
    ("bundle.zip", "zip", "application/zip", 0.982_703),
    ("empty", "empty", "inode/x-empty", 1.0),
    ("noise.bin", "unknown", "application/octet-stream", 0.980_144),
    ("notes.md", "markdown", "text/markdown", 0.998_829),
    ("odd.bin", "unknown", "application/octet-stream", 1.0),
    ("pad.json", "json", "application/json", 0.777_896),
    ("page.html", "html", "text/html", 0.816_447),
    ("readings.csv", "csv", "text/csv", 0.999_987),
    ("readings.csv.gz", "gzip", "application/gzip", 0.999_988),
    ("ring.rs", "rust", "application/x-rust", 0.999_997),
    ("short.txt", "txt", "text/plain", 1.0),
    ("station.json", "json", "application/json", 0.929_741),
    ("sun.jpg", "jpeg", "image/jpeg", 0.999_998),
    ("sun.png", "png", "image/png", 0.999_987),
    ("thermostat.py", "python", "text/x-python", 0.999_324),
    ("tone.wav", "wav", "audio/x-wav", 0.999_328),
];

fn models() -> PathBuf {
    if let Some(folder) = env::var_os("WICK_MODELS") {
        return folder.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    cache.expect("a home folder").join("wick/models")
}

#[test]
fn every_sample_gets_the_label_that_magika_gives_it() -> Result<()> {
    let model = models().join("magika/model.onnx");
    assert!(model.is_file(), "{} is missing: run `cargo xtask setup`", model.display());
    let _graphs = Graphs::new().real("magika", model)?.install();
    for &(name, label, mime, score) in SAMPLES {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name);
        let file = fs::read(&path)?;
        let response = infer(Tensor::new(&[file.len() as u64], &file)?)?;
        assert_eq!(response.get("label")?.to_strings()?, [label], "{name}");
        assert_eq!(response.get("mime")?.to_strings()?, [mime], "{name}");
        let got = response.get("score")?.to_vec::<f32>()?[0];
        assert!((got - score).abs() < 0.002, "{name}: score {got} instead of {score}");
    }
    Ok(())
}
