//! `wick fleet`: asks a hub how its fleet is, and gives it orders.

mod files;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use crate::client::{RemoteArgs, Server};
use crate::commands::hub::RoleArg;
use crate::failure::Outcome;
use crate::output::{self, Format};
use crate::quantity;
use crate::registries::block_on;

/// How often a view is drawn again.
const LOOK: Duration = Duration::from_secs(1);

/// Home, and clear what is there: the view stays at its place.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// A fleet of sites, by its hub
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  export WICK_HUB=https://hub.example:8443 WICK_HUB_CA=ca.crt WICK_TOKEN=…
  wick fleet status --watch
  wick fleet plan --files .                      # what a checkout of the policy would do now
  wick fleet rollout approve ocr-7
  wick fleet enrol-token plant-3")]
pub struct FleetArgs {
    #[command(subcommand)]
    command: FleetCommand,
    #[command(flatten)]
    hub: HubClient,
}

#[derive(Debug, clap::Args)]
struct HubClient {
    /// The hub's API
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "WICK_HUB",
        default_value = "http://127.0.0.1:8443"
    )]
    hub: String,
    /// Longest wait for an answer
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = quantity::duration)]
    timeout: Duration,
    /// The fleet's authority, `ca.crt` of the hub's folder; needed for https
    #[arg(long, global = true, value_name = "FILE", env = "WICK_HUB_CA")]
    cacert: Option<PathBuf>,
    /// Token for the hub; better in the variable, which `ps` does not show
    #[arg(long, global = true, value_name = "TOKEN", env = "WICK_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum FleetCommand {
    /// How the fleet is: broker, policy, sites, rollouts
    Status {
        /// Go on showing it
        #[arg(short, long)]
        watch: bool,
    },
    /// All sites, or all of one
    Sites {
        #[arg(value_name = "SITE")]
        site: Option<String>,
        /// Only those that don't serve what they are to have
        #[arg(long)]
        behind: bool,
    },
    /// All rollouts, or one with its sites
    Rollouts {
        #[arg(value_name = "ROLLOUT")]
        rollout: Option<String>,
    },
    /// The plan in force, or what other files would do now
    Plan {
        /// A folder with `sites` and `rollouts`: a dry run, nothing is kept
        #[arg(long, value_name = "DIR")]
        files: Option<PathBuf>,
    },
    /// What became of rollouts
    History {
        /// Only of this one
        #[arg(value_name = "ROLLOUT")]
        rollout: Option<String>,
    },
    /// Who asked for what
    Audit,
    /// Give a rollout an order
    #[command(subcommand)]
    Rollout(RolloutOrder),
    /// A one-time token for a site to enrol with
    EnrolToken {
        #[arg(value_name = "SITE")]
        site: String,
        /// The site may be enrolled already: it lost its key
        #[arg(long)]
        again: bool,
        /// How long it holds
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = quantity::duration)]
        expires: Duration,
    },
    /// Believe a site no more, and take what it was to have off the broker
    Revoke {
        #[arg(value_name = "SITE")]
        site: String,
    },
    /// Let the hub sign with a new key
    ///
    /// Sites believe it since the old key has signed it, as soon as they hear of it. One that misses eight changes
    /// must be enrolled again.
    RotateKey,
    /// A token for a person or a program
    Token {
        /// Whose it is
        name: String,
        /// What it permits
        #[arg(long, value_enum, default_value = "viewer")]
        role: RoleArg,
    },
}

#[derive(Debug, clap::Subcommand)]
enum RolloutOrder {
    /// Nobody else moves; who moved stays
    Pause { rollout: String },
    /// Go on after a pause
    Resume { rollout: String },
    /// Who moved goes back
    Abort { rollout: String },
    /// Again: those that failed, or all where it went back
    Retry { rollout: String },
    /// The gate may open
    Approve {
        rollout: String,
        /// Of this wave, counted from 1; of the present one by default
        #[arg(long, value_name = "NUMBER")]
        wave: Option<usize>,
    },
}

