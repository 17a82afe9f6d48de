//! Start a cluster: make its folder, its addresses and its namespaces, then start each
//! program as soon as what it needs is there, and return when a pod could run.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::build::{self, Binaries};
use super::daemons::{self, MARK, Plan};
use super::instance::{API_PORT, Index, NODE, OWN_FOLDERS, Place, Process, Record};
use super::{cgroups, config, control, down, network, pins, pki, processes};
use crate::house::House;
use crate::http;
use crate::tools;
use wick_e2e::image::Image;

/// Longest that any single step takes; on a machine that compiles at the same time the API
/// server has needed twenty seconds.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// Pause between two looks at something that starts.
const POLL: Duration = Duration::from_millis(50);

/// The same where a look costs a process.
const SLOW_POLL: Duration = Duration::from_millis(200);

/// CoreDNS tells here whether it has read the Services.
const DNS_READY_PORT: u16 = 8181;

/// What may be chosen about a cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    pub containerd: String,
    pub shim: PathBuf,
    pub worker: PathBuf,
    /// Variables for containerd, and thereby for every shim.
    pub env: Vec<(String, String)>,
}

/// What `run` works with.
struct Up<'a> {
    place: &'a Place,
    options: &'a Options,
    binaries: Binaries,
    backends: PathBuf,
    index: Index,
    start: Instant,
}

/// Start it; one that runs already is left alone.
pub fn run(house: &House, place: &Place, options: &Options) -> anyhow::Result<()> {
    let name = place.name.as_str();
    if let Ok(Some(record)) = Record::read(place)
        && record.supervisor.is_alive()
    {
        eprintln!("cluster: {name} runs already");
        return Ok(());
    }
    refuse_hidden(place, house)?;
    cgroups::check()?;
    let binaries = Binaries::ensure(house, &options.containerd)?;
    // What a crash has left.
    down::run(place)?;
    let start = Instant::now();
    let index = network::reserve(&place.name)?;
    let up = Up { place, options, binaries, backends: house.backends(), index, start };
    if let Err(error) = up.run() {
        // The first error is the one to tell.
        if let Err(second) = down::run(place) {
            eprintln!("cluster: {second:#}");
        }
        let logs = down::old_logs(place);
        return Err(error).with_context(|| {
            format!("the cluster {name} did not start; its logs are in {}", logs.display())
        });
    }
    up.say("ready");
    Ok(())
}

// === impl Up ===

