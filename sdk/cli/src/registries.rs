//! Registries and the store: flags become their settings, and a name becomes a path to an image
//! that is here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use wick_package::Reference;
use wick_package::oci::Descriptor;
use wick_registry::{
    Credentials, Lease, PlainHttp, Progress, Registry, Settings, Store, StoredImage,
};

use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};

/// Threads for requests: transfers wait for the network and the disk, which has its own.
const WORKERS: usize = 2;

/// How a transfer looks.
const TEMPLATE: &str = "{msg} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";

/// Flags of commands that call registries.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistryArgs {
    /// Speak plain HTTP with registries, without encryption
    #[arg(long)]
    plain_http: bool,
    /// Speak plain HTTP with this registry; several are parted by commas
    #[arg(
        long,
        value_name = "HOST",
        env = "WICK_PLAIN_HTTP",
        value_delimiter = ',',
        conflicts_with = "plain_http"
    )]
    plain_http_for: Vec<String>,
    /// Read a registry's images from this host first; several are parted by commas
    #[arg(
        long,
        value_name = "REGISTRY=HOST",
        env = "WICK_MIRRORS",
        value_delimiter = ',',
        value_parser = mirror
    )]
    mirror: Vec<(String, String)>,
    /// Trust these authorities (PEM) beside the system's
    #[arg(long, value_name = "FILE", env = "WICK_REGISTRY_CA")]
    registry_ca: Vec<PathBuf>,
    /// User at one registry; the password is read from WICK_REGISTRY_PASSWORD. Docker's and
    /// Podman's files otherwise
    #[arg(
        long,
        value_name = "REGISTRY=NAME",
        env = "WICK_REGISTRY_USER",
        value_parser = user,
        requires = "registry_password"
    )]
    registry_user: Option<(String, String)>,
    /// A password on a command line would be everybody's: it comes by the environment
    #[arg(long, hide = true, env = "WICK_REGISTRY_PASSWORD", hide_env_values = true)]
    registry_password: Option<String>,
}

/// Flags of commands that use the store.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// The folder with images; ~/.local/share/wick/store otherwise
    #[arg(long, value_name = "DIR", env = "WICK_STORE")]
    store: Option<PathBuf>,
}

/// Flags of commands for which an image may be in the store or at a registry.
#[derive(Debug, Default, clap::Args)]
pub struct ImageArgs {
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// When `wick run` asks the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PullPolicy {
    /// Pull what is not in the store.
    #[default]
    Missing,
    /// Ask each time whether the tag has moved.
    Always,
    /// Use only what is in the store.
    Never,
}

/// An image that is here.
pub struct Held {
    /// A path that packages are opened by.
    pub path: PathBuf,
    /// Keeps garbage collection from it.
    _lease: Lease,
}

/// A progress bar that hears of a transfer.
pub struct Bar(ProgressBar);

// === impl RegistryArgs ===

impl RegistryArgs {
    /// # Errors
    /// An authority can't be read.
    pub fn registry(&self) -> Outcome<Registry> {
        Registry::new(self.settings()).map_err(|error| Failure::of(&error))
    }

    pub fn settings(&self) -> Settings {
        let plain_http = match (self.plain_http, self.plain_http_for.is_empty()) {
            (true, _) => PlainHttp::Always,
            (false, true) => PlainHttp::Never,
            (false, false) => PlainHttp::Hosts(BTreeSet::from_iter(self.plain_http_for.clone())),
        };
        let mut mirrors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (registry, host) in &self.mirror {
            mirrors.entry(registry.clone()).or_default().push(host.clone());
        }
        let credentials = match (self.registry_user.clone(), self.registry_password.clone()) {
            (Some((registry, user)), Some(password)) => {
                Credentials::Given { registry, user, password }
            }
            _ => Credentials::Files,
        };
        let authorities = self.registry_ca.clone();
        Settings { plain_http, mirrors, authorities, credentials, ..Settings::default() }
    }
}

// === impl StoreArgs ===

impl StoreArgs {
    /// # Errors
    /// There is no place for it, or it can't be written.
    pub fn store(&self) -> Outcome<Store> {
        let own = || Store::default_root(|name| std::env::var_os(name));
        let Some(root) = self.store.clone().or_else(own) else {
            return Err(Failure::usage("there is no HOME to keep images in")
                .help("name a folder with --store or WICK_STORE"));
        };
        Store::open(root).map_err(|error| Failure::of(&error))
    }
}

// === impl ImageArgs ===

impl ImageArgs {
    /// # Errors
    /// An authority can't be read.
    pub fn registry(&self) -> Outcome<Registry> {
        self.registries.registry()
    }

    /// # Errors
    /// There is no place for it, or it can't be written.
    pub fn store(&self) -> Outcome<Store> {
        self.store.store()
    }
}

// === impl Bar ===

