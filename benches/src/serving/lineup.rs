//! All servers at once, each with the same models, so that their turns can alternate.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::packages;
use crate::server;
use crate::setup::Setup;

use super::connection::{Connection, Target};
use super::peers;
use super::process::{self, Process};
use super::question::{Protocol, Question, TINY};

/// How long a server that is ready may refuse gRPC: it has two listeners.
const GRPC_TIMEOUT: Duration = Duration::from_secs(20);

/// wick with a package without code, and with a handler that only forwards.
pub const WICK: &str = "wick";
pub const HANDLER: &str = "wick-handler";
pub const TRITON: &str = "triton";
pub const PYTHON: [&str; 2] = ["mlserver", "kserve"];

/// A server under a name in the results. Both names of wick are one process.
pub struct Contender {
    pub name: &'static str,
    process: usize,
    /// What it adds to a model's name.
    suffix: &'static str,
    protocols: &'static [Protocol],
}

pub struct Lineup {
    processes: Vec<Process>,
    pub contenders: Vec<Contender>,
}

// === impl Contender ===

impl Contender {
    /// Only the smallest model has a handler.
    pub fn serves(&self, question: &Question) -> bool {
        self.name != HANDLER || question.name == TINY
    }
}

// === impl Lineup ===

impl Lineup {
    /// Start wick and its peers.
    pub fn start(setup: &Setup, questions: &[Question]) -> anyhow::Result<Self> {
        let mut packages = Vec::new();
        for question in questions {
            packages.push(packages::passthrough(setup, question.name, &question.model, 1)?);
        }
        let all = &Protocol::ALL[..];
        // MLServer does not know the binary tensor extension.
        let no_binary = &[Protocol::Json, Protocol::Grpc][..];
        let contender =
            |name, process, protocols| Contender { name, process, suffix: "", protocols };
        let mut contenders = vec![contender(WICK, 0, all)];
        if let Some(tiny) = questions.iter().find(|question| question.name == TINY) {
            packages.push(packages::tiny_relay(setup, &tiny.model)?);
            contenders.push(Contender { suffix: "-handler", ..contender(HANDLER, 0, all) });
        }
        contenders.push(contender(PYTHON[0], 1, no_binary));
        contenders.push(contender(PYTHON[1], 2, all));
        contenders.push(contender(TRITON, 3, all));
        eprintln!("start wick, MLServer, KServe and Triton");
        let mut processes = vec![
            wick(setup, &packages)?,
            peers::mlserver(setup, questions)?,
            peers::kserve(setup, questions)?,
            peers::triton(setup, questions)?,
        ];
        for process in &mut processes {
            for question in questions {
                process.wait_ready(question.name).with_context(|| logs(setup))?;
            }
        }
        let lineup = Self { processes, contenders };
        for question in questions {
            lineup.check(question).with_context(|| logs(setup))?;
        }
        Ok(lineup)
    }

    /// Those that can be asked by a protocol.
    pub fn with(&self, protocol: Protocol) -> impl Iterator<Item = &Contender> {
        self.contenders.iter().filter(move |contender| contender.protocols.contains(&protocol))
    }

    pub fn pid(&self, contender: &Contender) -> u32 {
        self.processes[contender.process].pid()
    }

    pub fn target(&self, contender: &Contender, ask: &Question, protocol: Protocol) -> Target {
        let process = &self.processes[contender.process];
        let addr = if protocol == Protocol::Grpc { process.grpc } else { process.http };
        let request = ask.request(protocol, &format!("{}{}", ask.name, contender.suffix));
        Target { addr, protocol, request }
    }

    /// Each server must answer each request rightly before anything is timed.
    fn check(&self, question: &Question) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for &protocol in question.protocols {
            for contender in self.with(protocol) {
                if !contender.serves(question) {
                    continue;
                }
                let target = self.target(contender, question, protocol);
                runtime.block_on(check(&target, question)).with_context(|| {
                    format!("{}, {} by {}", contender.name, question.name, protocol.name())
                })?;
            }
        }
        Ok(())
    }
}

async fn check(target: &Target, question: &Question) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut connection = loop {
        match Connection::open(target).await {
            Ok(connection) => break connection,
            Err(error) if start.elapsed() > GRPC_TIMEOUT => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    question.check(&connection.ask().await?.values(target.protocol)?)
}

/// `wick run` with both protocols on one port.
pub fn wick(setup: &Setup, packages: &[PathBuf]) -> anyhow::Result<Process> {
    let [port] = process::free_ports()?;
    let packages: Vec<&Path> = packages.iter().map(PathBuf::as_path).collect();
    let mut command = server::command(setup, &packages, &format!("127.0.0.1:{port}"));
    let log = setup.folder("logs")?.join("wick.log");
    Process::start("wick", &mut command, &log, [port, port])
}

/// What the servers have said, for an error: their logs end with the scratch folder.
fn logs(setup: &Setup) -> String {
    let mut text = String::new();
    for name in ["wick", "mlserver", "kserve", "triton"] {
        let log = setup.scratch.path().join("logs").join(format!("{name}.log"));
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        text.push_str(&format!("--- {name}\n{last}\n"));
    }
    text
}
