//! `cargo xtask cluster`: a real Kubernetes cluster of one node, started in seconds and
//! stopped without a trace, for tests and measurements. Several run at once.
//!
//! Each cluster has PID, mount and network namespaces of its own, and `supervise` is the
//! first process in them. Four things follow from that, which ports and marks derived from
//! an index would not give:
//!
//! - kube-proxy and the network plugins own the packet filter of their namespace. In a
//!   shared one, kube-proxy removes the chains of the other cluster as stale.
//! - Paths that programs have built in (`/run/containerd`, `/run/netns`, `/var/lib/kubelet`)
//!   are the cluster's own, and cannot meet those of a k3s on the same machine.
//! - Every port is free, so all clusters have the same ports at different addresses.
//! - When the first process ends, the kernel ends all others, those of pods and of shims
//!   included, and then removes mounts, interfaces and the packet filter. Only cgroups and
//!   the cluster's folder are left to remove, whatever crashed before.
//!
//! The price: process numbers inside differ from those outside. `status` shows both, and
//! `exec` runs a program inside.
//!
//! The host reaches the node, its pods and its Services by a pair of interfaces and routes:
//!
//! ```text
//!  host                       wick-cN ══ eth0             the cluster's namespaces
//!   10.250.N.1 ─────────────────────────── 10.250.N.2     API 6443, registry 5000, DNS 53
//!   routes: 10.(100+N).0.0/16 pods, 10.(150+N).0.0/16 Services
//! ```
//!
//! Nothing of the machine's own packet filter or forwarding is changed, so a cluster reaches
//! the host and nothing beyond it; images come from its registry or are imported.

pub mod build;
mod cgroups;
mod config;
mod control;
mod daemons;
mod down;
mod instance;
mod left;
mod network;
pub mod packages;
pub mod pins;
mod pki;
mod processes;
mod status;
mod supervise;
mod up;

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::house::House;
use instance::{Name, Place, Record};

const USAGE: &str = "\
usage: cargo xtask cluster VERB [NAME]     NAME is `dev` if it is not given

  build                    only build the binaries, into ~/.cache/wick/cluster/bin
  up [NAME]                start a cluster and wait until a pod could run
      --containerd VERSION   instead of the pinned one; 1.7 and 2.x are known
      --shim FILE            what containerd runs for the runtime class `wick`
      --worker FILE          the `wick` that the shim runs (WICK_WORKER)
      --env NAME=VALUE       a variable for containerd and its shims
  down [NAME] | --all      stop it, and check that nothing is left
  status [NAME]            what runs; with --output json for programs
  env [NAME]               shell variables: eval \"$(cargo xtask cluster env)\"
  exec NAME COMMAND...     run a command inside the cluster's namespaces
  restart NAME DAEMON      stop a daemon and start it again, such as `containerd`
";

/// The cluster that is meant when none is named.
const DEFAULT_NAME: &str = "dev";

/// What the words after `cluster VERB` say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    names: Vec<String>,
    all: bool,
    json: bool,
    containerd: Option<String>,
    shim: Option<PathBuf>,
    worker: Option<PathBuf>,
    env: Vec<(String, String)>,
}

/// Be the first process of a cluster; `cluster up` starts this.
pub fn supervise(args: &[String]) -> anyhow::Result<()> {
    let [_, plan] = args else { bail!("usage: cluster supervise PLAN") };
    supervise::run(Path::new(plan))
}

/// `args` is what follows `cluster`.
pub fn run(house: &House, args: &[String]) -> anyhow::Result<()> {
    let Some((verb, rest)) = args.split_first() else { bail!("no verb given\n\n{USAGE}") };
    if matches!(verb.as_str(), "help" | "-h" | "--help") {
        print!("{USAGE}");
        return Ok(());
    }
    let runs = runs(house)?;
    match verb.as_str() {
        // The words after these are not all ours.
        "exec" => return exec(&runs, rest),
        "restart" => return restart(&runs, rest),
        _ => {}
    }
    let words = Words::parse(rest)?;
    match verb.as_str() {
        "build" => {
            let version = words.containerd.as_deref().unwrap_or(pins::CONTAINERD);
            build::Binaries::ensure(house, version).map(drop)
        }
        "up" => up_with(house, rest),
        "down" => {
            needs_root()?;
            let places = if words.all { places(&runs)? } else { vec![words.place(&runs)?] };
            places.iter().try_for_each(stop)
        }
        "status" => {
            let places =
                if words.names.is_empty() { places(&runs)? } else { vec![words.place(&runs)?] };
            status::show(&places, words.json)
        }
        "env" => status::variables(&record(&words.place(&runs)?)?, &runs),
        other => bail!("there is no verb `{other}`\n\n{USAGE}"),
    }
}

