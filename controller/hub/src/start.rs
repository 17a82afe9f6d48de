//! A hub from its folder: made once, then run for as long as it is wanted.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wick_fleet::Moment;

use crate::admit::ListError;
use crate::authority::{Authority, AuthorityError, SERVER_FILES};
use crate::cluster;
use crate::hub::{self, MAX_INPUTS, now};
use crate::link::{self, Broker, LinkError};
use crate::serve::{self, Api, ListenError, Listener};
use crate::shared::Shared;
use crate::source::{self, Source};
use crate::store::{Change, Store, StoreError, Table};
use crate::token::{self, Grant, Role, Token};

/// The store, and the copy of the repository, in the hub's folder.
const STORE: &str = "hub.redb";
const COPY: &str = "policy.git";

/// Shortest token that somebody may have made by hand.
const MIN_ADMIN_TOKEN: usize = 32;

/// How long the first token holds.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// What a hub runs with.
#[derive(Clone)]
pub struct Settings {
    pub dir: PathBuf,
    /// The broker as sites are told of it.
    pub broker: Broker,
    /// The broker as the hub reaches it.
    pub link: Broker,
    pub source: Source,
    /// A file with a token of an admin, for whoever can't be there when the hub is made.
    pub admin_token: Option<PathBuf>,
    pub listen: SocketAddr,
    pub tls: bool,
    pub control: Option<SocketAddr>,
}

/// A hub that runs. Dropped, it ends at once, which it may at any instant.
pub struct Hub {
    pub api: SocketAddr,
    pub control: Option<SocketAddr>,
    shared: Arc<Shared>,
    tasks: JoinSet<Result<(), HubError>>,
}

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("{}: it is no token: write at least {MIN_ADMIN_TOKEN} characters that nobody guesses", .0.display())]
    AdminToken(PathBuf),
    #[error("{} can't be read", .path.display())]
    AdminTokenFile { path: PathBuf, source: std::io::Error },
    #[error("the system gives no random bytes")]
    Random(#[source] std::io::Error),
    #[error("a task of the hub ended by itself")]
    Ended,
}

/// Make a new fleet's folder.
///
/// # Errors
/// There is a hub already, or the folder can't be written.
pub fn init(dir: &Path, names: &[String]) -> Result<(), HubError> {
    Authority::init(dir, names, SystemTime::now())?;
    Ok(())
}

/// Make new certificates for hub and broker by these names, in a folder that is a hub's already.
///
/// # Errors
/// The folder is no hub's, or can't be written.
pub fn renew(dir: &Path, names: &[String]) -> Result<(), HubError> {
    Ok(Authority::open(dir)?.servers(names, SystemTime::now())?)
}

/// The certificate of the authority by which sites and people trust the fleet.
///
/// # Errors
/// The folder is no hub's.
pub fn ca(dir: &Path) -> Result<String, HubError> {
    Ok(Authority::open(dir)?.ca().to_owned())
}

/// A new token for a role, straight into the store of a hub that doesn't run.
///
/// # Errors
/// A hub runs on this folder, or the folder is none.
pub fn make_token(dir: &Path, name: &str, role: Role) -> Result<String, HubError> {
    let store = Store::open(&dir.join(STORE))?;
    let text = token::make().map_err(HubError::Random)?;
    let expires: Moment = now() + YEAR;
    let mut change = Change::default();
    let token = Token { name: name.to_owned(), expires, grant: Grant::Role(role) };
    change.put(Table::Tokens, token::hash(&text), &token);
    store.commit(&change)?;
    Ok(text)
}

// === impl Hub ===

impl Hub {
    /// # Errors
    /// The folder is no hub's, or an address is in use.
    pub async fn start(settings: Settings) -> Result<Self, HubError> {
        // gix's client of HTTP asks for the process's provider of cryptography.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = Store::open(&settings.dir.join(STORE))?;
        let authority = Authority::open(&settings.dir)?;
        let mut shared = Shared::load(store, authority, settings.broker.clone())?;
        shared.admin = settings.admin_token.as_deref().map(admin_token).transpose()?;
        shared.authority.tidy();
        let shared = Arc::new(shared);
        shared.write_list()?;
        let known = {
            let mut state = shared.state.write();
            (state.source.url, state.source.reference) = settings.source.shown();
            state.source.commit.clone()
        };
        let files = SERVER_FILES;
        let files = (settings.dir.join(files.0), settings.dir.join(files.1));
        let tls = settings.tls.then_some((files.0.as_path(), files.1.as_path()));
        let listener = Listener::bind(settings.listen, tls).await?;
        let api = listener
            .address()
            .map_err(|source| ListenError::Bind { address: settings.listen, source })?;
        let (inputs, receiver) = mpsc::channel(MAX_INPUTS);
        let mut tasks = JoinSet::new();
        let handlers = Api { shared: shared.clone(), inputs: inputs.clone() };
        let mut control = None;
        if let Some(address) = settings.control {
            let plain = Listener::bind_any(address, None).await?;
            control = plain.address().ok();
            let router = serve::control(handlers.clone());
            tasks.spawn(ends(plain.serve(router)));
        }
        let router = serve::router(handlers);
        tasks.spawn(ends(listener.serve(router)));
        let (hub, link, told) = (shared.clone(), shared.clone(), inputs.clone());
        tasks.spawn(ends(hub::run(hub, receiver)));
        match settings.source {
            Source::Git(git, every) => {
                let (pull, copy) = (shared.pull.clone(), settings.dir.join(COPY));
                tasks.spawn(ends(source::follow(git, copy, every, known, pull, inputs)));
            }
            Source::Cluster(cluster) => {
                tasks.spawn(ends(cluster::follow(cluster, known, shared.clone(), inputs)));
            }
        }
        tasks.spawn(async move { Ok(link::follow(&settings.link, link, told).await?) });
        Ok(Self { api, control, shared, tasks })
    }

    /// Whether what the broker keeps was heard, and there is a policy.
    pub fn is_ready(&self) -> bool {
        let state = self.shared.state.read();
        state.link.caught_up && state.documents.is_some()
    }

    /// Until a task ends, which none does by itself.
    ///
    /// # Errors
    /// Why it has.
    pub async fn ended(&mut self) -> Result<(), HubError> {
        match self.tasks.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(_)) | None => Err(HubError::Ended),
        }
    }
}

/// The hash of the token in a file.
fn admin_token(path: &Path) -> Result<String, HubError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| HubError::AdminTokenFile { path: path.to_owned(), source })?;
    if text.trim().len() < MIN_ADMIN_TOKEN {
        return Err(HubError::AdminToken(path.to_owned()));
    }
    Ok(token::hash(&text))
}

/// A task that goes on for as long as the hub.
async fn ends(task: impl Future<Output = ()>) -> Result<(), HubError> {
    task.await;
    Err(HubError::Ended)
}
