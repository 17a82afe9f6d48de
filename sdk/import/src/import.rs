//! The whole way from a source to a package, the same for every source.
//!
//! ```text
//!   open ─▶ choose ─▶ bring ─▶ digest ─▶ read ─▶ weights beside it ─▶ place ─▶ wick.toml ─▶ rename
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use semver::Version;
use serde::Serialize;
use wick_package::{Digest, MANIFEST_FILE, PackageName, RelPath, TensorSpec};

use crate::choose::{self, Entry};
use crate::error::ImportError;
use crate::format::{self, Format, HEAD};
use crate::manifest::Draft;
use crate::mlflow::{self, MlflowSettings};
use crate::names;
use crate::onnx::{Declared, MAX_INLINE, Model, Plan};
use crate::place::Local;
use crate::progress::{Meter, Watch};
use crate::source::Source;
use crate::staging::{self, Staging};
use crate::tree::Opened;
use crate::tree::artifact;
use crate::tree::local::{self, Wanted};
use crate::{client, http, objects};

/// Files that are looked into to say what a source without a model is.
const MAX_LOOKED_AT: usize = 24;

/// Bytes gathered before they are written.
const WRITE_BUFFER: usize = 1 << 20;

/// The model in a package.
const MODEL_FILE: &str = "model.onnx";

/// How a source is imported.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder to make; the package's name below the current folder otherwise.
    pub out: Option<PathBuf>,
    /// The package's name and version, if not the source's.
    pub name: Option<PackageName>,
    pub version: Option<Version>,
    /// Which file of the source is the model.
    pub model: Option<String>,
    /// What the model's file must be.
    pub sha256: Option<Digest>,
    /// Which artifact of a layout with several.
    pub reference: Option<String>,
    pub max_size: u64,
    /// Follow links out of the folder that was named.
    pub follow_links: bool,
    /// Link to the source's file instead of copying it.
    pub hard_link: bool,
    /// Say what would be done.
    pub dry_run: bool,
    /// Authorities to trust instead of the system's.
    pub cacert: Option<PathBuf>,
    pub mlflow: MlflowSettings,
}

/// A package that was made, or would be.
#[derive(Debug, Serialize)]
pub struct Imported {
    pub name: PackageName,
    pub version: Version,
    pub path: PathBuf,
    pub origin: String,
    /// The file of the source that is the model.
    pub model: RelPath,
    /// Its size; none before it was fetched.
    pub size: Option<u64>,
    /// None before it was fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// What the user should know.
    pub notes: Vec<String>,
    pub dry_run: bool,
}

/// What goes into a model and comes out.
#[derive(Debug, Serialize)]
pub struct Signature {
    /// None where the model does not tell all shapes.
    pub inputs: Option<Vec<TensorSpec>>,
    pub outputs: Option<Vec<TensorSpec>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
}

/// The model on this disk, read, with the files that hold its weights.
struct Ready {
    file: Local,
    model: Model,
    weights: BTreeMap<RelPath, Local>,
    plan: Option<Plan>,
}

/// Import `source`.
///
/// # Errors
/// Says what is wrong with the source or the model, and what to do. A package folder is there
/// whole or not at all.
pub async fn import(
    source: &Source,
    settings: &Settings,
    watch: &mut Watch<'_>,
) -> Result<Imported, ImportError> {
    if let Some(out) = &settings.out {
        // Before anything is fetched.
        staging::check_free(out)?;
    }
    let mut opened = open(source, settings).await?;
    let entries = opened.tree.entries();
    let chosen = choose(&opened, &entries, settings).await?;
    let mut imported = describe(&opened, &chosen, settings);
    if settings.dry_run && opened.tree.is_elsewhere() {
        return Ok(imported);
    }
    staging::check_free(&imported.path)?;
    let scratch = tempfile::tempdir().map_err(ImportError::write(std::env::temp_dir()))?;
    let nowhere = scratch.path().join("package");
    let target = if settings.dry_run { &nowhere } else { &imported.path };
    let staging = Staging::open(target)?;
    let mut meter = Meter::new(watch);
    match make(&mut opened, &chosen, settings, &mut imported, &staging, &mut meter).await {
        Ok(()) if settings.dry_run => {}
        Ok(()) => staging.publish()?,
        Err(error) => {
            if error.is_resumable() {
                staging.keep();
            }
            return Err(error);
        }
    }
    imported.notes = opened.notes;
    Ok(imported)
}

