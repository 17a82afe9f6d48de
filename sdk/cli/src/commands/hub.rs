//! `wick hub`: makes a fleet's hub, and runs it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use wick_hub::{
    Broker, ClusterSettings, GitSettings, Hub, HubError, ListenError, Role, Settings, Source,
};

use crate::commands::operator;
use crate::commands::operator::run::client;
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
    /// Print the files that make mosquitto the fleet's broker, or write them
    Mosquitto(MosquittoArgs),
    /// Print the certificate by which sites and people trust the fleet
    Ca(CaArgs),
    /// Print the definitions of Site and Rollout, for a cluster that a hub reads them from
    Crd,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick hub init --dir /var/lib/wick-hub --name hub.example --name 10.0.0.5
  wick hub init --if-needed --dir /var/lib/wick-hub --name hub.example     # before each start")]
struct InitArgs {
    /// The hub's folder; all of it is secret but `ca.crt`
    #[arg(long, value_name = "DIR", env = "WICK_HUB_DIR")]
    dir: PathBuf,
    /// A name or an IP address by which sites reach the broker and the hub
    #[arg(long = "name", value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Where the folder is a hub's already, only make new certificates for hub and broker
    #[arg(long)]
    if_needed: bool,
    /// Make no token of an admin: `wick hub run --admin-token-file` names one
    #[arg(long)]
    no_token: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick hub run --dir /var/lib/wick-hub --broker mqtts://hub.example --git https://git.example/fleet.git
  wick hub run --dir /var/lib/wick-hub --broker mqtts://hub.example --kubernetes --namespace fleet
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
    #[arg(long, value_name = "URL", env = "WICK_HUB_GIT", required_unless_present = "kubernetes")]
    git: Option<String>,
    /// No repository: the policy is the `Site`s and `Rollout`s of the cluster
    #[arg(long, env = "WICK_HUB_KUBERNETES", conflicts_with = "git")]
    kubernetes: bool,
    /// Their namespace; the pod's own, or the kubeconfig's
    #[arg(long, value_name = "NAME", env = "WICK_NAMESPACE")]
    namespace: Option<String>,
    /// Its branch, `tags/NAME`, or a name that begins with `refs/`
    #[arg(long, value_name = "REF", env = "WICK_HUB_GIT_REF", default_value = "main")]
    git_ref: String,
    /// A file with a token for https
    #[arg(long, value_name = "FILE", env = "WICK_HUB_GIT_TOKEN")]
    git_token: Option<PathBuf>,
    /// A private key for ssh
    #[arg(long, value_name = "FILE", env = "WICK_HUB_GIT_KEY")]
    git_key: Option<PathBuf>,
    /// A file with a token that is an admin's, beside those that the hub has made
    #[arg(long, value_name = "FILE", env = "WICK_HUB_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
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
struct CaArgs {
    /// The hub's folder
    #[arg(long, value_name = "DIR", env = "WICK_HUB_DIR")]
    dir: PathBuf,
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
  wick hub mosquitto --dir /var/lib/wick-hub --acl-file /etc/mosquitto/acl > mosquitto.conf
  wick hub mosquitto --dir /var/lib/wick-hub --out /var/lib/mosquitto && mosquitto -c /var/lib/mosquitto/mosquitto.conf")]
struct MosquittoArgs {
    /// The hub's folder, as the broker sees it
    #[arg(long, value_name = "DIR", env = "WICK_HUB_DIR")]
    dir: PathBuf,
    /// Print the list of who may read and write what
    #[arg(long)]
    acl: bool,
    /// Write both into this folder, in which the broker keeps its own things too
    #[arg(long, value_name = "DIR", conflicts_with_all = ["acl", "acl_file"])]
    out: Option<PathBuf>,
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
        HubCommand::Mosquitto(args) => mosquitto(args, format),
        HubCommand::Ca(args) => {
            let ca = wick_hub::ca(&args.dir).map_err(|error| failure(&error))?;
            print(&ca, format);
            Ok(())
        }
        HubCommand::Crd => crd(format),
    }
}

fn init(args: &InitArgs, format: Format) -> Outcome {
    let (dir, human) = (args.dir.display(), format == Format::Human);
    let made = wick_hub::init(&args.dir, &args.names);
    if args.if_needed
        && matches!(made, Err(HubError::Authority(wick_hub::AuthorityError::Exists(_))))
    {
        wick_hub::renew(&args.dir, &args.names).map_err(|error| failure(&error))?;
        if human {
            eprintln!("{dir} is a hub's already: hub and broker have new certificates");
        }
        return Ok(());
    }
    made.map_err(|error| failure(&error))?;
    if human {
        eprintln!("a fleet is in {dir}: keep it secret, and keep a copy");
        eprintln!("sites and people trust it by {}", args.dir.join(wick_hub::CA_FILE).display());
    }
    if args.no_token {
        return Ok(());
    }
    let made = wick_hub::make_token(&args.dir, "admin", Role::Admin);
    let made = made.map_err(|error| failure(&error))?;
    if human {
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

fn mosquitto(args: &MosquittoArgs, format: Format) -> Outcome {
    if let Some(folder) = &args.out {
        return write_mosquitto(args, folder, format);
    }
    let text = match args.acl {
        true => wick_hub::acl(),
        false => wick_hub::config(&args.dir, &args.acl_file, args.port),
    };
    print(&text, format);
    Ok(())
}

/// Write all that mosquitto needs into a folder of its own.
fn write_mosquitto(args: &MosquittoArgs, folder: &Path, format: Format) -> Outcome {
    let (acl, file) = (folder.join("acl"), folder.join("mosquitto.conf"));
    let config = wick_hub::config(&args.dir, &acl, args.port);
    // The last character tells mosquitto that it is a folder.
    let config = format!("{config}persistence_location {}/\n", folder.display());
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&acl, wick_hub::acl()))
        .and_then(|()| fs::set_permissions(&acl, fs::Permissions::from_mode(0o600)))
        .and_then(|()| fs::write(&file, config));
    written.map_err(|error| {
        Failure::new(Exit::CannotCreate, "cannot-write", "mosquitto's files can't be written")
            .about(folder)
            .caused_by(Some(&error))
    })?;
    match format {
        Format::Json => output::json(&json!({"config": file, "acl": acl})),
        _ => output::line(format_args!("start it by: mosquitto -c {}", file.display())),
    }
    Ok(())
}

/// A file that somebody redirects.
fn print(text: &str, format: Format) {
    match format {
        Format::Json => output::json(&json!({"text": text})),
        Format::Human | Format::Raw => output::line(text.trim_end()),
    }
}

fn crd(format: Format) -> Outcome {
    let definitions = wick_api::fleet_crds();
    if format == Format::Json {
        output::json(&json!({"apiVersion": "v1", "kind": "List", "items": definitions}));
        return Ok(());
    }
    for definition in &definitions {
        output::line("---");
        operator::print(definition, format)?;
    }
    Ok(())
}

async fn serve(args: &RunArgs, format: Format) -> Outcome {
    let mut signals = Signals::listen()?;
    let settings = Settings {
        dir: args.dir.clone(),
        link: args.link.clone().unwrap_or_else(|| args.broker.clone()),
        broker: args.broker.clone(),
        source: args.source().await?,
        admin_token: args.admin_token_file.clone(),
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
        HubError::AdminToken(_) => (Exit::BadData, "admin-token"),
        HubError::AdminTokenFile { .. } => (Exit::NotFound, "admin-token"),
        HubError::List(_) | HubError::Random(_) | HubError::Ended => (Exit::Failure, "failed"),
    };
    let failure = Failure::new(exit, code, error).caused_by(std::error::Error::source(error));
    match code {
        "no-hub" => failure.help("make one with `wick hub init`"),
        "plain" => failure.help("leave --plain out, or listen on 127.0.0.1"),
        _ => failure,
    }
}

// === impl RunArgs ===

impl RunArgs {
    async fn source(&self) -> Outcome<Source> {
        let Some(url) = self.git.clone() else {
            let client = client().await?;
            let namespace = self.namespace.as_deref().unwrap_or_else(|| client.default_namespace());
            let namespace = namespace.to_owned();
            return Ok(Source::Cluster(ClusterSettings { client, namespace }));
        };
        let git = GitSettings {
            url,
            reference: self.git_ref.clone(),
            token: self.git_token.clone(),
            ssh_key: self.git_key.clone(),
        };
        Ok(Source::Git(git, self.every))
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
