//! `wick agent enrol`.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use wick_agent::{EnrolSettings, Home, KeepError};
use wick_fleet::SiteName;

use super::{StateArgs, enrol_failure, keep_failure};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::{keys, quantity};

/// Threads: it is one request.
const WORKERS: usize = 1;

/// Part of a machine's memory that models may have, where nothing is said: three quarters.
const MEMORY: (u64, u64) = (3, 4);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick agent enrol --hub https://hub.example:8443 --hub-ca ca.crt --site plant-3 --token-file token
  WICK_AGENT_TOKEN=… wick agent enrol --hub https://hub.example:8443 --hub-ca ca.crt --site plant-3 --disk 20GiB")]
pub struct EnrolArgs {
    /// The hub
    #[arg(long, value_name = "URL", env = "WICK_HUB")]
    hub: String,
    /// This site's name: 1 to 63 of a-z, 0-9 and `-`
    #[arg(long, value_name = "NAME", env = "WICK_SITE")]
    site: SiteName,
    /// A file with the one-time token; WICK_AGENT_TOKEN otherwise
    #[arg(long, value_name = "FILE", required_unless_present = "token")]
    token_file: Option<PathBuf>,
    /// A token on a command line would be everybody's: it comes by the environment
    #[arg(long, hide = true, env = "WICK_AGENT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Trust this authority (PEM) for the hub beside the system's
    #[arg(long, value_name = "FILE", env = "WICK_HUB_CA")]
    hub_ca: Option<PathBuf>,
    /// A label of this site; several are parted by commas
    #[arg(long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,
    /// The rule of this site's time zone, such as CET-1CEST,M3.5.0,M10.5.0/3; UTC otherwise
    #[arg(long, value_name = "RULE")]
    zone: Option<String>,
    /// Memory that models may have together; three quarters of the machine's otherwise
    #[arg(long, value_name = "SIZE", value_parser = quantity::size)]
    memory: Option<u64>,
    /// Disk that images may have together
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = quantity::size)]
    disk: u64,
    /// Do nothing where this site is enrolled, unless there is a token that it has not enrolled with
    #[arg(long)]
    if_needed: bool,
    #[command(flatten)]
    state: StateArgs,
}

pub fn run(args: &EnrolArgs, format: Format) -> Outcome {
    let known = if args.if_needed { enrolled_by(args)? } else { None };
    let is_other = |known: &String| {
        let token = args.token_file.as_ref().map(|file| keys::read(file));
        let token = token.and_then(Result::ok).or_else(|| args.token.clone());
        token.is_some_and(|token| wick_agent::token_hash(&token) != *known)
    };
    if known.is_some_and(|known| !is_other(&known)) {
        match format {
            Format::Json => output::json(&json!({"site": args.site, "enrolled": false})),
            _ => output::line(format_args!("{} is enrolled already", args.site)),
        }
        return Ok(());
    }
    let token = match (&args.token_file, &args.token) {
        (Some(file), _) => keys::read(file)?,
        (None, Some(token)) => token.clone(),
        (None, None) => return Err(Failure::usage("there is no token: give --token-file")),
    };
    let hub_ca = args.hub_ca.as_ref().map(|file| keys::read(file)).transpose()?;
    let settings = EnrolSettings {
        home: args.state.state.clone(),
        hub: args.hub.clone(),
        hub_ca,
        site: args.site.clone(),
        token,
        labels: args.labels.iter().cloned().collect(),
        zone: args.zone.clone(),
        memory: args.memory.or_else(memory).ok_or_else(|| {
            Failure::usage("this machine does not say how much memory it has: give --memory")
        })?,
        disk: args.disk,
    };
    let enrolled = crate::host::block_on(WORKERS, async {
        wick_agent::enrol(&settings).await.map_err(|error| enrol_failure(&error))
    })?;
    match format {
        Format::Json => output::json(&json!({
            "site": enrolled.site, "broker": enrolled.broker, "certificateEnds": enrolled.not_after,
            "memory": enrolled.memory, "disk": enrolled.disk, "state": args.state.state,
        })),
        _ => {
            output::line(format_args!("{} {} is enrolled", output::green("ok:"), enrolled.site));
            output::line(format_args!(
                "next: wick agent run --state {}",
                args.state.state.display()
            ));
        }
    }
    Ok(())
}

/// The hash of the token by which this folder's site has enrolled; none where it has not.
fn enrolled_by(args: &EnrolArgs) -> Outcome<Option<String>> {
    let site = match Home::at(&args.state.state).site() {
        Ok(site) => site,
        Err(KeepError::NotEnrolled { .. }) => return Ok(None),
        Err(error) => return Err(keep_failure(&error)),
    };
    if site.site != args.site {
        let text = format!("this folder is that of the site {}, not of {}", site.site, args.site);
        let failure = Failure::new(Exit::BadData, "other-site", text).about(&args.state.state);
        return Err(failure.help("give another folder by --state, or remove this one"));
    }
    Ok(Some(site.token))
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write for instance region=eu".to_owned()),
    }
}

/// What models may have of this machine's memory.
fn memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024 / MEMORY.1 * MEMORY.0)
}
