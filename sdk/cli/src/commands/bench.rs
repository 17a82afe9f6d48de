//! `wick bench`: how fast a server or a package answers, and whether batching pays.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use wick_engine::Grants;
use wick_package::{Batch, Manifest};

use crate::bench::{self, Plan, Report};
use crate::client::RemoteArgs;
use crate::failure::{Failure, Outcome};
use crate::host::{self, HostArgs};
use crate::input::{Fill, InputArgs};
use crate::output::{self, Format};
use crate::quantity;
use crate::target::{self, Call, Target};

/// Steps of the progress bar.
const STEPS: u64 = 100;

/// Batching that is tried for graphs that write none: what wick.toml's documentation
/// proposes.
const TRIED: Batch = Batch {
    max: match NonZeroU32::new(16) {
        Some(max) => max,
        None => NonZeroU32::MIN,
    },
    delay: Duration::from_millis(2),
};

/// A gain below this is noise.
const WORTHWHILE: f64 = 1.1;

/// Put load on a server or a package and measure it
///
/// Each of the concurrent callers sends its next request when the last was answered. Inputs that
/// are not given are made up by the model's metadata.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick bench http://localhost:8080 filetype -c 16 -i bytes=@report.pdf
  wick bench ./classifier -d 30s
  wick bench ./ranker -c 32 --batch      does joining requests pay?")]
pub struct BenchArgs {
    /// http://HOST:PORT, http://HOST:PORT/v2/models/NAME, or a package
    target: String,
    /// The model's name, if the server has several
    model: Option<String>,
    /// Requests at once
    #[arg(short, long, default_value = "1", value_name = "N")]
    concurrency: NonZeroU32,
    /// How long
    #[arg(short, long, default_value = "10s", value_name = "TIME",
          value_parser = quantity::duration)]
    duration: Duration,
    /// End after so many requests
    #[arg(short = 'n', long, value_name = "N")]
    requests: Option<u64>,
    /// How long to send requests before measuring
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = quantity::duration)]
    warmup: Duration,
    /// Measure a package with and without batching
    #[arg(long)]
    batch: bool,
    #[command(flatten)]
    input: InputArgs,
    /// Make inputs up of random numbers instead of zeros
    #[arg(long)]
    random: bool,
    /// Shape of an input that is made up; open dimensions are 1 otherwise
    #[arg(long, value_name = "NAME=1,2,…", value_parser = shape)]
    shape: Vec<(String, Vec<u64>)>,
    /// Send and ask for tensors as JSON instead of binary data
    #[arg(long)]
    no_binary: bool,
    /// Longest wait for one answer
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::duration)]
    timeout: Duration,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    host: HostArgs,
}

pub fn run(args: &BenchArgs, format: Format) -> Outcome {
    let cpus = args.host.nn_settings().cpus;
    match args.batch {
        true => host::block_on(cpus, batching(args, format)),
        false => host::block_on(cpus, plain(args, format)),
    }
}

async fn plain(args: &BenchArgs, format: Format) -> Outcome {
    let model = args.model.as_deref();
    let target = Target::open(&args.target, model, &args.host, &args.remote, args.timeout).await?;
    let call = prepare(args, &target)?;
    let report = measure(args, &target, &call, "measuring", format).await?;
    match format {
        Format::Json => {
            let mut json = serde_json::to_value(&report).unwrap_or_default();
            json["target"] = args.target.clone().into();
            json["model"] = target.model().into();
            output::json(&json);
        }
        _ => output::line(table(&[(target.model(), &report)])),
    }
    Ok(())
}

