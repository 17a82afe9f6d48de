//! Wheels of ONNX Runtime and of its providers: fetching, checking and unpacking them.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};
use wick_nn::providers::{Provider, Wheel};
use wick_package::Digest;
use zip::ZipArchive;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};

/// The wheel is asked for by this Python's version on every machine, whichever Python is
/// there: the library in it is the same for all, and so one digest is enough.
const PYTHON_VERSION: &str = "3.11";

/// Implementation and ABI tags of ONNX Runtime's own wheels.
const PYTHON: [&str; 2] = ["cp", "cp311"];

/// Most bytes that one library may unpack to. The largest builds, with CUDA, stay below.
const MAX_LIBRARY: u64 = 4 << 30;

/// Bytes copied at once.
const CHUNK: usize = 256 << 10;

/// Wheels of ONNX Runtime that are known.
const PINS: [Pin; 2] = [
    Pin {
        package: "onnxruntime",
        python: PYTHON,
        version: "1.32.0",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
    },
    Pin {
        package: "onnxruntime",
        python: PYTHON,
        version: "1.32.0",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
    },
];

/// A wheel whose content is known.
#[derive(Debug, Clone, Copy)]
pub struct Pin {
    package: &'static str,
    /// Implementation and ABI tags.
    python: [&'static str; 2],
    version: &'static str,
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
}

// === impl Pin ===

impl Pin {
    pub fn digest(&self) -> Outcome<Digest> {
        let text = format!("sha256:{}", self.sha256);
        text.parse().map_err(|error| anyhow::Error::new(error).into())
    }
}

/// The wheel of a provider for an architecture.
///
/// # Errors
/// It has none.
pub fn of_provider(provider: &'static Provider, version: &str, arch: &str) -> Outcome<Pin> {
    let found = provider.wheels.iter().find(|wheel| wheel.arch == arch);
    let Some(wheel) = found.filter(|_| version == provider.version) else {
        let text = format!("no digest is known for {} {version} for {arch}", provider.name);
        let known: Vec<_> = provider.wheels.iter().map(|wheel| wheel.arch).collect();
        let (version, known) = (provider.version, known.join(" and "));
        return Err(Failure::usage(text).help(format!(
            "known is {version} for {known}; another is given as a wheel with --from"
        )));
    };
    let Wheel { arch, platform, python, sha256 } = *wheel;
    let (package, version) = (provider.package, provider.version);
    Ok(Pin { package, python, version, arch, platform, sha256 })
}

/// The wheel of a version of ONNX Runtime for an architecture.
///
/// # Errors
/// It is not known.
pub fn pin(version: &str, arch: &str) -> Outcome<&'static Pin> {
    let found = PINS.iter().find(|pin| pin.version == version && pin.arch == arch);
    found.ok_or_else(|| {
        let known: Vec<_> = PINS.iter().map(|p| format!("{} for {}", p.version, p.arch)).collect();
        let text = format!("no digest is known for onnxruntime {version} for {arch}");
        Failure::usage(text).help(format!(
            "known are {}; for another, fetch the wheel yourself and give it with --from",
            known.join(", ")
        ))
    })
}