/// Start a cluster with the default versions and programs.
pub fn up(house: &House, name: &str) -> anyhow::Result<()> {
    up_with(house, &[name.to_owned()])
}

/// Start a cluster; `args` is what follows `cluster up`.
pub fn up_with(house: &House, args: &[String]) -> anyhow::Result<()> {
    needs_root()?;
    let words = Words::parse(args)?;
    let place = words.place(&runs(house)?)?;
    let _lock = lock(&place)?;
    up::run(house, &place, &words.options(house)?)
}

/// Stop a cluster.
pub fn down(house: &House, name: &str) -> anyhow::Result<()> {
    stop(&Place::new(&runs(house)?, Name::parse(name)?))
}

/// The folder with the programs that images of tests are made of.
pub fn programs(house: &House) -> anyhow::Result<PathBuf> {
    build::programs(house)
}

/// What a benchmark uses of a cluster that runs.
pub struct Parts {
    pub binaries: build::Binaries,
    pub containerd_socket: PathBuf,
    /// The control group that goes when the cluster does.
    pub cgroup: String,
}

/// Stop the kubelet of a cluster that runs. It would remove pods that it knows nothing of:
/// those that a benchmark starts by containerd's CRI.
pub fn stop_kubelet(house: &House, name: &str) -> anyhow::Result<()> {
    control::order(&Place::new(&runs(house)?, Name::parse(name)?), "stop kubelet")
}

/// Build what a cluster is made of, if the cache lacks it.
pub fn build(house: &House) -> anyhow::Result<()> {
    build::Binaries::ensure(house, pins::CONTAINERD).map(drop)
}

/// Folder with the usual containerd and its client.
pub fn containerd(house: &House) -> anyhow::Result<PathBuf> {
    Ok(build::Binaries::ensure(house, pins::CONTAINERD)?.containerd)
}

/// Debian's registry, as clusters run it.
pub fn registry(house: &House) -> anyhow::Result<PathBuf> {
    Ok(build::Binaries::ensure(house, pins::CONTAINERD)?.registry())
}

