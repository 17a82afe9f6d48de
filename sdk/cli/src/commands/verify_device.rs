//! `wick verify-device`: whether a device answers as the CPU does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;
use wick_nn::providers::insisted;
use wick_nn::{GraphHandle, Nn, Tensor};
use wick_package::{DeviceKind, GraphSpec, Package};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::host::{self, HostArgs};
use crate::input::Fill;
use crate::output::{self, Format};
use crate::tolerance::Difference;

/// Inferences that are timed on each device; the quickest counts.
const TIMED: u32 = 10;

/// Run each graph of a package on a device and on the CPU, and compare
///
/// Inputs are made up, the same each time. Floats may differ by a part of the output's largest
/// value: 0.002 for FP32, 0.02 for FP16 and BF16, 0.000001 for FP64; INT8 and UINT8 by one step;
/// everything else must be the same. All of a graph must run on the device, or the part that its
/// `min_device_share` says. On `cpu` the provider that a graph insists on by its `backend` is
/// compared with ONNX Runtime itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick verify-device ./ocr --device gpu
  wick verify-device ./ocr --device gpu --shape x=1,3,64,320 --output json")]
pub struct VerifyDeviceArgs {
    /// A package directory, an OCI layout, or its tar
    #[arg(value_name = "PACKAGE", default_value = ".")]
    package: PathBuf,
    /// Which kind of device
    #[arg(long, value_name = "gpu|npu|cpu", default_value = "gpu", value_parser = kind)]
    device: DeviceKind,
    /// Sizes for an input's open dimensions; others are 1
    #[arg(long, value_name = "NAME=1,2,…", value_parser = super::bench::shape)]
    shape: Vec<(String, Vec<u64>)>,
    #[command(flatten)]
    host: HostArgs,
}

/// What was found of one graph.
#[derive(Debug, Serialize)]
struct Verdict {
    graph: String,
    provider: String,
    share: f32,
    cpu_ms: f64,
    device_ms: f64,
    outputs: Vec<Compared>,
}

#[derive(Debug, Serialize)]
struct Compared {
    name: String,
    datatype: String,
    #[serde(flatten)]
    difference: Difference,
    within: bool,
}

pub fn run(args: &VerifyDeviceArgs, format: Format) -> Outcome {
    let package = host::open(&args.package)?;
    let nn = args.host.nn()?;
    let cpus = args.host.nn_settings().cpus;
    let verdicts = host::block_on(cpus, verify(args, &package, &nn))?;
    report(&verdicts, format);
    let wrong = |verdict: &&Verdict| verdict.outputs.iter().any(|output| !output.within);
    let wrong: Vec<_> = verdicts.iter().filter(wrong).map(|v| v.graph.as_str()).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let text = format!("the {} answers otherwise than the CPU: {}", args.device, wrong.join(", "));
    Err(Failure::new(Exit::Failure, "device-differs", text))
}

async fn verify(args: &VerifyDeviceArgs, package: &Package, nn: &Nn) -> Outcome<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for spec in &package.manifest().graphs {
        let provider = insisted(spec);
        if args.device == DeviceKind::Cpu && provider.is_none() {
            let graph = &spec.name;
            let why = format!(
                "graph `{graph}` runs on the CPU anyway: write `backend = \"PROVIDER\"` in its table for a \
                 provider to compare, or use `--device gpu` or `--device npu`"
            );
            return Err(Failure::usage(why));
        }
        // A provider is compared with what ONNX Runtime itself answers.
        let backend = spec.backend.clone().filter(|_| provider.is_none());
        let plain = GraphSpec { backend, ..spec.clone() };
        let on_cpu = load(nn, package, &plain, DeviceKind::Cpu).await?;
        let on_device = load(nn, package, spec, args.device).await?;
        let mut fill = Fill::new(true, args.shape.clone());
        let inputs =
            on_cpu.inputs().iter().map(|input| Ok((input.name.clone(), fill.tensor(input)?)));
        let inputs: Vec<_> = inputs.collect::<Result<_, String>>().map_err(Failure::usage)?;
        let (expected, cpu) = timed(&on_cpu, &inputs).await?;
        let (found, device) = timed(&on_device, &inputs).await?;
        let outputs = expected.iter().zip(&found).map(|((name, cpu), (_, device))| {
            let difference = Difference::between(cpu, device);
            let datatype = cpu.datatype().to_string();
            Compared { name: name.clone(), datatype, difference, within: difference.is_within() }
        });
        verdicts.push(Verdict {
            graph: spec.name.to_string(),
            provider: on_device.device().device.provider.clone(),
            share: on_device.device().share,
            cpu_ms: cpu.as_secs_f64() * 1e3,
            device_ms: device.as_secs_f64() * 1e3,
            outputs: outputs.collect(),
        });
    }
    Ok(verdicts)
}

async fn load(
    nn: &Nn,
    package: &Package,
    spec: &GraphSpec,
    kind: DeviceKind,
) -> Outcome<GraphHandle> {
    let spec = GraphSpec { devices: vec![kind], batch: None, ..spec.clone() };
    let loaded = nn.load(&spec, &|path| host::source(package, path)).await;
    loaded.map_err(|error| Failure::of(&error))
}

type Named = Vec<(String, Tensor)>;

/// The answer, and how long the quickest of several took. The first, in which a device may
/// compile, is not timed.
async fn timed(graph: &GraphHandle, inputs: &Named) -> Outcome<(Named, Duration)> {
    let failed = |error: wick_nn::InferError| Failure::of(&error);
    let answer = graph.infer(inputs.clone()).await.map_err(failed)?;
    let mut quickest = Duration::MAX;
    for _ in 0..TIMED {
        let start = Instant::now();
        graph.infer(inputs.clone()).await.map_err(failed)?;
        quickest = quickest.min(start.elapsed());
    }
    Ok((answer, quickest))
}

fn report(verdicts: &[Verdict], format: Format) {
    if format == Format::Json {
        output::json(&json!({ "graphs": verdicts }));
        return;
    }
    let header =
        ["GRAPH", "PROVIDER", "SHARE", "CPU MS", "MS", "OUTPUT", "TYPE", "APART", "ALLOWED", "OK"];
    let mut table = output::table(header);
    for verdict in verdicts {
        for output in &verdict.outputs {
            table.add_row([
                verdict.graph.clone(),
                verdict.provider.clone(),
                format!("{:.2}", verdict.share),
                format!("{:.2}", verdict.cpu_ms),
                format!("{:.2}", verdict.device_ms),
                output.name.clone(),
                output.datatype.clone(),
                format!("{:.1e}", output.difference.largest),
                format!("{:.1e}", output.difference.allowed),
                if output.within { "yes" } else { "no" }.to_owned(),
            ]);
        }
    }
    output::line(table.trim_fmt());
}

fn kind(text: &str) -> Result<DeviceKind, String> {
    let kind = DeviceKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    kind.ok_or_else(|| {
        "use `gpu`, `npu`, or `cpu` for a provider that a graph insists on".to_owned()
    })
}
