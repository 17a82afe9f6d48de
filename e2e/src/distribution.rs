//! The image of `wick` itself, for its roles in a cluster. It is laid out as on a node: all of a
//! version lies in `/opt/wick/VERSION`, with the C library and the loader that it was linked
//! with beside it, so that nothing depends on a distribution. No shell, no package manager.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::image::Image;

/// Who runs it: nobody that a node knows. The chart names the same.
pub const USER: &str = "65532:65532";

/// For programs that ask who they are.
const PASSWD: &str = "root:x:0:0::/:/sbin/nologin\nwick:x:65532:65532::/:/sbin/nologin\n";

/// The authorities that the building machine trusts: the operator asks registries by HTTPS.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// All crates of the tree have one version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The image of an executable `wick`, under this reference.
pub fn image(wick: &Path, reference: &str) -> anyhow::Result<Image> {
    let folder = format!("/opt/wick/{VERSION}");
    let (program, libraries) = (format!("{folder}/wick"), format!("{folder}/lib"));
    let scratch = tempfile::tempdir().context("make a folder")?;
    let stripped = strip(wick, &scratch.path().join("wick"))?;
    let mut image = Image::new(reference).program(&program, &stripped)?;
    image = with_libraries(image, wick, None, &libraries)?;
    if let Ok(certificates) = fs::read(CERTIFICATES) {
        image = image.file(CERTIFICATES, certificates);
    }
    let image = image.link("/usr/local/bin/wick", &program).file("/etc/passwd", PASSWD);
    let image = image.env("PATH", "/usr/local/bin").label("org.opencontainers.image.title", "wick");
    let image = image.label("org.opencontainers.image.version", VERSION);
    Ok(image.user(USER).entrypoint(&[&program]))
}

/// An image of Debian's mosquitto, as `cargo xtask` unpacks it into a folder.
pub fn mosquitto(unpacked: &Path, reference: &str) -> anyhow::Result<Image> {
    let program = unpacked.join("usr/sbin/mosquitto");
    let beside = unpacked.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let image = Image::new(reference).program("/usr/sbin/mosquitto", &program)?;
    let image = with_libraries(image, &program, Some(&beside), "/opt/mosquitto/lib")?;
    Ok(image.env("PATH", "/usr/sbin").file("/etc/passwd", PASSWD).user(USER))
}

/// The image with what its program is linked with, of which some may lie in a folder of its own.
fn with_libraries(
    mut image: Image,
    program: &Path,
    beside: Option<&Path>,
    folder: &str,
) -> anyhow::Result<Image> {
    for library in linked(program, beside)? {
        let name = library.file_name().context("a library without a name")?.to_string_lossy();
        image = image.program(&format!("{folder}/{name}"), &library)?;
    }
    // The executable names its loader in /lib64 or /lib, and that looks for libraries in /lib.
    Ok(image.link("/lib", folder).link("/lib64", folder))
}

/// The executable without what only a debugger reads, which in a development build is most of it.
fn strip(wick: &Path, to: &Path) -> anyhow::Result<PathBuf> {
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(to).arg(wick);
    let output = strip.output().context("run strip (Debian: apt-get install binutils)")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "strip {}: {}", wick.display(), error.trim());
    Ok(to.to_owned())
}

/// The loader and the libraries of an executable, as this machine finds them.
fn linked(program: &Path, beside: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    if let Some(folder) = beside {
        ldd.env("LD_LIBRARY_PATH", folder);
    }
    let output = ldd.arg(program).output().context("run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let shown = program.display();
    ensure!(output.status.success(), "ldd {shown}: {text}");
    ensure!(!text.contains("not found"), "{shown} lacks libraries:\n{text}");
    let found = paths(&text);
    ensure!(!found.is_empty(), "ldd {shown} names no libraries:\n{text}");
    Ok(found)
}

/// The files in what `ldd` prints: `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the loader.
/// What the kernel provides has no path.
fn paths(text: &str) -> Vec<PathBuf> {
    let lines = text.lines().map(|line| line.split_once(" => ").map_or(line, |(_, path)| path));
    let words = lines.filter_map(|line| line.split_whitespace().next());
    words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd5f5f2000)\n\
                    \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f1)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f3)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libgcc_s.so.1",
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(paths(text), expected.map(PathBuf::from));
        assert!(paths("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn an_image_has_the_program_its_loader_and_its_user() -> anyhow::Result<()> {
        // Any dynamic executable will do.
        let program = std::env::current_exe()?;
        let built = image(&program, "localhost/wick:1")?.build()?;
        let config: serde_json::Value = serde_json::from_slice(&built.blobs[0])?;
        assert_eq!(config["config"]["User"], USER);
        let folder = format!("opt/wick/{VERSION}");
        assert_eq!(config["config"]["Entrypoint"][0], format!("/{folder}/wick"));
        let mut names = Vec::new();
        for entry in tar::Archive::new(built.blobs[1].as_slice()).entries()? {
            names.push(entry?.path()?.to_string_lossy().into_owned());
        }
        let has = |start: &str| names.iter().any(|name| name.starts_with(start));
        assert!(has(&format!("{folder}/wick")), "{names:?}");
        assert!(has(&format!("{folder}/lib/ld-linux")), "{names:?}");
        assert!(has(&format!("{folder}/lib/libc.so")), "{names:?}");
        Ok(())
    }
}