async fn open(source: &Source, settings: &Settings) -> Result<Opened, ImportError> {
    let wanted = Wanted {
        follow_links: settings.follow_links,
        reference: settings.reference.as_deref(),
        max_size: settings.max_size,
    };
    let client = || client::client(settings.cacert.as_deref());
    match source {
        Source::Path(path) => local::open(path, wanted),
        Source::Layout { root, digest, origin } => {
            let digest = digest.to_string();
            artifact::open(root, origin.clone(), Some(&digest), settings.max_size)
        }
        Source::Http(url) => http::open(url, &client()?),
        Source::Objects(url) => objects::open(url, &client()?).await,
        Source::Mlflow(model) => mlflow::open(model, &settings.mlflow, &client()?, wanted).await,
        Source::Oci(reference) => Err(ImportError::Source {
            text: format!("oci://{reference}"),
            why: "it must be pulled before it is imported".to_owned(),
        }),
    }
}

/// The model's file, by its name and its first bytes.
async fn choose(
    opened: &Opened,
    entries: &[Entry],
    settings: &Settings,
) -> Result<Entry, ImportError> {
    let wanted = settings.model.as_deref().or(opened.model.as_deref());
    let chosen = match choose::choose(entries, wanted) {
        Ok(chosen) => chosen,
        Err(choose::ChooseError::NoModel { .. }) if !entries.is_empty() => {
            return Err(what_else(opened, entries).await?);
        }
        Err(source) => {
            return Err(ImportError::Choose { place: opened.origin.clone(), source });
        }
    };
    let place = opened.tree.place(&chosen.path);
    if let Some(len) = chosen.len.filter(|len| *len > settings.max_size) {
        return Err(ImportError::TooLarge { place, len, most: settings.max_size });
    }
    let head = opened.tree.head(&chosen.path, HEAD).await?;
    match format::recognise(chosen.path.as_str(), &head) {
        Some(Format::Onnx) => Ok(chosen.clone()),
        Some(format) => Err(ImportError::OtherFormat { place, format }),
        None => Err(ImportError::Unknown { place }),
    }
}

/// What a source is that holds no ONNX file: the largest file that is recognised tells.
async fn what_else(opened: &Opened, entries: &[Entry]) -> Result<ImportError, ImportError> {
    let mut entries: Vec<&Entry> = entries.iter().collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.len));
    for entry in entries.into_iter().take(MAX_LOOKED_AT) {
        let head = opened.tree.head(&entry.path, HEAD).await?;
        if let Some(format) = format::recognise(entry.path.as_str(), &head) {
            return Ok(ImportError::OtherFormat { place: opened.tree.place(&entry.path), format });
        }
    }
    Ok(ImportError::Unknown { place: opened.origin.clone() })
}

/// What will be made, before the model is looked into.
fn describe(opened: &Opened, chosen: &Entry, settings: &Settings) -> Imported {
    let file = [chosen.path.as_str().rsplit('/').next().unwrap_or_default()];
    let words = opened.name.iter().map(String::as_str).chain(file);
    let words = words.chain(opened.words.iter().map(String::as_str));
    let name = settings.name.clone().unwrap_or_else(|| names::package_name(words));
    let version = opened.version.as_deref();
    let version = settings.version.clone().unwrap_or_else(|| names::version(version));
    let path = settings.out.clone().unwrap_or_else(|| PathBuf::from(name.as_str()));
    Imported {
        name,
        version,
        path,
        origin: opened.origin.clone(),
        model: chosen.path.clone(),
        size: chosen.len,
        signature: None,
        notes: opened.notes.clone(),
        dry_run: settings.dry_run,
    }
}

/// Make the package in `staging`.
async fn make(
    opened: &mut Opened,
    chosen: &Entry,
    settings: &Settings,
    imported: &mut Imported,
    staging: &Staging,
    meter: &mut Meter<'_>,
) -> Result<(), ImportError> {
    let ready = bring(opened, chosen, settings, staging, meter).await?;
    let package = staging.package();
    let model: RelPath = MODEL_FILE.parse().expect("the constant is a path");
    let draft = Draft {
        name: imported.name.clone(),
        version: imported.version.clone(),
        description: opened.description.clone(),
        origin: opened.origin.clone(),
        model: model.clone(),
        inputs: ready.model.inputs.clone(),
        outputs: ready.model.outputs.clone(),
    };
    let path = package.join(MANIFEST_FILE);
    let text = draft.text();
    wick_package::parse(&text, &path).map_err(ImportError::Manifest)?;
    for (side, all) in [("input", &draft.inputs), ("output", &draft.outputs)] {
        if all.iter().any(|declared| declared.shape.is_none()) {
            opened.notes.push(format!("the model does not tell all shapes of its {side}s"));
        }
    }
    imported.size = Some(ready.plan.as_ref().map_or(ready.model.len, |plan| plan.len));
    imported.signature = Some(Signature {
        inputs: draft.inputs.iter().map(Declared::spec).collect(),
        outputs: draft.outputs.iter().map(Declared::spec).collect(),
        producer: ready.model.producer.clone(),
    });
    ready.note(opened);
    if settings.dry_run {
        return Ok(());
    }
    let linked = ready.place(&package, &model, settings, meter)?;
    if linked {
        opened.notes.push("the weights are linked: a change of the source changes them".to_owned());
    }
    write(&path, text.as_bytes())
}

