//! What the activator costs when it must stay between clients and pods.
//!
//! ```text
//!  client ─────────────────▶ wick run        turn by turn, so that what slows the machine for a
//!  client ──▶ activator ───▶ wick run        while slows all
//!  client ──▶ relay ───────▶ wick run        copies bytes: what any process between costs
//! ```

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::bar;
use crate::direct::Floor;
use crate::packages;
use crate::server::Server;
use crate::serving::closed::{self, Slice};
use crate::serving::connection::{Connection, Target};
use crate::serving::question::{Protocol, Question};
use crate::serving::{cpu, machine};
use crate::setup::Setup;
use crate::stats::{median, round};

use super::relay::Relay;

pub const P99: &str = "activator-p99-ms";
pub const THROUGHPUT: &str = "activator-throughput-ratio";

/// Turns of each way, and how long one is: long enough for a percentile of 99, short enough that
/// what else the machine does meets both ways of a round.
const ROUNDS: usize = 15;
const SLICE: Duration = Duration::from_millis(700);

/// Connections for the throughput.
const MANY: usize = 16;

/// An activator as a process of its own, before one pod.
struct Activator {
    child: Child,
    addr: SocketAddr,
}

/// What requests go to.
struct Ways {
    server: Server,
    activator: Activator,
    relay: Relay,
}

/// One case: a model, a protocol, a number of connections.
struct Case<'a> {
    question: &'a Question,
    protocol: Protocol,
    concurrency: usize,
}

/// A turn of each way.
struct Round {
    direct: Slice,
    through: Slice,
    relay: Slice,
    /// Processor time of the activator for a request.
    activator_ms: f64,
}

/// Both bars, or the one that is named.
pub fn run(setup: &Setup, only: &[String]) -> anyhow::Result<()> {
    let asked = |bar: &str| only.is_empty() || only.iter().any(|one| one == bar);
    let floor = Floor::new(&setup.onnxruntime)?;
    let about = machine()?;
    let questions = [Question::tiny(setup, &floor)?, Question::large(setup, &floor)?];
    let mut made = Vec::new();
    for question in &questions {
        made.push(packages::passthrough(setup, question.name, &question.model, 1)?);
    }
    let paths: Vec<_> = made.iter().map(PathBuf::as_path).collect();
    let server = Server::start(setup, &paths)?;
    let activator = Activator::start(setup, server.addr)?;
    let relay = Relay::start(server.addr)?;
    let ways = Ways { server, activator, relay };
    if asked(P99) {
        let [tiny, _] = &questions;
        let cases = measure(&ways, &[tiny], 1)?;
        let added = |rounds: &[Round]| {
            middle(rounds, |round| round.through.p99_ms)
                - middle(rounds, |round| round.direct.p99_ms)
        };
        let worst = cases.iter().map(|(_, rounds)| added(rounds)).fold(f64::MIN, f64::max);
        bar::report(P99, worst, "ms", detail(&cases, &about));
    }
    if asked(THROUGHPUT) {
        let [tiny, large] = &questions;
        let cases = measure(&ways, &[tiny, large], MANY)?;
        let ratio = |rounds: &[Round]| {
            middle(rounds, |round| round.through.per_second / round.direct.per_second)
        };
        // Of the smallest model the detail tells, and the relay beside it what is to be had: its
        // inference is nothing, so client, server and whatever is between divide the cores.
        let real = cases.iter().filter(|(case, _)| case.question.name == large.name);
        let worst = real.map(|(_, rounds)| ratio(rounds)).fold(f64::MAX, f64::min);
        bar::report(THROUGHPUT, worst, "ratio", detail(&cases, &about));
    }
    Ok(())
}