/// Measure a package twice, with batching and without.
async fn batching(args: &BenchArgs, format: Format) -> Outcome {
    if target::is_url(&args.target) {
        return Err(Failure::usage("--batch needs a package, not a server")
            .help("batching is set when a package is loaded: wick bench PACKAGE --batch"));
    }
    let host = args.host.host()?;
    let mut reports = Vec::new();
    for batch in [false, true] {
        let package = host::open(Path::new(&args.target))?;
        let manifest = with_batching(package.manifest().clone(), batch);
        let model = host.load(package.with_manifest(manifest), Grants::default()).await?;
        let target = Target::local(model, args.timeout)?;
        let call = prepare(args, &target)?;
        let what = if batch { "with batching" } else { "without batching" };
        reports.push(measure(args, &target, &call, what, format).await?);
    }
    let [without, with] = &reports[..] else {
        return Err(Failure::usage("nothing was measured"));
    };
    let gain = with.per_second / without.per_second.max(f64::MIN_POSITIVE);
    match format {
        Format::Json => output::json(&json!({
            "target": args.target, "without": without, "with": with, "gain": gain,
            "pays": gain >= WORTHWHILE,
        })),
        _ => {
            output::line(table(&[("without batching", without), ("with batching", with)]));
            output::line(verdict(gain, args.concurrency.get()));
        }
    }
    Ok(())
}

fn with_batching(mut manifest: Manifest, on: bool) -> Manifest {
    for graph in &mut manifest.graphs {
        graph.batch = on.then(|| graph.batch.unwrap_or(TRIED));
    }
    manifest
}

fn verdict(gain: f64, concurrency: u32) -> String {
    let what = if gain >= WORTHWHILE {
        "batching pays: keep or write `batch = { max = 16, delay = \"2ms\" }`"
    } else {
        "batching does not pay: leave it off"
    };
    let hint = if concurrency < 8 { "; it joins concurrent requests, so try -c 32" } else { "" };
    format!("\n{gain:.2} times the throughput at {concurrency} at once: {what}{hint}")
}

fn prepare(args: &BenchArgs, target: &Target) -> Outcome<Call> {
    let mut fill = Fill::new(args.random, args.shape.clone());
    let request = args.input.request(target.inputs(), Some(&mut fill))?;
    Ok(target.prepare(request, !args.no_binary))
}

async fn measure(
    args: &BenchArgs,
    target: &Target,
    call: &Call,
    what: &str,
    format: Format,
) -> Outcome<Report> {
    // The first answer is looked into: a wrong request should fail with its reason.
    target.infer(call).await?;
    let concurrency = args.concurrency.get() as usize;
    let template = format!("{what} [{{bar:32}}] {{msg}}");
    let bar = output::progress(format, Some(STEPS), &template);
    if !args.warmup.is_zero() {
        let plan = Plan { concurrency, duration: args.warmup, requests: args.requests };
        bench::load(target, call, plan, &output::progress(Format::Json, None, "")).await?;
    }
    let plan = Plan { concurrency, duration: args.duration, requests: args.requests };
    bench::load(target, call, plan, &bar).await
}

fn table(reports: &[(&str, &Report)]) -> String {
    let header = ["", "REQUESTS", "PER SECOND", "P50", "P90", "P99", "MAX", "CPU", "ERRORS"];
    let mut table = output::table(header);
    for (name, report) in reports {
        let ms = |value: f64| format!("{value:.2} ms");
        let latency = &report.latency_ms;
        let errors = report.errors.iter().map(|(what, count)| format!("{count} x {what}"));
        let errors: Vec<_> = errors.collect();
        table.add_row([
            (*name).to_owned(),
            report.requests.to_string(),
            format!("{:.1}", report.per_second),
            ms(latency.p50),
            ms(latency.p90),
            ms(latency.p99),
            ms(latency.max),
            report.cpu_ms_per_request.map_or_else(|| "-".to_owned(), ms),
            if errors.is_empty() { "none".to_owned() } else { errors.join(", ") },
        ]);
    }
    table.trim_fmt()
}

pub fn shape(text: &str) -> Result<(String, Vec<u64>), String> {
    let wrong = "write NAME=SIZE,SIZE,…, for instance image=1,3,224,224";
    let (name, sizes) = text.split_once('=').ok_or(wrong)?;
    let sizes: Option<Vec<u64>> = sizes.split(',').map(|size| size.trim().parse().ok()).collect();
    Ok((name.to_owned(), sizes.ok_or(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_names_and_sizes() {
        assert_eq!(shape("x=1,3"), Ok(("x".into(), vec![1, 3])));
        for bad in ["x", "x=", "x=1,-1", "x=a"] {
            assert!(shape(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_verdict_says_what_to_write() {
        assert!(verdict(2.5, 32).contains("keep or write"));
        assert!(verdict(1.02, 2).contains("leave it off; it joins"));
    }
}