/// Fetch a wheel into a folder.
///
/// # Errors
/// There is no pip, or it fails.
pub fn download(pin: &Pin, folder: &Path, format: Format) -> Outcome<PathBuf> {
    let spinner = output::progress(format, None, "{spinner} downloading {msg} ({elapsed})");
    spinner.set_message(format!("{} {} for {}", pin.package, pin.version, pin.platform));
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    let done = pip(pin, folder);
    spinner.finish_and_clear();
    let done = done.map_err(|error| {
        no_pip("cannot start python3").caused_by(Some(&error as &(dyn std::error::Error + 'static)))
    })?;
    if !done.status.success() {
        let errors = String::from_utf8_lossy(&done.stderr);
        if errors.contains("No module named pip") {
            return Err(no_pip("python3 has no pip"));
        }
        let last = errors.lines().rev().find(|line| !line.trim().is_empty());
        let last = io::Error::other(last.unwrap_or("it said nothing").trim().to_owned());
        return Err(Failure::new(
            Exit::Unavailable,
            "pip",
            format!("pip could not download {}", pin.package),
        )
        .caused_by(Some(&last))
        .help("check the network and pip's index, or give a wheel with --from"));
    }
    let entries = fs::read_dir(folder).context("cannot read what pip downloaded")?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let wheel = paths.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    Ok(wheel.context("pip downloaded no wheel")?)
}

/// Compare a wheel with its pin.
///
/// # Errors
/// It is another file.
pub fn check(wheel: &Path, pin: &Pin) -> Outcome {
    let (got, want) = (digest(wheel)?, pin.digest()?);
    if got == want {
        return Ok(());
    }
    let name = wheel.file_name().unwrap_or_default().display();
    Err(Failure::new(Exit::BadData, "wrong-digest", format!("{name} is {got} and must be {want}"))
        .help("pip's index serves another file than PyPI: check where it points"))
}

/// The SHA-256 of a file.
///
/// # Errors
/// It can't be read.
pub fn digest(path: &Path) -> Outcome<Digest> {
    let context = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer).with_context(context)? {
            0 => return Ok(Digest::from_hasher(hasher)),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Take the files whose names `keep` wants out of a wheel.
///
/// # Errors
/// It is no wheel, is damaged, or the disk is full.
pub fn unpack(wheel: &Path, folder: &Path, keep: &dyn Fn(&str) -> bool, format: Format) -> Outcome {
    let file = File::open(wheel).with_context(|| format!("cannot read {}", wheel.display()))?;
    let bad = |error: zip::result::ZipError| {
        let text = format!("{} is not a wheel that can be read", wheel.display());
        Failure::new(Exit::BadData, "bad-wheel", text).caused_by(Some(&error))
    };
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(bad)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(bad)?;
        let path = entry.name().map_err(bad)?.to_string();
        // Only the last part of a name is used, so no entry can leave the folder.
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if name.is_empty() || !keep(&name) {
            continue;
        }
        let bar = output::progress(
            format,
            Some(entry.size()),
            "unpacking {msg} [{bar:24}] {bytes}/{total_bytes}",
        );
        bar.set_message(name.clone());
        let mut out = File::create(folder.join(&name))
            .with_context(|| format!("cannot write {name} into {}", folder.display()))?;
        copy(&mut entry, &mut out, &bar).with_context(|| format!("cannot unpack {name}"))?;
        bar.finish_and_clear();
    }
    Ok(())
}

/// Whether a file's name is that of a library of ONNX Runtime.
pub fn is_library(name: &str) -> bool {
    name.starts_with("libonnxruntime") && name.contains(".so")
}

fn pip(pin: &Pin, folder: &Path) -> io::Result<std::process::Output> {
    Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"])
        .args(["--disable-pip-version-check", "--quiet", "--platform", pin.platform])
        .args(["--python-version", PYTHON_VERSION])
        .args(["--implementation", pin.python[0], "--abi", pin.python[1]])
        .arg("--dest")
        .arg(folder)
        .arg(format!("{}=={}", pin.package, pin.version))
        .stdin(Stdio::null())
        .output()
}

fn no_pip(what: &str) -> Failure {
    Failure::new(Exit::Unavailable, "no-pip", format!("{what}, which fetches the wheel")).help(
        "install Python 3 with pip (Debian: apt install python3-pip), or fetch the wheel \
         elsewhere and give it with --from",
    )
}

fn copy(from: &mut impl Read, to: &mut File, bar: &ProgressBar) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return to.sync_all();
        }
        total += count as u64;
        if total > MAX_LIBRARY {
            return Err(io::Error::other(format!("it is larger than {MAX_LIBRARY} bytes")));
        }
        to.write_all(&buffer[..count])?;
        bar.inc(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    fn wheel(entries: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = ZipWriter::new(file.reopen().unwrap());
        for (name, content) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    #[test]
    fn only_libraries_are_unpacked_and_only_into_the_folder() {
        let library = vec![7; 300_000];
        let wheel = wheel(&[
            ("onnxruntime/capi/libonnxruntime.so.1.2.3", &library),
            ("../../libonnxruntime_evil.so", b"inside"),
            ("onnxruntime/__init__.py", b""),
        ]);
        let folder = tempfile::tempdir().unwrap();
        unpack(wheel.path(), folder.path(), &is_library, Format::Json).unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["libonnxruntime.so.1.2.3", "libonnxruntime_evil.so"]);
        assert_eq!(fs::read(folder.path().join("libonnxruntime.so.1.2.3")).unwrap(), library);
    }

    #[test]
    fn a_wheel_with_another_digest_is_refused() {
        let wheel = wheel(&[("a", b"b")]);
        let failure = check(wheel.path(), pin("1.32.0", "x86_64").unwrap()).unwrap_err();
        assert_eq!(failure.exit(), Exit::BadData);
    }

    #[test]
    fn garbage_is_not_a_wheel() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "PK garbage").unwrap();
        let folder = tempfile::tempdir().unwrap();
        assert!(unpack(file.path(), folder.path(), &is_library, Format::Json).is_err());
    }

    #[test]
    fn every_pin_is_a_digest() {
        for pin in PINS {
            pin.digest().unwrap();
        }
        assert!(pin("0.0.1", "x86_64").is_err());
        assert!(pin("1.32.0", "riscv64").is_err());
    }
}
