//! Logs on stderr, for people or for machines. `RUST_LOG` has the last word.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::failure::{Failure, Outcome};
use crate::output;

/// Libraries whose spans would be part of every line that a guest prints.
const QUIET: &str = "wasmtime_wasi=warn";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

/// Start logging at `level`, a filter as in `RUST_LOG`.
///
/// # Errors
/// The filter is malformed.
pub fn init(format: LogFormat, level: &str) -> Outcome {
    init_to(format, level, output::coloured(), std::io::stderr)
}

/// Like [`init`], to a writer that gets each line whole.
///
/// # Errors
/// The filter is malformed.
pub fn init_to<W>(format: LogFormat, level: &str, coloured: bool, writer: W) -> Outcome
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
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_timer(SystemTime)
        .with_ansi(coloured);
    match format {
        LogFormat::Human => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
