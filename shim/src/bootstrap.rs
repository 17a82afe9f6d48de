//! The actions that containerd calls before there is a shim: `-info`, `-v` and `start`.
//!
//! Three generations of containerd ask differently: 1.6 to 2.2 by flags and environment, with
//! runtime options on stdin, and 2.3 and later by a protobuf message on stdin. The older ones
//! are answered with the bare address, which every one of them takes for a shim of task API 2;
//! the newer with a message that says 3. The shim serves both (`serve`).

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use containerd_shim::protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim::protos::protobuf::Message as _;
use containerd_shim::protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use containerd_shim::{Flags, StartOpts};
use serde::Deserialize;

use crate::{cleanup, roster};

/// The runtime's name in containerd's configuration.
pub const NAME: &str = "io.containerd.wick.v1";

/// Tells a shim where its list of containers is: its arguments do not name its pod.
pub const ROSTER: &str = "WICK_SHIM_ROSTER";

/// Longest message on stdin. Runtime options and a few addresses are some kilobytes.
const MAX_STDIN: u64 = 1 << 20;

/// The bundle's file that says what the container is.
pub const CONFIG: &str = "config.json";

const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";

/// How containerd asked, and so how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Flags,
    Message,
}

/// The one part of a `config.json` that says which shim a container belongs to.
#[derive(Deserialize)]
pub struct Annotated {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

// === impl Annotated ===

impl Annotated {
    /// The pod that the container belongs to, by the id of its sandbox.
    pub fn pod(&self) -> Option<&str> {
        self.annotations.get(SANDBOX_ID).map(String::as_str).filter(|id| !id.is_empty())
    }
}

pub fn version() -> Vec<u8> {
    format!("{NAME}:\n  Version: {}\n", env!("CARGO_PKG_VERSION")).into_bytes()
}

/// # Errors
/// The answer can't be encoded.
pub fn info() -> anyhow::Result<Vec<u8>> {
    let version =
        RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), ..Default::default() };
    let info =
        RuntimeInfo { name: NAME.to_owned(), version: Some(version).into(), ..Default::default() };
    Ok(info.write_to_bytes()?)
}

/// Start the shim of a container's pod, or find it, and answer where it listens.
///
/// # Errors
/// The bundle can't be read, or no shim can be started.
pub fn start(flags: &Flags) -> anyhow::Result<Vec<u8>> {
    let mut input = Vec::new();
    // A containerd that has nothing to say may give no stdin at all.
    let _ = io::stdin().lock().take(MAX_STDIN).read_to_end(&mut input);
    let (options, dialect) = understand(&input, flags);
    anyhow::ensure!(
        !options.ttrpc_address.is_empty(),
        "containerd gave no TTRPC_ADDRESS for events"
    );
    let config = std::fs::read(CONFIG).context("read the bundle's config.json")?;
    let config: Annotated = serde_json::from_slice(&config).context("parse config.json")?;
    let group = config.pod().unwrap_or(&options.id);
    let address = options.socket_address(group);
    let socket = PathBuf::from(address.strip_prefix("unix://").unwrap_or(&address));
    if UnixStream::connect(&socket).is_err() {
        let roster = roster::file(&options.address, &options.namespace, group);
        cleanup::bury_dead(&roster);
        spawn(&options, &socket, &roster)?;
    }
    // containerd before 1.7 finds the shim again by this file after its own restart.
    std::fs::write("address", &address).context("write the bundle's address")?;
    answer(&address, dialect)
}

fn understand(input: &[u8], flags: &Flags) -> (StartOpts, Dialect) {
    let message = BootstrapParams::parse_from_bytes(input).ok();
    // Runtime options can look like this message; its names can't.
    let message = message.filter(|m| m.instance_id == flags.id && m.namespace == flags.namespace);
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let mut options = StartOpts {
        id: flags.id.clone(),
        namespace: flags.namespace.clone(),
        address: flags.address.clone(),
        ttrpc_address: env("TTRPC_ADDRESS"),
        debug: flags.debug,
        ..StartOpts::default()
    };
    let Some(message) = message else { return (options, Dialect::Flags) };
    if !message.containerd_grpc_address.is_empty() {
        options.address = message.containerd_grpc_address;
    }
    if !message.containerd_ttrpc_address.is_empty() {
        options.ttrpc_address = message.containerd_ttrpc_address;
    }
    options.socket_dir = message.socket_dir.filter(|dir| !dir.is_empty());
    (options, Dialect::Message)
}

/// The shim listens before it lives: the socket is made here and handed over as its stdin, so
/// containerd's first call waits in the socket while the shim starts.
fn spawn(options: &StartOpts, socket: &Path, roster: &Path) -> anyhow::Result<()> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).context("make the folder of shim sockets")?;
    }
    // Nobody listens there: it is a dead shim's.
    let _ = std::fs::remove_file(socket);
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    let mut command = Command::new(std::env::current_exe().context("find this executable")?);
    command
        .args(["-namespace", &options.namespace, "-id", &options.id])
        .args(["-address", &options.address])
        .args([Path::new("-socket"), socket])
        .env("TTRPC_ADDRESS", &options.ttrpc_address)
        .env(ROSTER, roster)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A signal to containerd's group is not for its pods.
        .process_group(0);
    if options.debug {
        command.arg("-debug");
    }
    let spawned = command.spawn();
    if spawned.is_err() {
        let _ = std::fs::remove_file(socket);
    }
    spawned.context("start the shim")?;
    Ok(())
}

fn answer(address: &str, dialect: Dialect) -> anyhow::Result<Vec<u8>> {
    match dialect {
        Dialect::Flags => Ok(address.as_bytes().to_vec()),
        Dialect::Message => {
            let result = BootstrapResult {
                version: 3,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..Default::default()
            };
            Ok(result.write_to_bytes()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            id: "abc".to_owned(),
            namespace: "k8s.io".to_owned(),
            address: "/run/containerd/containerd.sock".to_owned(),
            ..Flags::default()
        }
    }

    #[test]
    fn a_message_is_told_from_runtime_options_and_from_nothing() {
        let params = BootstrapParams {
            instance_id: "abc".to_owned(),
            namespace: "k8s.io".to_owned(),
            containerd_ttrpc_address: "/run/x.ttrpc".to_owned(),
            socket_dir: Some("/run/s".to_owned()),
            ..Default::default()
        };
        let (options, dialect) = understand(&params.write_to_bytes().unwrap(), &flags());
        assert_eq!(dialect, Dialect::Message);
        assert_eq!(options.ttrpc_address, "/run/x.ttrpc");
        assert_eq!(options.address, "/run/containerd/containerd.sock");
        assert!(options.socket_address("abc").starts_with("unix:///run/s/"));

        let other = BootstrapParams { instance_id: "other".to_owned(), ..Default::default() };
        for input in [Vec::new(), vec![0xff; 9], other.write_to_bytes().unwrap()] {
            assert_eq!(understand(&input, &flags()).1, Dialect::Flags);
        }
    }

    #[test]
    fn each_generation_gets_the_answer_that_it_reads() {
        assert_eq!(answer("unix:///a", Dialect::Flags).unwrap(), b"unix:///a");
        let bytes = answer("unix:///a", Dialect::Message).unwrap();
        let result = BootstrapResult::parse_from_bytes(&bytes).unwrap();
        assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
    }
}
