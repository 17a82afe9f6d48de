//! Logs on stderr, for people or for machines, and spans to a collector. `RUST_LOG` has
//! the last word on the logs.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

use crate::failure::{Failure, Outcome};
use crate::output;
use crate::traces::Traces;

/// Libraries whose spans would be part of every line that a guest prints.
const QUIET: &str = "wasmtime_wasi=warn";

/// Where the spans of requests are made.
const SPANS: &str = "wick_serve";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

/// Start logging at `level`, a filter as in `RUST_LOG`, and send spans to `traces`.
///
/// # Errors
/// The filter is malformed.
pub fn init(format: LogFormat, level: &str, traces: Option<&Traces>) -> Outcome {
    init_to(format, level, output::coloured(), traces, std::io::stderr)
}

/// Like [`init`], to a writer that gets each line whole.
///
/// # Errors
/// The filter is malformed.
pub fn init_to<W>(
    format: LogFormat,
    level: &str,
    coloured: bool,
    traces: Option<&Traces>,
    writer: W,
) -> Outcome
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let from_env = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.is_empty());
    let by_flag = format!("{QUIET},{level}");
    let text = from_env.as_deref().unwrap_or(&by_flag);
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::usage(format_args!("`{text}` is not a log filter: {error}"))
            .help("write a level (error, warn, info, debug, trace) or target=level,…")
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_timer(SystemTime)
        .with_ansi(coloured);
    let lines = match format {
        LogFormat::Human => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    // What is exported does not depend on how much is logged.
    let spans = traces.map(|traces| {
        let ours = Targets::new().with_target(SPANS, LevelFilter::DEBUG);
        tracing_opentelemetry::layer::<Registry>()
            .with_tracer(traces.tracer())
            .with_location(false)
            .with_threads(false)
            .with_filter(ours)
            .boxed()
    });
    let mut layers = vec![lines];
    layers.extend(spans);
    tracing_subscriber::registry().with(layers).init();
    Ok(())
}
