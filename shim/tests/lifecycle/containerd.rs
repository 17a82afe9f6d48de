//! The shim under a real containerd, private to the test: its own folders and sockets.
//! `WICK_TEST_CONTAINERD` names the folder of another containerd's binaries.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::runner::Case;
use crate::shim::{kill_shims, until};
use crate::tools;

pub const ALL: &[Case] = &[
    ("containerd runs a package and an ordinary container with the shim", runs),
    ("containerd finds its shims again after a restart", restarts),
    ("containerd cleans up after a shim that was killed", cleans_up),
];

const RUNTIME: &str = "io.containerd.wick.v1";

/// A containerd of its own.
struct Daemon {
    folder: tempfile::TempDir,
    bin: PathBuf,
    child: Child,
}

// === impl Daemon ===

impl Daemon {
    fn start() -> Option<Self> {
        let named = std::env::var_os("WICK_TEST_CONTAINERD").map(PathBuf::from);
        let bin = match named {
            Some(bin) => bin,
            None if tools::has("containerd") && tools::has("runc") => {
                tools::find("containerd")?.parent()?.to_owned()
            }
            None => return None,
        };
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        let built = || env!("CARGO_BIN_EXE_containerd-shim-wick-v1").into();
        let shim = std::env::var_os("WICK_TEST_SHIM").unwrap_or_else(built);
        symlink(shim, folder.path().join("bin/containerd-shim-wick-v1")).unwrap();
        let child = spawn(&bin, folder.path());
        let daemon = Self { folder, bin, child };
        until("containerd answers", || daemon.ctr(&["version"]).status.success());
        Some(daemon)
    }

    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.bin, self.folder.path());
        until("containerd answers again", || self.ctr(&["version"]).status.success());
    }

    fn ctr(&self, args: &[&str]) -> Output {
        let mut command = Command::new(self.bin.join("ctr"));
        command.arg("--address").arg(self.folder.path().join("containerd.sock"));
        command.args(args).output().unwrap()
    }

    fn said(&self, args: &[&str]) -> String {
        let output = self.ctr(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let log = || fs::read_to_string(self.folder.path().join("containerd.log"));
        assert!(
            output.status.success(),
            "ctr {args:?}: {}{}\n{}",
            text(&output.stdout),
            text(&output.stderr),
            log().unwrap_or_default()
        );
        text(&output.stdout) + &text(&output.stderr)
    }

    /// Run a container of a root file system in the background, and wait until it runs.
    fn detach(&self, root: &Path, id: &str, args: &[&str]) -> u32 {
        let root = root.display().to_string();
        let mut all = vec!["run", "-d", "--runtime", RUNTIME, "--rootfs", &root, id];
        all.extend(args);
        self.said(&all);
        self.pid(id).expect("it runs")
    }

    fn pid(&self, id: &str) -> Option<u32> {
        let list = self.said(&["task", "ls"]);
        let line = list.lines().find(|l| l.split_whitespace().next() == Some(id))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    fn status(&self, id: &str) -> String {
        let list = self.said(&["task", "ls"]);
        let line = list.lines().find(|l| l.split_whitespace().next() == Some(id));
        line.and_then(|l| l.split_whitespace().nth(2)).unwrap_or("none").to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            kill_shims(self.folder.path());
        }
    }
}

fn spawn(bin: &Path, folder: &Path) -> Child {
    let config = format!(
        "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.runtime\", \
         \"io.containerd.cri.v1.images\", \"io.containerd.snapshotter.v1.btrfs\", \
         \"io.containerd.snapshotter.v1.zfs\"]\n\
         [grpc]\naddress = \"{0}/containerd.sock\"\n[ttrpc]\naddress = \"{0}/containerd.sock.ttrpc\"\n",
        folder.display()
    );
    fs::write(folder.join("config.toml"), config).unwrap();
    let mut path = vec![folder.join("bin"), bin.to_owned()];
    path.extend(tools::folders());
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("containerd.log"))
        .unwrap();
    Command::new(bin.join("containerd"))
        .arg("--config")
        .arg(folder.join("config.toml"))
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("WICK_WORKER", std::env::current_exe().unwrap())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A root file system with a shell and what it loads.
fn shell_root(folder: &Path) -> PathBuf {
    let root = folder.join("shell");
    let listed = Command::new("ldd").arg("/bin/sh").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/sh", "/bin/sleep"]) {
        let target = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
    root
}

