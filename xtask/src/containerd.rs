//! Whether a real containerd imports and unpacks what `wick pack` writes.
//!
//! A private containerd runs in a temporary folder; nothing of a containerd that the
//! machine already has is touched. It needs root, since unpacking a layer does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// Debian's package, unpacked beside the caches when containerd is not installed.
const PACKAGE: &str = "containerd";

/// Longest that containerd takes to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Name under which the image is imported.
const REFERENCE: &str = "example.test/passthrough:1.0.0";

/// Folder with `containerd` and `ctr`: the system's, or Debian's package unpacked
/// under `cache`. None if there is none and it can't be fetched here.
pub fn find(cache: &Path, may_fetch: bool) -> anyhow::Result<Option<PathBuf>> {
    if let Some(folder) = crate::tools::find_on_path("containerd") {
        return Ok(folder.parent().map(Path::to_owned));
    }
    let folder = cache.join("containerd");
    let bin = folder.join("usr/bin");
    if bin.join("containerd").exists() {
        return Ok(Some(bin));
    }
    if !may_fetch || crate::tools::find_on_path("apt-get").is_none() {
        return Ok(None);
    }
    fs::create_dir_all(&folder)?;
    run(Command::new("apt-get").args(["-q", "update"]))?;
    run(Command::new("apt-get").args(["-q", "download", PACKAGE]).current_dir(&folder))?;
    let deb = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .context("apt-get downloaded no package")?;
    run(Command::new("dpkg").arg("-x").arg(&deb).arg(&folder))?;
    Ok(Some(bin))
}

/// Pack `package` with `wick`, import the tar, and look at the unpacked files.
pub fn check_import(bin: &Path, wick: &Path, package: &Path) -> anyhow::Result<()> {
    let scratch = crate::tools::Scratch::new("containerd")?;
    let tar = scratch.path().join("image.tar");
    let mut pack = Command::new(wick);
    pack.arg("pack").arg(package).arg("-o").arg(&tar);
    run(pack.args(["--format", "tar", "--name", REFERENCE]))?;
    let daemon = Daemon::start(bin, scratch.path())?;
    daemon.ctr(&["images", "import", "--snapshotter", "native", &tar.to_string_lossy()])?;
    let list = daemon.ctr(&["images", "ls"])?;
    let line = list.lines().find(|line| line.starts_with(REFERENCE));
    let line = line.with_context(|| format!("{REFERENCE} is not among the images:\n{list}"))?;
    for platform in ["linux/amd64", "linux/arm64"] {
        ensure!(line.contains(platform), "the image lacks {platform}: {line}");
    }
    let root = scratch.path().join("root");
    fs::create_dir(&root)?;
    let target = root.to_string_lossy().into_owned();
    daemon.ctr(&["images", "mount", "--snapshotter", "native", REFERENCE, &target])?;
    let seen = compare(package, &root);
    daemon.ctr(&["images", "unmount", &target])?;
    seen
}

fn compare(package: &Path, root: &Path) -> anyhow::Result<()> {
    for file in ["wick.toml", "model.onnx"] {
        let packed = fs::read(root.join(file)).with_context(|| format!("{file} in the image"))?;
        ensure!(packed == fs::read(package.join(file))?, "{file} differs in the image");
    }
    Ok(())
}

/// A containerd with its state in one folder; ended when dropped.
struct Daemon {
    child: Child,
    bin: PathBuf,
    socket: PathBuf,
}

impl Daemon {
    fn start(bin: &Path, folder: &Path) -> anyhow::Result<Self> {
        let socket = folder.join("containerd.sock");
        let config = folder.join("config.toml");
        let text = format!(
            "version = 2\nroot = \"{0}/data\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{0}/containerd.sock\"\n\
             [ttrpc]\naddress = \"{0}/containerd.sock.ttrpc\"\n",
            folder.display()
        );
        fs::write(&config, text)?;
        let log = fs::File::create(folder.join("containerd.log"))?;
        let mut command = Command::new(bin.join("containerd"));
        command.arg("--config").arg(&config).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start containerd")?;
        let daemon = Self { child, bin: bin.to_owned(), socket };
        let start = Instant::now();
        while daemon.ctr(&["version"]).is_err() {
            ensure!(start.elapsed() < START_TIMEOUT, "containerd did not start");
            sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }

    fn ctr(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(self.bin.join("ctr"));
        let output = command.arg("--address").arg(&self.socket).args(args).output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("ctr {}: {error}", args.join(" "));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A containerd that has ended by itself needs nothing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed with {status}");
    Ok(())
}
