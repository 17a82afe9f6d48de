//! Debian's mosquitto on loopback, without TLS, and folders of sites that are enrolled with it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use wick_agent::{Home, SiteFile};
use wick_fleet::SiteName;
use wick_fleet::enrol::Enrolled;
use wick_fleet::wire::KeyRing;
use wick_package::signature::PrivateKey;

use crate::setup::path;

/// Longest until it listens.
const LIMIT: Duration = Duration::from_secs(10);

const LOOK: Duration = Duration::from_millis(20);

/// Memory and disk of a site.
const PLENTY: u64 = 1 << 30;

/// mosquitto, ended with the benchmark.
pub struct Broker {
    child: Child,
    pub addr: SocketAddr,
}

// === impl Broker ===

impl Broker {
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let root = path("WICK_TEST_MOSQUITTO")?;
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = folder.join("mosquitto.conf");
        // Without a limit of its own on what waits for one client: a hub hears a thousand at once.
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nlog_type none\nmax_queued_messages 0\n",
            addr.port()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(root.join("usr/sbin/mosquitto"));
        let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        command.env("LD_LIBRARY_PATH", libraries).arg("-c").arg(config).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let broker = Self { child: command.spawn().context("start mosquitto")?, addr };
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            ensure!(begun.elapsed() < LIMIT, "mosquitto does not listen");
            std::thread::sleep(LOOK);
        }
        Ok(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing useful can be done if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A folder as it is after enrolment with a hub of this key, and the site's own key.
pub fn enrol(
    folder: &Path,
    site: &SiteName,
    broker: SocketAddr,
    hub: &PrivateKey,
) -> anyhow::Result<(Home, PrivateKey)> {
    let home = Home::open(folder.to_owned())?;
    let (key, _) = home.own_key()?;
    let url = format!("mqtt://{broker}");
    let enrolled = Enrolled {
        certificate: String::new(),
        ca: String::new(),
        ring: KeyRing::new(1, vec![hub.public()])?,
        broker: url.clone(),
        not_after: u64::MAX / 2,
    };
    let file = SiteFile {
        site: site.clone(),
        hub: "http://127.0.0.1:1".to_owned(),
        hub_ca: None,
        broker: url,
        certificate: String::new(),
        ca: String::new(),
        obtained: 0,
        not_after: enrolled.not_after,
        memory: PLENTY,
        disk: PLENTY,
        token: String::new(),
    };
    home.join(&file, &enrolled)?;
    Ok((home, key))
}
