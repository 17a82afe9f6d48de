//! `wick hub`: makes a fleet's hub, and runs it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use wick_hub::{Broker, GitSettings, Hub, HubError, ListenError, Role, Settings};

use crate::commands::run::signals::Signals;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::host;
use crate::output::{self, Format};
use crate::quantity;

/// Threads for requests and connections. Decisions are made by one at a time.
const WORKERS: usize = 4;

/// The port of a broker with TLS.
const BROKER_PORT: u16 = 8883;

/// The hub of a fleet: ships model versions to many sites
#[derive(Debug, clap::Args)]
pub struct HubArgs {
    #[command(subcommand)]
    command: HubCommand,
}

#[derive(Debug, clap::Subcommand)]
enum HubCommand {
    /// Make a fleet: its authority, its keys, its store, and the token of its first admin
    Init(InitArgs),
    /// Run the hub
    ///
    /// It may be ended at any instant: what was decided is on the disk before any site hears of it.
    Run(Box<RunArgs>),
    /// Make a token while the hub doesn't run, for whoever has lost the last admin's
    Token(TokenArgs),
    /// Print the files that make mosquitto the fleet's broker
    Mosquitto(MosquittoArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick hub init --dir /var/lib/wick-hub --name hub.example --name 10.0.0.5")]
struct InitArgs {
    /// The hub's folder; all of it is secret but `ca.crt`
    #[arg(long, value_name = "DIR", env = "WICK_HUB_DIR")]
    dir: PathBuf,
    /// A name or an IP address by which sites reach the broker and the hub
    #[arg(long = "name", value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick hub run --dir /var/lib/wick-hub --broker mqtts://hub.example --git https://git.example/fleet.git
  wick hub run --dir . --broker mqtts://hub.example --link mqtts://localhost --git ssh://git@git.example/fleet.git \\
    --git-ref tags/production --git-key id_ed25519 --every 5m
A webhook may POST to /v1/pull, so that the hub looks at once.")]
struct RunArgs {
    /// The folder that `wick hub init` made
    #[arg(long, value_name = "DIR", env = "WICK_HUB_DIR")]
    dir: PathBuf,
    /// The broker as sites reach it: mqtts://HOST:PORT
    #[arg(long, value_name = "URL", env = "WICK_HUB_BROKER")]
    broker: Broker,
    /// The broker as the hub reaches it, where that differs
    #[arg(long, value_name = "URL", env = "WICK_HUB_LINK")]
    link: Option<Broker>,
    /// The repository of the policy: https://, ssh:// or file://
    #[arg(long, value_name = "URL", env = "WICK_HUB_GIT")]
    git: String,
    /// Its branch, `tags/NAME`, or a name that begins with `refs/`
    #[arg(long, value_name = "REF", env = "WICK_HUB_GIT_REF", default_value = "main")]
    git_ref: String,
    /// A file with a token for https
    #[arg(long, value_name = "FILE", env = "WICK_HUB_GIT_TOKEN")]
    git_token: Option<PathBuf>,
    /// A private key for ssh
    #[arg(long, value_name = "FILE", env = "WICK_HUB_GIT_KEY")]
    git_key: Option<PathBuf>,
    /// How often it is looked at
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::duration)]
    every: Duration,
    /// Where the API is
    #[arg(long, value_name = "HOST:PORT", env = "WICK_HUB_LISTEN", default_value = "[::]:8443")]
    listen: SocketAddr,
    /// No TLS for the API; only for addresses of this machine
    #[arg(long)]
    plain: bool,
    /// Health and metrics without TLS, which need no token
    #[arg(long, value_name = "HOST:PORT", env = "WICK_HUB_CONTROL")]
    control: Option<SocketAddr>,
}

#[derive(Debug, clap::Args)]
struct TokenArgs {
    /// Whose it is, for the audit
    name: String,
    /// What it permits
    #[arg(long, value_enum, default_value = "viewer")]
    role: RoleArg,
    /// The hub's folder
    #[arg(long, value_name = "DIR", env = "WICK_HUB_DIR")]
    dir: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick hub mosquitto --dir /var/lib/wick-hub --acl > acl
  wick hub mosquitto --dir /var/lib/wick-hub --acl-file /etc/mosquitto/acl > mosquitto.conf")]
struct MosquittoArgs {
    /// The hub's folder, as the broker sees it
    #[arg(long, value_name = "DIR", env = "WICK_HUB_DIR")]
    dir: PathBuf,
    /// Print the list of who may read and write what
    #[arg(long)]
    acl: bool,
    /// Where that list is, for the configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/mosquitto/acl")]
    acl_file: PathBuf,
    /// Where the broker listens
    #[arg(long, value_name = "PORT", default_value_t = BROKER_PORT)]
    port: u16,
}

/// What a token permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RoleArg {
    /// See
    Viewer,
    /// Give orders to rollouts, and let sites enrol
    Operator,
    /// Make tokens, revoke sites, read the audit
    Admin,
}

pub fn run(args: &HubArgs, format: Format) -> Outcome {
    match &args.command {
        HubCommand::Init(args) => init(args, format),
        HubCommand::Run(args) => host::block_on(WORKERS, serve(args, format)),
        HubCommand::Token(args) => {
            let made = wick_hub::make_token(&args.dir, &args.name, args.role.into());
            token(&made.map_err(|error| failure(&error))?, format);
            Ok(())
        }
        HubCommand::Mosquitto(args) => {
            mosquitto(args, format);
            Ok(())
        }
    }
}

fn init(args: &InitArgs, format: Format) -> Outcome {
    let made = wick_hub::init(&args.dir, &args.names).map_err(|error| failure(&error))?;
    if format == Format::Human {
        eprintln!("a fleet is in {}: keep it secret, and keep a copy", args.dir.display());
        eprintln!("sites and people trust it by {}", args.dir.join(wick_hub::CA_FILE).display());
        eprintln!("the token of its admin, which nothing keeps:");
    }
    token(&made, format);
    Ok(())
}

fn token(text: &str, format: Format) {
    match format {
        Format::Json => output::json(&json!({"token": text})),
        Format::Human | Format::Raw => output::line(text),
    }
}

fn mosquitto(args: &MosquittoArgs, format: Format) {
    let text = match args.acl {
        true => wick_hub::acl(),
        false => wick_hub::config(&args.dir, &args.acl_file, args.port),
    };
    match format {
        Format::Json => output::json(&json!({"text": text})),
        Format::Human | Format::Raw => output::line(text.trim_end()),
    }
}

async fn serve(args: &RunArgs, format: Format) -> Outcome {
    let mut signals = Signals::listen()?;
    let git = GitSettings {
        url: args.git.clone(),
        reference: args.git_ref.clone(),
        token: args.git_token.clone(),
        ssh_key: args.git_key.clone(),
    };
    let settings = Settings {
        dir: args.dir.clone(),
        link: args.link.clone().unwrap_or_else(|| args.broker.clone()),
        broker: args.broker.clone(),
        git,
        every: args.every,
        listen: args.listen,
        tls: !args.plain,
        control: args.control,
    };
    let mut hub = Hub::start(settings).await.map_err(|error| failure(&error))?;
    let scheme = if args.plain { "http" } else { "https" };
    let api = format!("{scheme}://{}", hub.api);
    match format {
        Format::Json => {
            let control = hub.control.map(|address| format!("http://{address}"));
            output::json(&json!({"api": api, "control": control}));
        }
        Format::Human | Format::Raw => output::line(format_args!("the hub's API is at {api}")),
    }
    tokio::select! {
        ended = hub.ended() => ended.map_err(|error| failure(&error)),
        // Nothing to finish: what was decided is on the disk.
        () = signals.next() => Ok(()),
    }
}

fn failure(error: &HubError) -> Failure {
    let (exit, code) = match error {
        HubError::Authority(wick_hub::AuthorityError::Exists(_)) => (Exit::CannotCreate, "exists"),
        HubError::Authority(_) => (Exit::NotFound, "no-hub"),
        HubError::Store(_) => (Exit::Unavailable, "store"),
        HubError::Listen(ListenError::Plain(_)) => (Exit::Usage, "plain"),
        HubError::Listen(_) => (Exit::Unavailable, "cannot-listen"),
        HubError::Link(_) => (Exit::BadData, "bad-certificates"),
        HubError::List(_) | HubError::Random(_) | HubError::Ended => (Exit::Failure, "failed"),
    };
    let failure = Failure::new(exit, code, error).caused_by(std::error::Error::source(error));
    match code {
        "no-hub" => failure.help("make one with `wick hub init`"),
        "plain" => failure.help("leave --plain out, or listen on 127.0.0.1"),
        _ => failure,
    }
}

// === impl HubArgs ===

impl HubArgs {
    /// Whether it runs on and says what it does.
    pub fn serves(&self) -> bool {
        matches!(self.command, HubCommand::Run(_))
    }
}

// === impl RoleArg ===

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Operator => Self::Operator,
            RoleArg::Admin => Self::Admin,
        }
    }
}
