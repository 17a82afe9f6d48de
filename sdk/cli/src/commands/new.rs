//! `wick new`: a package to start from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use wick_package::PackageName;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Format};
use crate::templates::{Template, Values};

/// Where this executable was built, if that was inside wick's own repository.
const SDK_OF_BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest");

/// Make a package to start from
///
/// It serves at once: a tiny placeholder stands where your model goes.
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// The folder to make; its last part names the package
    dir: PathBuf,
    /// What to start from
    #[arg(short, long, value_enum, default_value = "handler")]
    template: Template,
    /// The package's name, if not the folder's
    #[arg(long)]
    name: Option<String>,
    /// Start with this model file instead of the placeholder
    #[arg(long, value_name = "MODEL.onnx")]
    model: Option<PathBuf>,
    /// Source of the guest SDK: the folder sdk/guest of wick's repository. Without it, the
    /// repository that wick was built in, or else the published crate
    #[arg(long, value_name = "DIR", env = "WICK_SDK")]
    sdk: Option<PathBuf>,
    /// Write into a folder that is not empty, over files of the same name
    #[arg(long)]
    force: bool,
}

pub fn run(args: &NewArgs, format: Format) -> Outcome {
    let name = name(args)?;
    if !args.force && is_used(&args.dir) {
        let text = format!("{} exists and is not empty", args.dir.display());
        return Err(Failure::new(Exit::CannotCreate, "exists", text)
            .help("choose another folder, or write over its files with --force"));
    }
    let sdk = sdk(args)?;
    let model = match &args.model {
        Some(path) => {
            let context = || format!("cannot read the model {}", path.display());
            Some(fs::read(path).with_context(context)?)
        }
        None => None,
    };
    let mut written = Vec::new();
    for file in args.template.files(&Values { name: name.as_str(), sdk: sdk.as_deref() }) {
        let content = match &model {
            Some(model) if file.path == "model.onnx" => model,
            _ => &file.content,
        };
        write(&args.dir.join(file.path), content)?;
        written.push(file.path);
    }
    report(args, &name, &written, format);
    Ok(())
}

fn report(args: &NewArgs, name: &PackageName, written: &[&str], format: Format) {
    let steps = args.template.next_steps();
    if format == Format::Json {
        output::json(&json!({
            "name": name, "path": args.dir, "files": written, "next": steps,
        }));
        return;
    }
    output::line(format_args!("made {} with {}", args.dir.display(), written.join(", ")));
    eprintln!("\nnext:\n  cd {}", args.dir.display());
    for step in steps {
        eprintln!("  {step}");
    }
}

fn name(args: &NewArgs) -> Outcome<PackageName> {
    let of_folder = || {
        // `.` and `a/..` have no last part before they are resolved.
        let dir = fs::canonicalize(&args.dir).unwrap_or_else(|_| args.dir.clone());
        dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let text = args.name.clone().unwrap_or_else(of_folder);
    text.parse().map_err(|error: wick_package::NameError| {
        Failure::usage(error).help("choose a name with --name")
    })
}

/// The SDK's source, as an absolute path; none for the published crate.
fn sdk(args: &NewArgs) -> Outcome<Option<PathBuf>> {
    let is_sdk = |path: &Path| path.join("Cargo.toml").is_file();
    match &args.sdk {
        Some(path) if is_sdk(path) => {
            let absolute = fs::canonicalize(path);
            Ok(Some(absolute.with_context(|| format!("cannot find {}", path.display()))?))
        }
        Some(path) => {
            let text = format!("there is no guest SDK in {}", path.display());
            Err(Failure::usage(text).help("name the folder sdk/guest of wick's repository"))
        }
        None => {
            let path = Path::new(SDK_OF_BUILD);
            Ok(fs::canonicalize(path).ok().filter(|path| is_sdk(path)))
        }
    }
}

fn is_used(dir: &Path) -> bool {
    match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        // A file in its place cannot be a folder.
        Err(_) => dir.exists(),
    }
}

fn write(path: &Path, content: &[u8]) -> Outcome {
    let failed = |error: std::io::Error| {
        let text = format!("cannot write {}", path.display());
        Failure::new(Exit::CannotCreate, "cannot-create", text).caused_by(Some(&error))
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, content).map_err(failed)
}
