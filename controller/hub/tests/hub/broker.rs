//! The real mosquitto, with the files that the hub writes for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long mosquitto may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A broker that ends with its test.
pub struct Broker {
    child: Child,
    config: PathBuf,
    pub port: u16,
}

/// Where `cargo xtask setup` has put Debian's, or the one of this machine.
fn mosquitto() -> Command {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| std::env::home_dir().unwrap().join(".cache"));
    let debian = cache.join("wick/mosquitto");
    let program = debian.join("usr/sbin/mosquitto");
    if !program.is_file() {
        return Command::new("mosquitto");
    }
    let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", debian.join(libraries));
    command
}

/// A port that nobody has just now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

// === impl Broker ===

impl Broker {
    /// With certificates and the ACL, and without a memory that outlives it.
    pub fn start(dir: &Path) -> Self {
        let (port, acl) = (free_port(), dir.join("acl"));
        fs::write(&acl, wick_hub::acl()).unwrap();
        let config = wick_hub::config(dir, &acl, port);
        Self::run(dir, port, &config.replace("persistence true", "persistence false"))
    }

    /// Where anybody says anything, to hear what the hub makes of it.
    pub fn open(dir: &Path) -> Self {
        let port = free_port();
        Self::run(dir, port, &format!("listener {port} 127.0.0.1\nallow_anonymous true\n"))
    }

    fn run(dir: &Path, port: u16, text: &str) -> Self {
        let config = dir.join("mosquitto.conf");
        // As root it would take another user, who may not read the key.
        fs::write(&config, format!("user root\n{text}")).unwrap();
        let child = spawn(&config, port);
        Self { child, config, port }
    }

    /// End it at once and start it again; it has forgotten everything.
    pub fn restart(&mut self) {
        self.stop();
        self.child = spawn(&self.config, self.port);
    }

    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Let it read its list of revocations again.
    pub fn reload(&self) {
        let done =
            Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
        // It says nowhere when it has.
        std::thread::sleep(Duration::from_millis(500));
    }

    pub fn url(&self, scheme: &str) -> wick_hub::Broker {
        format!("{scheme}://127.0.0.1:{}", self.port).parse().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(config: &Path, port: u16) -> Child {
    let mut command = mosquitto();
    command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("there is no mosquitto: run `cargo xtask setup`");
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < PATIENCE, "mosquitto doesn't listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}
