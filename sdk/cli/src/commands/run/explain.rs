//! `wick run --explain`: where each graph runs, and why nowhere else.

use std::process::ExitCode;

use serde_json::json;
use wick_nn::{DeviceUse, Explanation, Nn};
use wick_package::Package;

use super::RunArgs;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::host;
use crate::output::{self, Format};

/// Load every graph of every package as serving would, say where it runs, and end. The code
/// is that of success only if all can run.
pub(super) fn run(args: &RunArgs, format: Format) -> Outcome<ExitCode> {
    let nn = args.host.nn()?;
    let cpus = args.host.nn_settings().cpus;
    let mut explained = Vec::new();
    for path in &args.packages {
        let package = args.policy.open(path)?;
        let graphs = host::block_on(cpus, async { Ok(graphs(&nn, &package).await) })?;
        explained.push((package.manifest().name.to_string(), graphs));
    }
    for (package, graphs) in &explained {
        match format {
            Format::Json => output::json(&json!({ "package": package, "graphs": graphs })),
            _ => graphs.iter().for_each(|graph| output::line(text(package, graph))),
        }
    }
    let all = explained.iter().flat_map(|(_, graphs)| graphs).all(|graph| graph.used.is_some());
    Ok(if all { ExitCode::SUCCESS } else { Exit::Unavailable.into() })
}

async fn graphs(nn: &Nn, package: &Package) -> Vec<Explanation> {
    let mut explained = Vec::new();
    for spec in &package.manifest().graphs {
        explained.push(nn.explain(spec, &|path| host::source(package, path)).await);
    }
    explained
}

/// A few lines for people.
fn text(package: &str, graph: &Explanation) -> String {
    let kinds: Vec<_> = graph.wanted.iter().map(|kind| kind.as_str()).collect();
    let outcome = match (&graph.used, &graph.error) {
        (Some(used), _) => format!("runs on {}", place(used)),
        (None, Some(error)) => format!("can't run: {error}"),
        (None, None) => "can't run".to_owned(),
    };
    let mut text =
        format!("{package}/{}: {outcome}\n  permits {}", graph.graph, kinds.join(", then "));
    for refusal in &graph.refused {
        text.push_str(&format!("\n  not {}: {}", refusal.what, refusal.why));
    }
    text
}

fn place(used: &DeviceUse) -> String {
    let share = used.share * 100.0;
    format!("{}, {} {}, {share:.0} % of its nodes", used.device, used.backend, used.backend_version)
}
