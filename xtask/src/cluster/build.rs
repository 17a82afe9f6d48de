//! The binaries of a cluster, built once from Go modules and Debian packages into
//! `~/.cache/wick/cluster/bin`, a folder for each by name and version. A folder appears
//! whole or not at all, and one build runs at a time: two clusters that start together
//! build once.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

use super::{packages, pins};
use crate::house::House;
use crate::tools;

/// Digits of a digest of our own sources in a folder's name.
const DIGEST_DIGITS: usize = 12;

/// Snapshotters that nothing here uses, and whose C libraries a machine may lack.
const CONTAINERD_TAGS: &str = "no_btrfs,no_devmapper,no_zfs";

/// Module of containerd since its version 2.
const CONTAINERD_MODULE: &str = "github.com/containerd/containerd/v2";

/// Module of containerd before.
const CONTAINERD_1_MODULE: &str = "github.com/containerd/containerd";

/// The sources of a program in Go that uses other modules.
const GO_SOURCES: &[&str] = &["main.go", "go.mod", "go.sum"];

/// Programs in Go for images, each in a folder of its name, with their sources.
const GO_PROGRAMS: &[(&str, &[&str])] =
    &[("httpd", &["main.go", "go.mod"]), ("device-plugin", GO_SOURCES), ("dra-driver", GO_SOURCES)];

/// Where everything is. Folders, except for the images' programs.
pub struct Binaries {
    /// `kube`: etcd and Kubernetes.
    pub kube: PathBuf,
    /// `containerd`, `containerd-shim-runc-v2`, `ctr`.
    pub containerd: PathBuf,
    /// `runc`.
    pub runc: PathBuf,
    /// `coredns`.
    pub coredns: PathBuf,
    /// Debian's registry and network plugins, unpacked.
    pub debian: PathBuf,
    /// `pause`, `httpd`, `device-plugin` and `dra-driver`, for images.
    pub programs: PathBuf,
}

/// Builds into one folder of the cache.
struct Builder {
    /// The sources: the folder `e2e` of the tree.
    root: PathBuf,
    folder: PathBuf,
}

// === impl Binaries ===

impl Binaries {
    /// Build what the cache lacks. `containerd` is a version, such as `2.3.7`.
    pub fn ensure(house: &House, containerd: &str) -> anyhow::Result<Self> {
        let builder = Builder::new(house)?;
        packages::ensure_installed()?;
        Ok(Self {
            kube: builder.kube()?,
            containerd: builder.containerd(containerd)?,
            runc: builder.runc()?,
            coredns: builder.coredns()?,
            debian: builder.debian()?,
            programs: builder.programs()?,
        })
    }

    /// Network plugins.
    pub fn cni(&self) -> PathBuf {
        self.debian.join("usr/lib/cni")
    }

    pub fn registry(&self) -> PathBuf {
        self.debian.join("usr/bin/docker-registry")
    }

    /// Folders to search for programs, before those of PATH.
    pub fn path(&self) -> String {
        let path = env::var("PATH").unwrap_or_default();
        let (containerd, runc) = (self.containerd.display(), self.runc.display());
        format!("{containerd}:{runc}:{path}")
    }
}

// === impl Builder ===

