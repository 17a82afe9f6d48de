//! `wick agent status`: from the agent where it runs, and from its folder otherwise.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use wick_agent::{Home, KeepError, Snapshot};

use super::{StateArgs, keep_failure};
use crate::failure::Outcome;
use crate::output::{self, Format};

/// Longest wait for the agent: it is on this machine.
const WAIT: Duration = Duration::from_secs(2);

/// Longest answer: a report of 64 models has some 20 KiB.
const MAX_ANSWER: u64 = 256 << 10;

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    state: StateArgs,
    /// The control port of the agent
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9090", env = "WICK_CONTROL")]
    control: SocketAddr,
}

pub fn run(args: &StatusArgs, format: Format) -> Outcome {
    let home = Home::at(&args.state.state);
    let site = match home.site() {
        Ok(site) => Some(site),
        // The folder may be another user's.
        Err(KeepError::Io { .. }) => None,
        Err(error) => return Err(keep_failure(&error)),
    };
    let running = ask(args.control);
    let kept = home.kept().ok();
    if format == Format::Json {
        output::json(&json!({
            "site": site.as_ref().map(|site| &site.site),
            "running": running,
            "serving": kept.as_ref().and_then(|kept| kept.serving.as_ref()),
            "wanted": kept.as_ref().and_then(|kept| kept.wanted.as_ref()),
        }));
        return Ok(());
    }
    if let Some(site) = &site {
        output::line(format_args!("site     {}", site.site));
        output::line(format_args!("broker   {}", site.broker));
    }
    match &running {
        None => output::line("agent    does not answer: `wick agent run` starts it"),
        Some(known) => live(known),
    }
    for spec in kept.iter().flat_map(|kept| &kept.serving) {
        output::line(format_args!("serves   generation {}", spec.generation));
        for model in &spec.models {
            output::line(format_args!("         {} {}@{}", model.name, model.image, model.digest));
        }
    }
    Ok(())
}

fn live(known: &Snapshot) {
    let link = match (&known.link.connected, &known.link.error) {
        (true, _) => "connected".to_owned(),
        (false, Some(error)) => format!("not connected: {error}"),
        (false, None) => "not connected yet".to_owned(),
    };
    output::line(format_args!("link     {link}"));
    if let Some(observed) = &known.observed {
        let state = serde_json::to_value(observed.state).unwrap_or_default();
        let state = state.as_str().unwrap_or_default().to_owned();
        let reason = observed.reason.as_ref().map(|reason| format!(" ({reason})"));
        let reason = reason.unwrap_or_default();
        output::line(format_args!(
            "state    {state}{reason}, wants generation {}",
            observed.wanted
        ));
        if let Some(refused) = &observed.refused {
            let (count, text) = (refused.count, &refused.text);
            output::line(format_args!("refused  {count} messages, the last since {text}"));
        }
    }
    for problem in [&known.renewal, &known.disk].into_iter().flatten() {
        output::line(format_args!("problem  {problem}"));
    }
}

/// What the agent says of itself, if it answers.
fn ask(control: SocketAddr) -> Option<Snapshot> {
    let mut stream = TcpStream::connect_timeout(&control, WAIT).ok()?;
    stream.set_read_timeout(Some(WAIT)).ok()?;
    let request = "GET /v1/status HTTP/1.0\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}