/// Bring the model and its weights to this disk, and read it.
async fn bring(
    opened: &Opened,
    chosen: &Entry,
    settings: &Settings,
    staging: &Staging,
    meter: &mut Meter<'_>,
) -> Result<Ready, ImportError> {
    let (parts, most) = (staging.parts(), settings.max_size);
    let place = opened.tree.place(&chosen.path);
    let file = opened.tree.bring(&chosen.path, &parts, most, meter).await?;
    if let Some(want) = settings.sha256 {
        let got = file.digest()?;
        if got != want {
            return Err(ImportError::Digest { place, got, want });
        }
    }
    let open = File::open(file.path()).map_err(ImportError::read(file.path()))?;
    let model =
        Model::read(open).map_err(|source| ImportError::Model { place: place.clone(), source })?;
    let folder = chosen.path.as_str().rsplit_once('/').map(|(folder, _)| folder);
    let (mut weights, mut sizes) = (BTreeMap::new(), BTreeMap::new());
    for location in model.external_files() {
        let path = match folder {
            Some(folder) => format!("{folder}/{location}").parse(),
            None => Ok(location.clone()),
        };
        let path = path.map_err(|_| ImportError::missing(&place, &location))?;
        let brought = opened.tree.bring(&path, &parts, most, meter).await?;
        sizes.insert(location.clone(), brought.len()?);
        weights.insert(location, brought);
    }
    let plan =
        Plan::new(&model, &sizes).map_err(|source| ImportError::Weights { place, source })?;
    let plan = Some(plan).filter(|plan| !weights.is_empty() && plan.len <= MAX_INLINE);
    Ok(Ready { file, model, weights, plan })
}

// === impl Ready ===

impl Ready {
    fn note(&self, opened: &mut Opened) {
        let count = self.weights.len();
        if self.plan.is_some() {
            let note = format!("the weights of {count} files beside the model were put into it");
            opened.notes.push(note);
        } else if count > 0 {
            opened.notes.push(
                "the model and its weights have more than 2 GiB, which no ONNX file can have: the \
                 weights stay beside it, where `wick run` finds them; `wick pack` refuses it"
                    .to_owned(),
            );
        }
    }

    /// Put the files into the package. Whether some are links to the source.
    fn place(
        &self,
        package: &Path,
        model: &RelPath,
        settings: &Settings,
        meter: &mut Meter<'_>,
    ) -> Result<bool, ImportError> {
        let to = package.join(model.as_str());
        if let Some(plan) = &self.plan {
            self.inline(plan, &to, meter)?;
            return Ok(false);
        }
        let mut linked = self.file.place(&to, settings.hard_link, meter)?;
        for (location, file) in &self.weights {
            let to = package.join(location.as_str());
            if to.exists() || location.as_str() == MANIFEST_FILE {
                let why = "the package has another file of that name".to_owned();
                return Err(ImportError::Source { text: location.to_string(), why });
            }
            linked |= file.place(&to, settings.hard_link, meter)?;
        }
        Ok(linked)
    }

    fn inline(&self, plan: &Plan, to: &Path, meter: &mut Meter<'_>) -> Result<(), ImportError> {
        let open = |path: &Path| File::open(path).map_err(ImportError::read(path));
        let mut model = open(self.file.path())?;
        let outside = self.weights.iter();
        let outside = outside.map(|(location, file)| Ok((location.clone(), open(file.path())?)));
        let mut outside = outside.collect::<Result<BTreeMap<_, _>, ImportError>>()?;
        let file = File::create_new(to).map_err(ImportError::write(to))?;
        let mut writer = BufWriter::with_capacity(WRITE_BUFFER, file);
        meter.begin(MODEL_FILE, 0, Some(plan.len));
        plan.write(&mut model, &mut outside, &mut writer, &mut |count| meter.advance(count))
            .and_then(|()| writer.flush())
            .and_then(|()| writer.get_ref().sync_all())
            .map_err(ImportError::write(to))
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ImportError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(ImportError::write(path))
}