fn wasm_root(folder: &Path) -> PathBuf {
    let root = folder.join("wasm");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("test.wasm"), "\0asm").unwrap();
    root
}

fn runs() {
    let Some(daemon) = Daemon::start() else { return };
    println!("  {}", daemon.said(&["version"]).split_whitespace().collect::<Vec<_>>().join(" "));
    let shell = shell_root(daemon.folder.path()).display().to_string();
    let run = |root: &str, id: &str, args: &[&str]| {
        let mut all = vec!["run", "--rm", "--runtime", RUNTIME, "--rootfs", root, id];
        all.extend(args);
        daemon.ctr(&all)
    };
    let output = run(&shell, "shell", &["/bin/sh", "-c", "echo from a shell; exit 6"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from a shell\n", "{output:?}");
    assert_eq!(output.status.code(), Some(6));
    let root = wasm_root(daemon.folder.path());
    let wasm = root.display().to_string();
    let output = run(&wasm, "wasm", &["/test.wasm", "print", "from a worker"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from a worker", "{output:?}");
    let output = run(&wasm, "code", &["/test.wasm", "exit", "9"]);
    assert_eq!(output.status.code(), Some(9), "{output:?}");

    daemon.detach(&root, "serve", &["/test.wasm", "serve"]);
    let refused = daemon.ctr(&["task", "exec", "--exec-id", "x", "serve", "/bin/sh"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no shell"), "{refused:?}");
    assert!(daemon.said(&["task", "metrics", "serve"]).contains("memory"));
    daemon.said(&["task", "pause", "serve"]);
    assert_eq!(daemon.status("serve"), "PAUSED");
    daemon.said(&["task", "resume", "serve"]);
    daemon.said(&["task", "kill", "serve"]);
    until("it stops", || daemon.status("serve") == "STOPPED");
    daemon.said(&["task", "rm", "serve"]);
    daemon.said(&["container", "rm", "serve"]);
    until("no shim is left", || shims_of(&daemon) == 0);
}

fn shims_of(daemon: &Daemon) -> usize {
    let address = daemon.folder.path().join("containerd.sock").display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|e| fs::read_to_string(e.path().join("cmdline")).ok());
    lines.filter(|l| l.contains("shim-wick") && l.contains(&address)).count()
}

fn restarts() {
    let Some(mut daemon) = Daemon::start() else { return };
    let root = wasm_root(daemon.folder.path());
    let pid = daemon.detach(&root, "r", &["/test.wasm", "serve"]);
    daemon.restart();
    assert_eq!(daemon.pid("r"), Some(pid));
    assert_eq!(daemon.status("r"), "RUNNING");
    daemon.said(&["task", "kill", "r"]);
    until("it stops", || daemon.status("r") == "STOPPED");
    daemon.said(&["task", "rm", "r"]);
    daemon.said(&["container", "rm", "r"]);
    until("no shim is left", || shims_of(&daemon) == 0);
}

fn cleans_up() {
    let Some(daemon) = Daemon::start() else { return };
    let root = wasm_root(daemon.folder.path());
    let pid = daemon.detach(&root, "k", &["/test.wasm", "stubborn"]);
    let stat = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = stat.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().to_owned();
    Command::new("kill").args(["-9", &parent]).status().unwrap();
    until("containerd notices", || daemon.status("k") != "RUNNING");
    until("its worker is dead", || !crate::shim::alive(pid));
    let _ = daemon.ctr(&["task", "rm", "-f", "k"]);
    daemon.said(&["container", "rm", "k"]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*daemon.folder.path().join("state").display().to_string()));
    assert!(!Path::new("/sys/fs/cgroup/memory/default/k").exists());
}
