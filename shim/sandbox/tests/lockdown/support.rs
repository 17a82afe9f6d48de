//! A root file system to lock a probe down in, and what the probe says.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use wick_sandbox::Channel;
use wick_sandbox::order::{Mount, Order, Settings, Task, User, VERSION};

/// An image, and the order to run it.
pub struct Case {
    pub folder: tempfile::TempDir,
    pub order: Order,
}

/// What a probe said, by action.
pub struct Answers(BTreeMap<String, String>);

/// Whether these tests can run. Without root they can't, which CI must not overlook.
pub fn root_or_skip() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "the sandbox is tested as root");
    eprintln!("needs root: skipped");
    false
}

// === impl Case ===

impl Case {
    /// A pod's usual mounts over an image with a few files.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rootfs = folder.path().join("rootfs");
        fs::create_dir_all(rootfs.join("app")).unwrap();
        fs::write(rootfs.join("app/file"), "of the image").unwrap();
        let order = Order {
            version: VERSION,
            task: Task::Run,
            name: "probe".into(),
            rootfs,
            sealed: false,
            mounts: kernel_mounts(),
            devices: vec![],
            args: vec!["/wick.toml".into()],
            env: vec![],
            cwd: "/".into(),
            user: User { uid: 1000, gid: 2000, additional_gids: vec![3000], umask: None },
            rlimits: vec![],
            masked_paths: vec![],
            readonly_paths: vec![],
            apparmor: None,
            hostname: None,
            backends: None,
            accelerators: Vec::new(),
            cache: None,
            settings: Settings::default(),
        };
        Self { folder, order }
    }

    /// A folder of the node, with one file that all may write.
    pub fn volume(&self, name: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("inside"), format!("of {name}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        path
    }

    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.order.rootfs.join(path)
    }

    pub fn bind(&mut self, source: &Path, destination: &str, flags: u64) -> &mut Self {
        self.order.mounts.push(Mount {
            destination: destination.into(),
            kind: "bind".into(),
            source: source.to_owned(),
            flags: libc::MS_BIND | libc::MS_REC | flags,
            propagation: libc::MS_PRIVATE | libc::MS_REC,
            data: String::new(),
        });
        self
    }

    /// Lock a probe down and let it act.
    pub fn run(&self, actions: &[&str]) -> Answers {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sandbox-probe"))
            .arg("outer")
            .args(actions)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Channel::new(ours).send(&self.order).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once(" => "));
        Answers(lines.map(|(action, answer)| (action.to_owned(), answer.to_owned())).collect())
    }

    /// Why it is not locked down.
    pub fn refusal(&self) -> String {
        let answers = self.run(&[]);
        let answer = answers.of("lockdown").to_owned();
        assert!(!answer.starts_with("ok"), "{answer}");
        answer
    }
}

// === impl Answers ===

impl Answers {
    #[track_caller]
    pub fn of(&self, action: &str) -> &str {
        self.0.get(action).unwrap_or_else(|| panic!("no answer to {action}: {:?}", self.0))
    }

    #[track_caller]
    pub fn ok(&self, action: &str) -> &str {
        let answer = self.of(action);
        let text = answer.strip_prefix("ok:");
        text.unwrap_or_else(|| panic!("{action}: {answer}; {:?}", self.0)).trim()
    }

    #[track_caller]
    pub fn error(&self, action: &str, errors: &[i32]) {
        let answer = self.of(action);
        let found = errors.iter().any(|error| answer == format!("error {error}"));
        assert!(found, "{action}: {answer}; {:?}", self.0);
    }
}

pub fn kernel(kind: &str, destination: &str, data: &str) -> Mount {
    Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: kind.into(),
        flags: libc::MS_NOSUID,
        propagation: 0,
        data: data.into(),
    }
}

fn kernel_mounts() -> Vec<Mount> {
    vec![
        kernel("proc", "/proc", ""),
        kernel("tmpfs", "/dev", "mode=755,size=65536k"),
        kernel("devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        kernel("mqueue", "/dev/mqueue", ""),
        kernel("sysfs", "/sys", ""),
        kernel("cgroup", "/sys/fs/cgroup", ""),
    ]
}