impl Bar {
    pub fn new(format: Format, what: &Reference) -> Arc<Self> {
        Self::titled(format, what.repository())
    }

    pub fn titled(format: Format, what: &str) -> Arc<Self> {
        let bar = output::progress(format, Some(0), TEMPLATE);
        bar.set_message(what.to_owned());
        Arc::new(Self(bar))
    }

    pub fn done(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn planned(&self, bytes: u64) {
        self.0.inc_length(bytes);
    }

    fn moved(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn kept(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn undone(&self, bytes: u64) {
        self.0.set_position(self.0.position().saturating_sub(bytes));
    }

    fn waiting(&self, why: &str, time: Duration) {
        self.0.println(format!("{why}: going on in {:.1} s", time.as_secs_f64()));
    }
}

/// Run a transfer to its end.
///
/// # Errors
/// Those of `work`.
pub fn block_on<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    crate::host::block_on(WORKERS, work)
}

/// What somebody calls an image by.
///
/// # Errors
/// It is no reference.
pub fn reference(text: &str) -> Outcome<Reference> {
    text.parse().map_err(|error: wick_package::ReferenceError| {
        let failure = Failure::usage(&error);
        match Path::new(text).exists() {
            true => failure.help("a path is there, and an image is named by registry and path"),
            false => failure,
        }
    })
}

/// Turn names of images among paths into paths to images that are here, and pull what is
/// missing. A path that exists is a path.
///
/// # Errors
/// An image can't be pulled, or is not here and may not be.
pub fn have_all(
    packages: &[PathBuf],
    images: &ImageArgs,
    policy: PullPolicy,
    format: Format,
) -> Outcome<(Vec<PathBuf>, Vec<Held>)> {
    let (mut paths, mut held) = (Vec::new(), Vec::new());
    for package in packages {
        match name_of(package) {
            None => paths.push(package.clone()),
            Some(name) => {
                let store = images.store()?;
                let image = hold(&store, &have(name, images, &store, policy, format)?)?;
                paths.push(image.path.clone());
                held.push(image);
            }
        }
    }
    Ok((paths, held))
}

/// What may be the name of an image: text that is no path.
pub fn name_of(package: &Path) -> Option<&str> {
    let text = package.to_str()?;
    let path = package.exists() || text.starts_with(['/', '.']) || text.is_empty();
    (!path).then_some(text)
}

/// Whether it says more than one word: that may as well be a path that was mistyped.
pub fn is_whole_name(name: &str) -> bool {
    name.contains(['/', ':'])
}

/// Have an image in the store, whatever it is an image of.
///
/// # Errors
/// It can't be pulled, or is not here and may not be.
pub fn have(
    name: &str,
    images: &ImageArgs,
    store: &Store,
    policy: PullPolicy,
    format: Format,
) -> Outcome<Descriptor> {
    if policy != PullPolicy::Always
        && let Some(image) = find(store, name)
    {
        return Ok(image.descriptor);
    }
    let known = is_whole_name(name);
    if policy == PullPolicy::Never || !known {
        let root = store.root().display();
        let text = format!("`{name}` is no path here, and no image in {root}");
        let failure = Failure::new(crate::exit::Exit::NotFound, "not-found", text);
        let help = match known {
            true => format!("pull it: wick pull {name}"),
            // A word that was mistyped must not be asked for all over the world.
            false => format!("an image of Docker Hub is pulled as docker.io/library/{name}"),
        };
        return Err(failure.help(help));
    }
    let reference = reference(name)?;
    if format == Format::Human {
        eprintln!("`{name}` is no path here: pulling {reference}");
    }
    let bar = Bar::new(format, &reference);
    let registry = images.registry()?;
    let pulled = block_on(async {
        let pulled = registry.pull(&reference, store, bar.clone()).await;
        pulled.map_err(|error| Failure::of(&error))
    });
    bar.done();
    Ok(pulled?.image)
}

/// An image of the store that is there as a whole.
pub fn find(store: &Store, name: &str) -> Option<StoredImage> {
    store.find(name).ok().filter(|image| store.is_complete(&image.descriptor))
}

fn hold(store: &Store, image: &Descriptor) -> Outcome<Held> {
    // What it holds is opened by whoever has asked the policy.
    let _lease = store.hold(image).map_err(|error| Failure::stored(&error))?;
    Ok(Held { path: store.blob_path(image.digest), _lease })
}

fn user(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((registry, user)) if !registry.is_empty() && !user.is_empty() => {
            Ok((registry.to_owned(), user.to_owned()))
        }
        _ => Err("write for instance registry.example=robot".to_owned()),
    }
}

fn mirror(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((registry, host)) if !registry.is_empty() && !host.is_empty() => {
            Ok((registry.to_owned(), host.trim_end_matches('/').to_owned()))
        }
        _ => Err("write for instance docker.io=mirror.example:5000".to_owned()),
    }
}