fn measure<'a>(
    ways: &Ways,
    questions: &[&'a Question],
    concurrency: usize,
) -> anyhow::Result<Vec<(Case<'a>, Vec<Round>)>> {
    let all = questions.iter().flat_map(|question| {
        Protocol::ALL.map(|protocol| (Case { question, protocol, concurrency }, Vec::new()))
    });
    let mut cases: Vec<(Case<'a>, Vec<Round>)> = all.collect();
    for (case, _) in &cases {
        case.check(ways.activator.addr)?;
        case.check(ways.relay.addr)?;
    }
    for number in 1..=ROUNDS {
        eprintln!("scale: concurrency {concurrency}, round {number} of {ROUNDS}");
        for (case, rounds) in &mut cases {
            rounds.push(case.round(ways, number % 2 == 0)?);
        }
    }
    Ok(cases)
}

fn middle(rounds: &[Round], value: impl Fn(&Round) -> f64) -> f64 {
    median(&rounds.iter().map(value).collect::<Vec<f64>>())
}

fn detail(cases: &[(Case<'_>, Vec<Round>)], about: &Value) -> Value {
    let one = |(case, rounds): &(Case<'_>, Vec<Round>)| {
        let of = |value: fn(&Round) -> f64| round(middle(rounds, value));
        let figures = json!({
            "direct_per_second": of(|one| one.direct.per_second),
            "through_per_second": of(|one| one.through.per_second),
            "ratio": of(|one| one.through.per_second / one.direct.per_second),
            "relay_ratio": of(|one| one.relay.per_second / one.direct.per_second),
            "of_relay": of(|one| one.through.per_second / one.relay.per_second),
            "direct_p50_ms": of(|one| one.direct.p50_ms),
            "through_p50_ms": of(|one| one.through.p50_ms),
            "relay_p50_ms": of(|one| one.relay.p50_ms),
            "direct_p99_ms": of(|one| one.direct.p99_ms),
            "through_p99_ms": of(|one| one.through.p99_ms),
            "relay_p99_ms": of(|one| one.relay.p99_ms),
            "server_cpu_ms_per_request": of(|one| one.through.cpu_ms),
            "activator_cpu_ms_per_request": of(|one| one.activator_ms),
        });
        (format!("{} {}", case.question.name, case.protocol.name()), figures)
    };
    let cases: serde_json::Map<String, Value> = cases.iter().map(one).collect();
    json!({"machine": about, "rounds": ROUNDS, "cases": cases})
}

// === impl Case ===

impl Case<'_> {
    fn target(&self, addr: SocketAddr) -> Target {
        let request = self.question.request(self.protocol, self.question.name);
        Target { addr, protocol: self.protocol, request }
    }

    /// What is timed must be right.
    fn check(&self, addr: SocketAddr) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reply =
            runtime.block_on(async { Connection::open(&self.target(addr)).await?.ask().await })?;
        self.question.check(&reply.values(self.protocol)?)
    }

    /// A turn of each way, the direct one last if `reversed`: whatever gets slower or faster
    /// meanwhile favours none.
    fn round(&self, ways: &Ways, reversed: bool) -> anyhow::Result<Round> {
        let Ways { server, activator, relay } = ways;
        let turn = |addr| closed::run(&self.target(addr), server.pid(), self.concurrency, SLICE);
        let first = turn(if reversed { relay.addr } else { server.addr })?;
        let pid = activator.child.id();
        let before = cpu::seconds(pid)?;
        let through = turn(activator.addr)?;
        let used = cpu::seconds(pid)? - before;
        let last = turn(if reversed { server.addr } else { relay.addr })?;
        let (direct, relay) = if reversed { (last, first) } else { (first, last) };
        let requests = through.per_second * SLICE.as_secs_f64();
        Ok(Round { direct, through, relay, activator_ms: used * 1e3 / requests })
    }
}

// === impl Activator ===

impl Activator {
    fn start(setup: &Setup, pod: SocketAddr) -> anyhow::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let pods = json!([{"address": pod.to_string(), "ready": true}]);
        let table = json!({"models": [{
            "namespace": "bench", "name": "model", "port": port,
            "hold": true, "maxHeld": 1000, "holdTimeout": "60s",
            "revisions": [{"name": "model-1", "weight": 100, "pods": pods}],
        }]});
        let path = setup.folder("activator")?.join("table.json");
        std::fs::write(&path, table.to_string())?;
        let mut command = Command::new(&setup.wick);
        command.args(["activator", "run", "--bind", "127.0.0.1", "--control", "127.0.0.1:0"]);
        command.args(["--output", "json", "--log-level", "warn", "--table"]).arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().context("start the activator")?;
        let stdout = child.stdout.take().context("the activator has no standard output")?;
        let activator = Self { child, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.contains("control"), "first line of the activator: {line:?}");
        Ok(activator)
    }
}

impl Drop for Activator {
    fn drop(&mut self) {
        // Nothing useful can be done if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