pub fn run(args: &FleetArgs, format: Format) -> Outcome {
    block_on(async {
        let server = args.hub.server()?;
        match &args.command {
            FleetCommand::Status { watch } => status(&server, *watch, format).await,
            FleetCommand::Sites { site: None, behind } => sites(&server, *behind, format).await,
            FleetCommand::Sites { site: Some(site), .. } => {
                let path = format!("/v1/sites/{site}");
                print(&server.hub(Method::GET, &path, None).await?, format, show::site);
                Ok(())
            }
            FleetCommand::Rollouts { rollout: None } => {
                let all = server.hub(Method::GET, "/v1/rollouts", None).await?;
                print(&all, format, |all| show::rollouts(&all["rollouts"]));
                Ok(())
            }
            FleetCommand::Rollouts { rollout: Some(rollout) } => {
                let path = format!("/v1/rollouts/{rollout}");
                print(&server.hub(Method::GET, &path, None).await?, format, show::rollout);
                Ok(())
            }
            FleetCommand::Plan { files: None } => {
                let plan = server.hub(Method::GET, "/v1/plan", None).await?;
                print(&plan, format, |plan| plan["text"].as_str().unwrap_or_default().to_owned());
                Ok(())
            }
            FleetCommand::Plan { files: Some(folder) } => dry_run(&server, folder, format).await,
            FleetCommand::History { rollout } => {
                let path = match rollout {
                    Some(rollout) => format!("/v1/history?rollout={rollout}"),
                    None => "/v1/history".to_owned(),
                };
                print(&server.hub(Method::GET, &path, None).await?, format, show::history);
                Ok(())
            }
            FleetCommand::Audit => {
                print(&server.hub(Method::GET, "/v1/audit", None).await?, format, show::audit);
                Ok(())
            }
            FleetCommand::Rollout(order) => order.give(&server, format).await,
            FleetCommand::EnrolToken { site, again, expires } => {
                // Whole hours, and at least one.
                let hours = expires.as_secs().div_ceil(3600).max(1);
                let body = json!({"site": site, "again": again, "hours": hours});
                token(&server.hub(Method::POST, "/v1/enrolments", Some(&body)).await?, format);
                Ok(())
            }
            FleetCommand::Revoke { site } => revoke(&server, site, format).await,
            FleetCommand::RotateKey => {
                print(
                    &server.hub(Method::POST, "/v1/keys/rotate", None).await?,
                    format,
                    show::rotated,
                );
                Ok(())
            }
            FleetCommand::Token { name, role } => {
                let body = json!({"name": name, "role": wick_hub::Role::from(*role)});
                token(&server.hub(Method::POST, "/v1/tokens", Some(&body)).await?, format);
                Ok(())
            }
        }
    })
}

async fn revoke(server: &Server, site: &str, format: Format) -> Outcome {
    server.hub(Method::POST, &format!("/v1/sites/{site}/revoke"), None).await?;
    print(&json!({"revoked": site}), format, |_| {
        format!("{site} is revoked: let the broker read its list again")
    });
    Ok(())
}

/// A token that was made; nothing keeps it.
fn token(made: &Value, format: Format) {
    print(made, format, |made| made["token"].as_str().unwrap_or_default().to_owned());
}

async fn status(server: &Server, watch: bool, format: Format) -> Outcome {
    loop {
        let status = server.hub(Method::GET, "/v1/status", None).await?;
        if watch && format == Format::Human && output::coloured() {
            output::bytes(CLEAR.as_bytes());
        }
        print(&status, format, show::status);
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn sites(server: &Server, behind: bool, format: Format) -> Outcome {
    let mut all: Vec<Value> = Vec::new();
    let mut after = String::new();
    loop {
        let mut page = server.hub(Method::GET, &format!("/v1/sites{after}"), None).await?;
        if let Value::Array(sites) = page["sites"].take() {
            all.extend(sites.into_iter().filter(|site| !behind || show::is_behind(site)));
        }
        match page["next"].as_str() {
            Some(next) => after = format!("?after={next}"),
            None => break,
        }
    }
    print(&json!({"sites": all}), format, |all| show::sites(&all["sites"]));
    Ok(())
}

async fn dry_run(server: &Server, folder: &std::path::Path, format: Format) -> Outcome {
    let body = json!({"files": files::read(folder)?});
    let dry = server.hub(Method::POST, "/v1/plan", Some(&body)).await?;
    print(&dry, format, show::dry_run);
    files::verdict(&dry)
}

fn print(value: &Value, format: Format, text: impl Fn(&Value) -> String) {
    match format {
        Format::Json => output::json(value),
        Format::Human | Format::Raw => output::line(text(value).trim_end()),
    }
}

// === impl HubClient ===

impl HubClient {
    fn server(&self) -> Outcome<Server> {
        let remote = RemoteArgs::new(self.cacert.clone(), self.token.clone());
        Ok(Server::parse(&self.hub, &remote, self.timeout)?.0)
    }
}

// === impl RolloutOrder ===

impl RolloutOrder {
    async fn give(&self, server: &Server, format: Format) -> Outcome {
        let (name, order, body) = match self {
            Self::Pause { rollout } => (rollout, "pause", None),
            Self::Resume { rollout } => (rollout, "resume", None),
            Self::Abort { rollout } => (rollout, "abort", None),
            Self::Retry { rollout } => (rollout, "retry", None),
            Self::Approve { rollout, wave } => (rollout, "approve", Some(json!({"wave": wave}))),
        };
        let path = format!("/v1/rollouts/{name}/{order}");
        let done = server.hub(Method::POST, &path, body.as_ref()).await?;
        print(&done, format, show::order);
        Ok(())
    }
}
