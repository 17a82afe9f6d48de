//! What the container's command names: a package, or a bare component or core module. And what
//! it may use: the container's environment, the pod's mounts, and the network that is granted.
//!
//! A package gets what it wants of it. A bare component wants nothing by name, so it gets what
//! a container's program would: every variable, and each mounted folder at its own path.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use wick_engine::Grants;
use wick_package::{
    HostPort, Limits, MANIFEST_FILE, MAX_NAME_LEN, MountWant, Package, PackageName, RelPath, Wants,
};
use wick_sandbox::order::{Mount, Order};
use wick_sandbox::{IMAGE, is_volume};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// The bit of `MS_*` that tells a mount that can't be written.
const READ_ONLY: u64 = 1;

/// Where Kubernetes mounts a pod's credentials: never without being asked for by name.
const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Where a pod expects a container's last words, and how many bytes of them it reads.
const LAST_WORDS: &str = "/dev/termination-log";
const MAX_LAST_WORDS: usize = 4096;

/// Linear memory of a bare component: all that 32 bits reach. The container's limit counts.
const BARE_MEMORY: u64 = 4 << 30;

/// The preferred place of a mount that a package wants by name.
const BY_NAME: &str = "/mnt";

/// Open what the container's command names.
///
/// # Errors
/// It names nothing, or what it names is neither.
pub fn open(order: &Order) -> Outcome<(Package, Grants)> {
    let Some(first) = order.args.first() else {
        return Err(Failure::usage("the container has no command")
            .help("set the image's entrypoint to /wick.toml or to a .wasm file"));
    };
    let place = plain(&order.cwd.join(first));
    let path = opened(order, &place);
    let env = environment(&order.env);
    let network = network(&order.settings.network)?;
    let volumes: Vec<_> = order.mounts.iter().filter(|mount| is_volume(mount)).collect();
    if path.file_name().is_some_and(|name| name == MANIFEST_FILE) || path.is_dir() {
        let package = Package::open(&path).map_err(|error| Failure::open(&error))?;
        let folder = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(&path) };
        // What is read from the image itself is seen there already.
        let seen = if order.sealed { folder.to_owned() } else { image(folder) };
        let grants = Grants { network, env, mounts: by_name(&volumes) };
        return Ok((package.with_guest_root(seen), grants));
    }
    bare(order, &place, Grants { network, env, mounts: BTreeMap::new() }, &volumes)
}

/// Leave a message where the pod's status will show it, if there is such a place.
pub fn leave_message(text: &str) {
    let mut end = text.len().min(MAX_LAST_WORDS);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // It is there only if the pod has mounted it.
    if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(LAST_WORDS) {
        let _ = file.write_all(&text.as_bytes()[..end]);
    }
}

fn bare(
    order: &Order,
    path: &Path,
    mut grants: Grants,
    volumes: &[&Mount],
) -> Outcome<(Package, Grants)> {
    let below = path.strip_prefix("/").ok().and_then(Path::to_str).unwrap_or_default();
    let component: RelPath = below.parse().map_err(|error| {
        Failure::usage(format_args!("`{}` is no path of a component: {error}", path.display()))
    })?;
    let mut wants = Wants {
        network: grants.network.clone(),
        env: grants.env.keys().cloned().collect(),
        mounts: Vec::new(),
    };
    for mount in volumes {
        let place = mount.destination.as_path();
        if place.starts_with(CREDENTIALS) || !place.is_dir() {
            continue;
        }
        let Some(text) = place.to_str() else { continue };
        grants.mounts.insert(text.to_owned(), place.to_owned());
        wants.mounts.push(MountWant {
            name: text.to_owned(),
            path: text.to_owned(),
            writable: mount.flags & READ_ONLY == 0,
        });
    }
    let limits = Limits { memory: BARE_MEMORY, ..Limits::default() };
    let root = opened(order, Path::new("/"));
    let package = Package::bare(&root, component, model_name(&order.name)?, wants, limits);
    let package = package.map_err(|error| {
        Failure::open(&error).help("set the image's entrypoint to /wick.toml or to a .wasm file")
    })?;
    Ok((package.with_guest_root(IMAGE.into()), grants))
}

