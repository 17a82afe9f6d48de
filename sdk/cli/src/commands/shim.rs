//! `wick shim`: make containerd know the shim.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use crate::containerd::{self, Beside, ConfigError, Edited, Runtime};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};

/// The shim's executable, as containerd looks for it.
const SHIM: &str = "containerd-shim-wick-v1";

/// The system's configuration.
const CONFIG: &str = "/etc/containerd/config.toml";

/// Those of distributions that bring their own containerd and write its configuration.
const GENERATED_CONFIGS: [&str; 2] = [
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
];

/// Let a containerd run packages as pods
#[derive(Debug, clap::Args)]
pub struct ShimArgs {
    #[command(subcommand)]
    command: ShimCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ShimCommand {
    /// Add the runtime to containerd's configuration
    ///
    /// Works with versions 2, 3 and 4 of the configuration, and twice is as good as once.
    /// What k3s and RKE2 write anew at each start is left alone: they get a drop-in, or a template
    /// where they have no drop-ins. containerd must be restarted afterwards, and the cluster needs
    /// a RuntimeClass, which this prints.
    Register {
        #[command(flatten)]
        file: FileArgs,
        /// The shim's executable; the one beside `wick` unless given, else containerd's PATH
        #[arg(long, value_name = "PATH")]
        shim: Option<PathBuf>,
        /// The runtime's name, which is the RuntimeClass's `handler`
        #[arg(long, value_name = "NAME", default_value = "wick", value_parser = handler)]
        handler: String,
    },
    /// Take the runtime out again
    Unregister {
        #[command(flatten)]
        file: FileArgs,
    },
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// containerd's configuration; the system's, or that of k3s or RKE2, unless given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the new configuration, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &ShimArgs, format: Format) -> Outcome {
    match &args.command {
        ShimCommand::Register { file, shim, handler } => {
            let shim = match shim {
                Some(shim) => Some(existing(shim)?),
                None => beside_wick(),
            };
            let runtime = Runtime { handler, shim: shim.as_deref() };
            let target = Target::find(file)?;
            let edited = match &target.beside {
                Some(beside) => containerd::register_beside(&target.old, beside, runtime),
                None => containerd::register(&target.old, runtime),
            };
            let edited = edited.map_err(|error| refused(&target.path, &error))?;
            target.finish(&edited, file.dry_run, format)?;
            if format == Format::Human && !file.dry_run {
                eprintln!("\nthe cluster needs this once:\n\n{}", runtime_class(handler));
            }
            Ok(())
        }
        ShimCommand::Unregister { file } => {
            let target = Target::find(file)?;
            let edited = match &target.beside {
                Some(beside) => containerd::unregister_beside(&target.old, beside),
                None => containerd::unregister(&target.old),
            };
            let edited = edited.map_err(|error| refused(&target.path, &error))?;
            target.finish(&edited, file.dry_run, format)
        }
    }
}

/// The file that the runtime goes into.
struct Target {
    path: PathBuf,
    /// Its text, as containerd sees it.
    old: String,
    /// It stands beside a configuration that is written anew at each start.
    beside: Option<Beside>,
}

// === impl Target ===

impl Target {
    fn find(file: &FileArgs) -> Outcome<Self> {
        let config = file.config.clone().unwrap_or_else(usual_config);
        let old = read(&config)?;
        let folder = config.parent().unwrap_or_else(|| Path::new("/"));
        let beside = containerd::beside_generated(&old, folder);
        let Some(beside) = beside.map_err(|error| refused(&config, &error))? else {
            return Ok(Self { path: config, old, beside: None });
        };
        let there = read(&beside.path)?;
        let old = if there.is_empty() { beside.base.clone() } else { there };
        Ok(Self { path: beside.path.clone(), old, beside: Some(beside) })
    }

    /// Write the new configuration and say what was done.
    fn finish(&self, edited: &Edited, dry_run: bool, format: Format) -> Outcome {
        for warning in &edited.warnings {
            eprintln!("{} {warning}", output::red("warning:"));
        }
        let changed = edited.text != self.old;
        if dry_run && format == Format::Human {
            output::line(edited.text.trim_end());
            return Ok(());
        }
        if changed && !dry_run {
            write(&self.path, &edited.text)?;
        }
        let path = self.path.display();
        let service = if self.beside.is_some() { "k3s" } else { "containerd" };
        if format == Format::Json {
            output::json(&json!({
                "config": self.path,
                "version": edited.version,
                "changed": changed,
                "dry_run": dry_run,
                "restart": service,
                "warnings": edited.warnings,
            }));
        } else if changed {
            eprintln!("{path} is changed; restart {service}: systemctl restart {service}");
        } else {
            eprintln!("{path} is as it should be");
        }
        Ok(())
    }
}

/// The configuration that this node's containerd reads.
fn usual_config() -> PathBuf {
    let there = GENERATED_CONFIGS.iter().map(Path::new).find(|path| path.is_file());
    there.unwrap_or_else(|| Path::new(CONFIG)).to_owned()
}

/// The configuration, empty if there is none: containerd then runs on its defaults.
fn read(path: &Path) -> Outcome<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => {
            let text = format!("cannot read {}", path.display());
            Err(Failure::new(Exit::Failure, "io", text).caused_by(Some(&error)))
        }
    }
}

/// Replace the file as a whole, so that a crash leaves the old one or the new one.
fn write(path: &Path, text: &str) -> Outcome {
    let write = || -> anyhow::Result<()> {
        // A link stays one, and its target is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().context("it has no folder")?;
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        if let Ok(metadata) = fs::metadata(&path) {
            file.as_file().set_permissions(metadata.permissions())?;
        }
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(|error| {
        let text = format!("cannot write {}: {error:#}", path.display());
        Failure::new(Exit::CannotCreate, "io", text).help("run it as root, or give --config")
    })
}

fn refused(path: &Path, error: &ConfigError) -> Failure {
    Failure::new(Exit::BadData, "containerd-config", format!("{}: {error}", path.display()))
}

fn existing(shim: &Path) -> Outcome<PathBuf> {
    fs::canonicalize(shim).ok().filter(|path| path.is_file()).ok_or_else(|| {
        let text = format!("--shim {}: there is no such file", shim.display());
        Failure::new(Exit::NotFound, "not-found", text)
    })
}

fn beside_wick() -> Option<PathBuf> {
    let shim = std::env::current_exe().ok()?.with_file_name(SHIM);
    shim.is_file().then_some(shim)
}

fn runtime_class(handler: &str) -> String {
    format!(
        "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata:\n  name: wick\n\
         handler: {handler}\n"
    )
}

/// A name as Kubernetes takes it for a handler.
fn handler(text: &str) -> Result<String, String> {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = !text.is_empty() && text.len() <= 63 && text.chars().all(label);
    if fits && !text.starts_with('-') && !text.ends_with('-') {
        Ok(text.to_owned())
    } else {
        Err("a handler has lower case letters, digits and `-`, as a DNS label".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_dns_labels() {
        assert!(handler("wick").is_ok() && handler("wick-2").is_ok());
        for bad in ["", "Wick", "-wick", "wick-", "wick.dev", "a/b", &"a".repeat(64)] {
            assert!(handler(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_a_missing_one_is_made() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("containerd/config.toml");
        write(&path, "version = 2\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, "version = 3\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "version = 3\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(read(&dir.path().join("none")).unwrap(), "");
    }
}
