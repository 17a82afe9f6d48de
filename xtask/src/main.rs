//! The project's own tools: `cargo xtask NAME`. Each command is one file; what it needs
//! from the machine is said before it is used, and nothing is written outside
//! `~/.cache/wick`, the target folder, and the ignored files of `examples/`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its commands talk to people: results on standard output, progress beside it"
)]

mod arm64;
mod bench;
mod chart;
mod clients;
mod cluster;
mod counted;
mod crd;
mod debian;
mod demo;
mod devices;
mod e2e;
mod examples;
mod fleet;
mod fuzz;
mod gitops;
mod go;
mod grpcurl;
mod guests;
mod house;
mod http;
mod image;
mod import;
mod lock;
mod models;
mod mqtt;
mod onnx;
mod onnxruntime;
mod page;
mod pip;
mod registry;
mod report;
mod server;
mod setup;
mod shim;
mod test;
mod tidy;
mod tools;
mod traces;

use std::process::ExitCode;

use anyhow::bail;

use crate::house::House;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup               fetch models and ONNX Runtime, build guests, fill examples/
  models              only the models
  guests              only the guests
  test [--cluster] [NAME]
                      setup, then every check and test (or the tests named like NAME);
                      --cluster adds those that install packages or need root;
                      `test devices` compares providers with the CPU, and nothing else
  demo [--serve]      serve the examples and call them; --serve keeps them up
  demo fleet [--sites NUMBER]
                      a hub, its broker and twenty agents: a version in waves, a bad one back
  bench NAME [BAR...] measure; `bench runtime` has the bars of the runtime
  fuzz [TARGET] [--seconds N]
                      search for inputs that break a parser's rules
  tidy                the house rules
  crd                 write deploy/crds from the types of controller/api
  chart [--write]     lint and render deploy/chart; --write writes the kustomize base from it
  image [-o FILE] [--name REFERENCE] [--wick FILE]
                      an OCI image of wick for operator and activator, as a tar
  clients             call the examples with clients of other servers
  mqtt [NAME]         paho devices against nodes over a real mosquitto
  fleet [NAME]        agents over a real mosquitto and a real registry
  import [NAME]       `wick import` from real servers: MLflow, S3, GCS
  registry [NAME]     push to and pull from a real registry (Debian's docker-registry)
  page                the page of a server in a real browser (Debian's chromium)
  cluster up|down|status|env|exec
                      a Kubernetes cluster of one node; `cluster help` says more
  e2e SUITE [NAME] [--containerd VERSION]
                      start a cluster, run the tests e2e/tests/SUITE*.rs in it, stop it
  arm64               cross-build and answer one request under qemu-user
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Cargo starts it in rustc's place when it builds the fuzzer.
    let done = if fuzz::is_compiler(&args) { Err(fuzz::compile(&args)) } else { run(&args) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> anyhow::Result<()> {
    let Some((command, rest)) = args.split_first() else {
        bail!("no command given\n\n{USAGE}");
    };
    if matches!(command.as_str(), "help" | "-h" | "--help") {
        print!("{USAGE}");
        return Ok(());
    }
    // The first process of a cluster runs where neither cargo nor the tree may be.
    if command == "cluster" && rest.first().is_some_and(|verb| verb == "supervise") {
        return cluster::supervise(rest);
    }
    let house = House::find()?;
    match command.as_str() {
        "setup" => setup::run(&house),
        "models" => lock::hold(&house).and_then(|_lock| models::fetch(&house)),
        "guests" => guests::build(&house),
        "test" => test::run(&house, &test::Options::parse(rest)?),
        "demo" => demo::run(&house, rest),
        "bench" => bench::run(&house.optimised(), rest),
        "fuzz" => fuzz::run(&house, rest),
        "tidy" => tidy::run(&house),
        "crd" => crd::run(&house),
        "chart" => chart::run(&house, rest),
        "image" => image::run(&house, rest),
        "clients" => {
            setup::run(&house)?;
            bench::build(&house)?;
            clients::run(&house).map(|counts| println!("{counts}"))
        }
        "mqtt" => {
            setup::run(&house)?;
            bench::build(&house)?;
            let counts = mqtt::run(&house, rest.first().map(String::as_str))?;
            anyhow::ensure!(counts.failed == 0 && counts.passed > 0, "{counts}");
            Ok(())
        }
        "fleet" => {
            let counts = fleet::run(&house, rest.first().map(String::as_str))?;
            anyhow::ensure!(counts.failed == 0 && counts.passed > 0, "{counts}");
            println!("{counts}");
            Ok(())
        }
        "import" => {
            setup::run(&house)?;
            bench::build(&house)?;
            let counts = import::run(&house, rest.first().map(String::as_str))?;
            anyhow::ensure!(counts.failed == 0 && counts.passed > 0, "{counts}");
            Ok(())
        }
        "registry" => {
            let counts = registry::run(&house, rest.first().map(String::as_str))?;
            anyhow::ensure!(counts.failed == 0 && counts.passed > 0, "{counts}");
            println!("{counts}");
            Ok(())
        }
        "page" => {
            setup::run(&house)?;
            bench::build(&house)?;
            let counts = page::run(&house, rest.iter().any(|arg| arg == "--install"))?;
            anyhow::ensure!(counts.failed == 0 && counts.passed > 0, "{counts}");
            Ok(())
        }
        "cluster" => cluster::run(&house, rest),
        "e2e" => e2e::run(&house, rest),
        "arm64" => arm64::run(&house, rest.iter().any(|arg| arg == "--install")),
        other => bail!("there is no command `{other}`\n\n{USAGE}"),
    }
}
