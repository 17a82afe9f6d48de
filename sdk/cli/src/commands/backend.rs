//! `wick backend`: which inference libraries there are, and getting one.

use std::path::{Path, PathBuf};

use serde_json::json;
use wick_nn::BackendInfo;

use crate::backends::{self, Installed, Origin, What};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::host::HostArgs;
use crate::output::{self, Format};

/// List, install and remove inference backends
#[derive(Debug, clap::Args)]
pub struct BackendArgs {
    #[command(subcommand)]
    command: BackendCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BackendCommand {
    /// Show the backends and the devices that they find on this machine
    List {
        #[command(flatten)]
        host: HostArgs,
    },
    /// Install a backend, or a provider for other devices than the CPU, for this user
    ///
    /// It comes from its Python wheel, fetched by `python3 -m pip download` and checked against
    /// the digest that this version of wick knows. Python is not needed to use it.
    Install {
        /// onnxruntime, or one of its providers: cuda, tensorrt-rtx, openvino, qnn, webgpu
        #[arg(value_name = "NAME")]
        backend: What,
        /// Take it from this wheel, or from a folder with its libraries; nothing is downloaded,
        /// and the file is yours to trust
        #[arg(long, value_name = "WHEEL|DIR")]
        from: Option<PathBuf>,
        /// Which version to download, if not the one that wick is tested with
        #[arg(long, value_name = "VERSION", conflicts_with = "from")]
        version: Option<String>,
        /// Where to install it
        #[arg(long, value_name = "DIR", env = "WICK_BACKENDS")]
        backends: Option<PathBuf>,
        /// Install it even if it is there
        #[arg(long)]
        force: bool,
    },
    /// Remove an installed backend
    Remove {
        #[arg(value_name = "NAME")]
        backend: What,
        /// Only this version; all of them otherwise
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// Where it is installed
        #[arg(long, value_name = "DIR", env = "WICK_BACKENDS")]
        backends: Option<PathBuf>,
    },
}

pub fn run(args: &BackendArgs, format: Format) -> Outcome {
    match &args.command {
        BackendCommand::List { host } => list(host, format),
        BackendCommand::Install { backend, from, version, backends, force } => {
            let origin = match from {
                Some(path) => Origin::Local(path.clone()),
                None => {
                    let version = version.as_deref().unwrap_or_else(|| backend.version());
                    Origin::PyPi(version.to_owned())
                }
            };
            let installed =
                backends::install(&root(backends.as_deref())?, *backend, &origin, *force, format)?;
            report_install(&installed, format);
            Ok(())
        }
        BackendCommand::Remove { backend, version, backends } => {
            remove(&root(backends.as_deref())?, *backend, version.as_deref(), format)
        }
    }
}

fn list(host: &HostArgs, format: Format) -> Outcome {
    let found = host.nn()?.backends();
    if format == Format::Json {
        output::json(&json!({ "backends": found }));
        return Ok(());
    }
    let mut table = output::table(["BACKEND", "VERSION", "DEVICES", "FILE"]);
    for backend in &found {
        table.add_row([
            backend.name.clone(),
            backend.version.clone(),
            devices(backend),
            backend
                .path
                .as_ref()
                .map_or_else(|| "built in".to_owned(), |p| p.display().to_string()),
        ]);
    }
    output::line(table.trim_fmt());
    if !found.iter().any(|backend| backend.name == "onnxruntime") {
        eprintln!(
            "{} `wick backend install onnxruntime` adds ONNX Runtime, 2 to 14 times as fast",
            output::cyan("help:")
        );
    }
    Ok(())
}

fn devices(backend: &BackendInfo) -> String {
    if let Some(error) = &backend.error {
        return format!("unusable: {error}");
    }
    let one = |device: &wick_nn::Device| match &device.vendor {
        Some(vendor) => format!("{} ({}, {vendor})", device.kind, device.provider),
        None => format!("{} ({})", device.kind, device.provider),
    };
    backend.devices.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn report_install(installed: &Installed, format: Format) {
    if format == Format::Json {
        output::json(installed);
        return;
    }
    let Installed { backend, version, .. } = installed;
    let path = installed.path.display();
    match installed.fresh {
        true => output::line(format_args!("installed {backend} {version} in {path}")),
        false => output::line(format_args!("{backend} {version} is already in {path}")),
    }
}

fn remove(root: &Path, what: What, version: Option<&str>, format: Format) -> Outcome {
    let removed = backends::remove(root, what, version)?;
    if removed.is_empty() {
        let name = what.name();
        let text = format!("no {name} is installed in {}", root.display());
        return Err(Failure::new(Exit::NotFound, "not-found", text)
            .help("`wick backend list` shows what there is"));
    }
    match format {
        Format::Json => output::json(&json!({ "removed": removed })),
        _ => removed.iter().for_each(|path| {
            output::line(format_args!("removed {}", path.display()));
        }),
    }
    Ok(())
}

/// The folder that was named, or the user's own.
fn root(named: Option<&Path>) -> Outcome<PathBuf> {
    let own = || wick_nn::NnSettings::detect().backend_dirs.into_iter().next();
    named.map(Path::to_owned).or_else(own).ok_or_else(|| {
        Failure::usage("there is no home folder to install into")
            .help("set HOME or XDG_DATA_HOME, or name a folder with --backends")
    })
}