impl Up<'_> {
    fn run(&self) -> anyhow::Result<()> {
        self.write_files()?;
        let mut supervisor = self.start_supervisor()?;
        let supervisor_id = Process::of(i32::try_from(supervisor.id())?)?;
        self.write_record(supervisor_id)?;
        let inner = self.wait("the supervisor", POLL, || {
            ensure!(supervisor.try_wait()?.is_none(), "ended; see supervisor.log");
            Ok(processes::child_of(supervisor_id.pid))
        })?;
        network::connect(self.index, inner)?;
        self.wait("the supervisor's socket", POLL, || {
            ensure!(supervisor.try_wait()?.is_none(), "ended; see supervisor.log");
            Ok(self.place.control_socket().exists().then_some(()))
        })?;
        self.say("namespaces");
        for name in ["etcd", "kube-apiserver", "containerd", "registry"] {
            self.order_start(name)?;
        }
        self.import_images()?;
        let api = format!("{}:{API_PORT}", self.index.node_ip()).parse()?;
        self.wait("the API server's port", POLL, || Ok(connects(api).then_some(())))?;
        for name in ["kubelet", "kube-proxy", "coredns"] {
            self.order_start(name)?;
        }
        self.wait("the API server", SLOW_POLL, || {
            Ok(tools::output(control::kubectl(self.place).args(["get", "--raw", "/readyz"])).ok())
        })?;
        self.say("API server");
        for name in ["kube-controller-manager", "kube-scheduler"] {
            self.order_start(name)?;
        }
        self.apply_manifests()?;
        self.wait_ready()
    }

    fn write_files(&self) -> anyhow::Result<()> {
        let place = self.place;
        for folder in ["conf", "log", "cdi", "static-pods", "volume-plugins", "wick/cache"] {
            create(&place.path(folder))?;
        }
        for folder in OWN_FOLDERS {
            create(&place.own(folder))?;
        }
        pki::make(place, self.index)?;
        let (major, _) = build::major_minor(&self.options.containerd)?;
        let inputs = config::Inputs {
            place,
            index: self.index,
            cni: &self.binaries.cni(),
            shim: &self.options.shim,
            containerd: major,
        };
        tools::write_whole(&place.path(daemons::POLICY), b"default = \"allow\"\n")?;
        for (path, text) in config::files(&inputs) {
            tools::write_whole(&place.path(path), text.as_bytes())?;
        }
        let daemons = daemons::all(&daemons::Inputs {
            place,
            index: self.index,
            binaries: &self.binaries,
            worker: &self.options.worker,
            env: &self.options.env,
            backends: &self.backends,
        });
        let plan = Plan {
            own_folders: OWN_FOLDERS.map(|there| (there.into(), place.own(there))).into(),
            cgroups: cgroups::create(&place.name)?,
            control: place.control_socket(),
            logs: place.path("log"),
            daemons,
        };
        tools::write_whole(&place.plan(), &serde_json::to_vec_pretty(&plan)?)
    }

    /// The program that waits outside, and through it the first process inside.
    fn start_supervisor(&self) -> anyhow::Result<Child> {
        let path = self.place.path("log/supervisor.log");
        let log = fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
        // A copy, since cargo may replace this program while it runs, and its path would
        // then lead to nothing or to another one.
        let program = self.place.path("supervisor");
        fs::copy("/proc/self/exe", &program).context("copy this program")?;
        // A session of its own: the cluster outlives the terminal.
        let mut command = Command::new("setsid");
        command.args(["unshare", "--pid", "--mount", "--net", "--fork", "--kill-child"]);
        command.arg(program).args(["cluster", "supervise"]).arg(self.place.plan());
        command.env_clear().env(MARK, &self.place.folder).env("PATH", self.binaries.path());
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().context("start the supervisor")
    }

    fn write_record(&self, supervisor: Process) -> anyhow::Result<()> {
        let record = Record {
            name: self.place.name.clone(),
            index: self.index,
            supervisor,
            containerd: self.options.containerd.clone(),
            kubernetes: pins::KUBERNETES.to_owned(),
            bin: self.binaries.containerd.clone(),
            programs: self.binaries.programs.clone(),
            shim: self.options.shim.clone(),
        };
        tools::write_whole(&self.place.record(), &serde_json::to_vec_pretty(&record)?)
    }

    /// containerd answers some time after its start, so the first image is tried until then.
    fn import_images(&self) -> anyhow::Result<()> {
        for (reference, program) in daemons::images(&self.binaries) {
            let archive = self.place.path("image.tar");
            let name = program.file_name().context("a program without a name")?;
            let path = format!("/{}", name.to_string_lossy());
            Image::new(reference).program(&path, &program)?.entrypoint(&[&path]).write(&archive)?;
            self.wait("containerd", POLL, || {
                let mut ctr = control::ctr(self.place, &self.binaries.containerd);
                if !self.place.containerd_socket().exists() {
                    return Ok(None);
                }
                Ok(tools::output(ctr.args(["images", "import"]).arg(&archive)).ok())
            })?;
            fs::remove_file(&archive)?;
        }
        Ok(())
    }

    fn apply_manifests(&self) -> anyhow::Result<()> {
        let path = self.place.path("conf/manifests.yaml");
        tools::write_whole(&path, daemons::manifests().as_bytes())?;
        let mut create = control::kubectl(self.place);
        tools::output(create.args(["create", "--validate=false", "-f"]).arg(path)).map(drop)
    }

    fn wait_ready(&self) -> anyhow::Result<()> {
        let ask = |args: &[&str]| tools::output(control::kubectl(self.place).args(args)).ok();
        self.wait("the node", SLOW_POLL, || {
            let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status} {.spec.taints}";
            let answer = ask(&["get", "node", NODE, "-o", path]);
            // A taint stays for a moment after the node is ready, and keeps pods away.
            Ok(answer.filter(|answer| answer.trim_end() == "True"))
        })?;
        self.say("node");
        self.wait("the default service account", SLOW_POLL, || {
            Ok(ask(&["get", "serviceaccount", "default", "-o", "name"]))
        })?;
        let dns = format!("{}:{DNS_READY_PORT}", self.index.node_ip()).parse()?;
        self.wait("CoreDNS", POLL, || {
            let answer = http::send(dns, "/ready", None);
            Ok(answer.is_ok_and(|answer| answer.status == 200).then_some(()))
        })
    }

    fn order_start(&self, name: &str) -> anyhow::Result<()> {
        control::order(self.place, &format!("start {name}"))
    }

    /// Look until there is something.
    fn wait<T>(
        &self,
        what: &str,
        pause: Duration,
        mut look: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            if let Some(found) = look().with_context(|| what.to_owned())? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("{what} was not ready within {} s", STEP_TIMEOUT.as_secs());
            }
            sleep(pause);
        }
    }

    fn say(&self, what: &str) {
        let (name, seconds) = (self.place.name.as_str(), self.start.elapsed().as_secs_f64());
        eprintln!("cluster: {name}: {what} ({seconds:.1} s)");
    }
}

/// The cluster's own folders stand over the machine's, so nothing that it needs may lie there.
fn refuse_hidden(place: &Place, house: &House) -> anyhow::Result<()> {
    for path in [&place.folder, &house.cache, &house.target] {
        for hidden in OWN_FOLDERS {
            ensure!(
                !path.starts_with(hidden),
                "{} is below {hidden}, which a cluster has of its own: \
                 set WICK_CLUSTER_DIR, XDG_CACHE_HOME or CARGO_TARGET_DIR to another place",
                path.display()
            );
        }
    }
    Ok(())
}

fn connects(addr: SocketAddr) -> bool {
    TcpStream::connect_timeout(&addr, SLOW_POLL).is_ok()
}

fn create(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))
}