/// Where the worker opens what lies at `place`. Files that were compared with signed ones are read
/// in the image itself, where nothing that the pod mounts can lie over them.
fn opened(order: &Order, place: &Path) -> PathBuf {
    if order.sealed { image(place) } else { place.to_owned() }
}

/// The same folder in the image itself, without what is mounted into it.
fn image(folder: &Path) -> PathBuf {
    Path::new(IMAGE).join(folder.strip_prefix("/").unwrap_or(folder))
}

/// A path without `.` and `..`, as text: links are followed when it is opened.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    plain
}

fn environment(variables: &[String]) -> BTreeMap<String, String> {
    let pairs = variables.iter().filter_map(|variable| variable.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn network(destinations: &[String]) -> Outcome<Vec<HostPort>> {
    let parse = |text: &String| {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port| port != 0)?;
        (!host.is_empty()).then(|| HostPort { host: host.to_ascii_lowercase(), port })
    };
    let parsed = destinations.iter().map(|text| {
        parse(text).ok_or_else(|| {
            Failure::usage(format_args!("wick.dev/network: `{text}` is no host and port"))
                .help("write it like api.example.com:443")
        })
    });
    parsed.collect()
}

/// The name that grants a mount: the last part of its path. Of several with one name, the one
/// below `/mnt` is meant; without one, none is, since a guess would show a guest the wrong data.
fn by_name(volumes: &[&Mount]) -> BTreeMap<String, PathBuf> {
    let mut named: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
    for mount in volumes.iter().filter(|mount| mount.destination.is_dir()) {
        let name = mount.destination.file_name().and_then(|name| name.to_str());
        if let Some(name) = name {
            named.entry(name.to_owned()).or_default().push(&mount.destination);
        }
    }
    let one = |(name, places): (String, Vec<&Path>)| {
        let preferred = Path::new(BY_NAME).join(&name);
        let place = match places.as_slice() {
            [only] => only,
            several => {
                let found = several.iter().find(|place| ***place == *preferred);
                if found.is_none() {
                    tracing::warn!(name, "several mounts end in this name; none is granted by it");
                }
                found?
            }
        };
        Some((name, place.to_path_buf()))
    };
    named.into_iter().filter_map(one).collect()
}

/// The container's name as a model's, which has fewer letters.
fn model_name(name: &str) -> Outcome<PackageName> {
    let letters = name.chars().map(|letter| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9') => letter,
        _ => '-',
    });
    let text: String = letters.take(MAX_NAME_LEN).collect();
    let text = match text.trim_matches('-') {
        "" => "app",
        text => text,
    };
    text.parse().map_err(|error| Failure::new(Exit::Failure, "failed", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str) -> Mount {
        Mount {
            destination: destination.into(),
            kind: "bind".into(),
            source: "/".into(),
            flags: 0,
            propagation: 0,
            data: String::new(),
        }
    }

    #[test]
    fn a_mount_is_granted_by_the_last_part_of_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let place = folder.path().join(path);
            std::fs::create_dir_all(&place).unwrap();
            mount(place.to_str().unwrap())
        };
        let (one, two, three) = (place("a/data"), place("b/data"), place("b/models"));
        assert_eq!(by_name(&[&one, &three])["data"], one.destination);
        assert_eq!(by_name(&[&one, &two, &three]).keys().collect::<Vec<_>>(), ["models"]);
    }

    #[test]
    fn names_and_paths_are_made_plain() {
        assert_eq!(model_name("Web_1").unwrap().as_str(), "web-1");
        assert_eq!(model_name("--").unwrap().as_str(), "app");
        assert_eq!(plain(Path::new("/a/../b/./c.wasm")), Path::new("/b/c.wasm"));
        assert_eq!(image(Path::new("/models/a")), Path::new("/run/wick/image/models/a"));
    }

    #[test]
    fn destinations_have_a_host_and_a_port() {
        let of = |text: &str| network(&[text.to_owned()]);
        assert_eq!(of("API.example.com:443").unwrap()[0].host, "api.example.com");
        assert!(of("api.example.com").is_err() && of(":1").is_err() && of("a:0").is_err());
    }
}