impl Builder {
    fn new(house: &House) -> anyhow::Result<Self> {
        let folder = super::home(house).join("bin");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self { root: house.root.join("e2e"), folder })
    }

    fn kube(&self) -> anyhow::Result<PathBuf> {
        let source = self.root.join("cluster/kube");
        let digest = digest(&source, GO_SOURCES)?;
        let name = format!("kube-{}-{digest}", pins::KUBERNETES);
        self.make(&name, "etcd and Kubernetes, which takes minutes", |out| {
            let package = "k8s.io/component-base/version";
            let (major, minor) = major_minor(pins::KUBERNETES)?;
            let flags = format!(
                "-s -w -X {package}.gitVersion=v{} -X {package}.gitMajor={major} \
                 -X {package}.gitMinor={minor}",
                pins::KUBERNETES
            );
            let mut go = go("build", &flags);
            tools::run(go.arg("-o").arg(out.join("kube")).arg(".").current_dir(&source))
        })
    }

    fn containerd(&self, version: &str) -> anyhow::Result<PathBuf> {
        let (major, minor) = major_minor(version)?;
        self.make(&format!("containerd-{version}"), "containerd", |out| {
            let module = if major == 1 { CONTAINERD_1_MODULE } else { CONTAINERD_MODULE };
            let flags = format!("-s -w -X {module}/version.Version=v{version}");
            let commands = ["containerd", "containerd-shim-runc-v2", "ctr"];
            let packages = commands.map(|command| format!("{module}/cmd/{command}"));
            let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
            // These say what they must not be built with, which `go install` refuses to honour.
            if (major, minor) < (2, 2) {
                return dependency(out, &flags, (module, version), &packages);
            }
            let mut go = go("install", &flags);
            go.arg("-tags").arg(CONTAINERD_TAGS).env("GOBIN", out);
            tools::run(go.args(packages.iter().map(|package| format!("{package}@v{version}"))))
        })
    }

    fn runc(&self) -> anyhow::Result<PathBuf> {
        self.make(&format!("runc-{}", pins::RUNC), "runc", |out| {
            let module = "github.com/opencontainers/runc";
            let flags = format!("-s -w -X main.version={}", pins::RUNC);
            dependency(out, &flags, (module, pins::RUNC), &[module])
        })
    }

    fn coredns(&self) -> anyhow::Result<PathBuf> {
        self.make(&format!("coredns-{}", pins::COREDNS), "CoreDNS", |out| {
            let package = format!("github.com/coredns/coredns@v{}", pins::COREDNS);
            tools::run(go("install", "-s -w").env("GOBIN", out).arg(package))
        })
    }

    fn debian(&self) -> anyhow::Result<PathBuf> {
        self.make("debian", "the registry and the network plugins", |out| {
            packages::unpack(&pins::UNPACKED.map(|(name, _)| name), out)?;
            for (name, file) in pins::UNPACKED {
                ensure!(out.join(file).exists(), "Debian's {name} has no {file}");
            }
            Ok(())
        })
    }

    /// What the images of the harness and of its tests hold, linked statically.
    fn programs(&self) -> anyhow::Result<PathBuf> {
        let source = self.root.join("images");
        let mut files = vec!["pause/pause.c".to_owned()];
        for (name, sources) in GO_PROGRAMS {
            files.extend(sources.iter().map(|file| format!("{name}/{file}")));
        }
        let digest = digest(&source, &files)?;
        self.make(&format!("programs-{digest}"), "the images' programs", |out| {
            let mut gcc = Command::new("gcc");
            gcc.args(["-Os", "-static", "-s", "-o"]).arg(out.join("pause"));
            tools::run(gcc.arg(source.join("pause/pause.c")))?;
            GO_PROGRAMS.iter().try_for_each(|(name, _)| {
                let mut go = go("build", "-s -w");
                go.env("CGO_ENABLED", "0").current_dir(source.join(name));
                tools::run(go.arg("-o").arg(out.join(name)).arg("."))
            })
        })
    }

    /// The folder of one build; `work` fills it if it is not there.
    fn make(
        &self,
        name: &str,
        what: &str,
        work: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<PathBuf> {
        let done = self.folder.join(name);
        if done.exists() {
            return Ok(done);
        }
        // Only now, so that a cluster whose binaries are there starts beside a build.
        let _lock = lock(&self.folder)?;
        if done.exists() {
            return Ok(done);
        }
        let part = self.folder.join(format!("{name}.part"));
        remove(&part)?;
        fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
        eprintln!("cluster: building {name} ({what})");
        let start = Instant::now();
        if let Err(error) = work(&part) {
            remove(&part)?;
            return Err(error).with_context(|| format!("build {name}"));
        }
        fs::rename(&part, &done).with_context(|| format!("rename {}", part.display()))?;
        eprintln!("cluster: built {name} in {:.0} s", start.elapsed().as_secs_f64());
        Ok(done)
    }
}

/// Only the programs for images of tests, which every cluster runs.
pub fn programs(house: &House) -> anyhow::Result<PathBuf> {
    Builder::new(house)?.programs()
}

/// Build packages of a module that `go install` refuses because it replaces or excludes
/// modules: they become dependencies of a module made for this.
fn dependency(
    out: &Path,
    flags: &str,
    (module, version): (&str, &str),
    packages: &[&str],
) -> anyhow::Result<()> {
    let work = out.join("module");
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    fs::write(work.join("go.mod"), "module cluster.local/build\n\ngo 1.26\n")?;
    let imports: String =
        packages.iter().map(|package| format!("import _ \"{package}\"\n")).collect();
    fs::write(work.join("tools.go"), format!("//go:build tools\n\npackage build\n\n{imports}"))?;
    let go_in = |args: &[&str]| tools::output(Command::new("go").args(args).current_dir(&work));
    go_in(&["get", &format!("{module}@v{version}")])?;
    // Tests of dependencies may need modules that do not exist; nothing here runs them.
    go_in(&["mod", "tidy", "-e"])?;
    for package in packages {
        let name = package.rsplit('/').next().context("a package without a name")?;
        let tags = format!("seccomp,{CONTAINERD_TAGS}");
        let mut go = go("build", flags);
        go.arg("-tags").arg(tags).arg("-o").arg(out.join(name)).arg(package);
        tools::run(go.current_dir(&work))?;
    }
    remove(&work)
}

fn go(command: &str, flags: &str) -> Command {
    let mut go = Command::new("go");
    go.args([command, "-trimpath", "-ldflags", flags]);
    go
}

/// A short digest of files, for what is built from our own sources.
fn digest(folder: &Path, files: &[impl AsRef<Path>]) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    for file in files {
        let path = folder.join(file);
        bytes.extend(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    let mut digest = tools::sha256_of(&bytes);
    digest.truncate(DIGEST_DIGITS);
    Ok(digest)
}

/// The first two numbers of a version.
pub fn major_minor(version: &str) -> anyhow::Result<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor)), Some(Ok(_)), None) => Ok((major, minor)),
        _ => bail!("`{version}` is no version: give three numbers, such as {}", pins::CONTAINERD),
    }
}

/// Wait for the lock of the folder, and hold it.
fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            eprintln!("cluster: waiting for another build to end ({})", path.display());
            file.lock().with_context(|| format!("lock {}", path.display()))?;
            Ok(file)
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers() {
        assert_eq!(major_minor("2.3.7").ok(), Some((2, 3)));
        for text in ["", "2", "2.3", "v2.3.7", "2.3.7.1", "2.x.1"] {
            assert!(major_minor(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_module_of_kube_has_the_pinned_version() {
        let module = include_str!("../../../e2e/cluster/kube/go.mod");
        let line = format!("\tk8s.io/kubernetes v{}\n", pins::KUBERNETES);
        assert!(module.contains(&line), "go.mod of e2e/cluster/kube lacks {line:?}");
    }
}