/// The binaries of the usual versions, and the socket of a cluster that runs.
pub fn parts(house: &House, name: &str) -> anyhow::Result<Parts> {
    let binaries = build::Binaries::ensure(house, pins::CONTAINERD)?;
    let place = Place::new(&runs(house)?, Name::parse(name)?);
    let cgroup = format!("/{}", place.name.cgroup());
    Ok(Parts { binaries, containerd_socket: place.containerd_socket(), cgroup })
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where clusters keep what all of them share.
fn home(house: &House) -> PathBuf {
    house.cache.join("cluster")
}

/// The folder with a folder for each cluster.
fn runs(house: &House) -> anyhow::Result<PathBuf> {
    let runs = env::var_os("WICK_CLUSTER_DIR").map(PathBuf::from);
    let runs = runs.unwrap_or_else(|| home(house).join("run"));
    ensure!(runs.is_absolute(), "WICK_CLUSTER_DIR must be an absolute path");
    Ok(runs)
}

fn needs_root() -> anyhow::Result<()> {
    ensure!(is_root(), "a cluster makes namespaces, cgroups and interfaces: run this as root");
    Ok(())
}

fn stop(place: &Place) -> anyhow::Result<()> {
    let _lock = lock(place)?;
    let start = std::time::Instant::now();
    down::run(place)?;
    let (name, seconds) = (place.name.as_str(), start.elapsed().as_secs_f64());
    eprintln!("cluster: {name}: stopped ({seconds:.1} s)");
    Ok(())
}

/// One `up` or `down` of a cluster at a time. The lock stays as an empty file.
fn lock(place: &Place) -> anyhow::Result<File> {
    let path = place.folder.with_extension("lock");
    let folder = path.parent().context("a lock without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// Every cluster that has a folder.
fn places(runs: &Path) -> anyhow::Result<Vec<Place>> {
    if !runs.exists() {
        return Ok(Vec::new());
    }
    let mut places = Vec::new();
    for entry in fs::read_dir(runs).with_context(|| format!("list {}", runs.display()))? {
        // Locks and old logs have a dot in their names, which a cluster's cannot have.
        if let Ok(name) = Name::parse(&entry?.file_name().to_string_lossy()) {
            places.push(Place::new(runs, name));
        }
    }
    places.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(places)
}

fn record(place: &Place) -> anyhow::Result<Record> {
    let name = place.name.as_str();
    Record::read(place)?
        .with_context(|| format!("there is no cluster {name}: cargo xtask cluster up {name}"))
}

fn exec(runs: &Path, args: &[String]) -> anyhow::Result<()> {
    let [name, program, rest @ ..] = args else { bail!("usage: cluster exec NAME COMMAND...") };
    needs_root()?;
    let place = Place::new(runs, Name::parse(name)?);
    let record = record(&place)?;
    let mut command = control::inside(&record)?;
    command.arg(program).args(rest).envs(status::pairs(&record, &place));
    // Replaces this process, so it returns only when it could not.
    Err(command.exec()).with_context(|| format!("run {program}"))
}

fn restart(runs: &Path, args: &[String]) -> anyhow::Result<()> {
    let [name, daemon] = args else { bail!("usage: cluster restart NAME DAEMON") };
    let place = Place::new(runs, Name::parse(name)?);
    record(&place)?;
    control::order(&place, &format!("restart {daemon}"))
}

// === impl Words ===

impl Words {
    fn parse(args: &[String]) -> anyhow::Result<Self> {
        let mut words = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--all" => words.all = true,
                "--output" => match value()?.as_str() {
                    "json" => words.json = true,
                    "text" => words.json = false,
                    other => bail!("--output is `text` or `json`, not `{other}`"),
                },
                "--containerd" => words.containerd = Some(value()?.clone()),
                "--shim" => words.shim = Some(PathBuf::from(value()?)),
                "--env" => {
                    let variable = value()?.split_once('=').context("--env is NAME=VALUE")?;
                    words.env.push((variable.0.to_owned(), variable.1.to_owned()));
                }
                "--worker" => words.worker = Some(PathBuf::from(value()?)),
                flag if flag.starts_with('-') => bail!("there is no flag {flag}\n\n{USAGE}"),
                name => words.names.push(name.to_owned()),
            }
        }
        ensure!(words.names.len() <= 1, "one cluster at a time, not {}", words.names.join(" and "));
        ensure!(!words.all || words.names.is_empty(), "give a name or --all, not both");
        Ok(words)
    }

    fn place(&self, runs: &Path) -> anyhow::Result<Place> {
        let name = self.names.first().map_or(DEFAULT_NAME, String::as_str);
        Ok(Place::new(runs, Name::parse(name)?))
    }

    fn options(&self, house: &House) -> anyhow::Result<up::Options> {
        let shim = self.shim.clone().unwrap_or_else(|| crate::shim::path(house));
        let worker = self.worker.clone().unwrap_or_else(|| house.wick());
        let absolute = |path: PathBuf| std::path::absolute(&path).context("find the tree");
        Ok(up::Options {
            containerd: self.containerd.clone().unwrap_or_else(|| pins::CONTAINERD.to_owned()),
            shim: absolute(shim)?,
            worker: absolute(worker)?,
            env: self.env.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Words> {
        Words::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_read() -> anyhow::Result<()> {
        assert_eq!(parse("")?, Words::default());
        let words = parse("e2e --containerd 1.7.35 --output json")?;
        assert_eq!(words.names, ["e2e"]);
        assert_eq!(words.containerd.as_deref(), Some("1.7.35"));
        assert!(words.json);
        for bad in ["a b", "a --all", "--fast", "--shim", "--output xml"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        Ok(())
    }
}
