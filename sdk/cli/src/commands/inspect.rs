//! `wick inspect`: what is in a package.

use std::path::PathBuf;

use serde_json::{Value, json};
use wick_package::oci::Descriptor;
use wick_package::signature::{Otherwise, Policy, Signature};
use wick_package::{Digest, GraphSpec, Layer, Manifest, Package, RelPath, TensorSpec};

use crate::failure::{Failure, Outcome};
use crate::host;
use crate::output::{self, Format};
use crate::policy::{self, SignatureArgs};
use crate::registries::{self, ImageArgs};
use crate::signatures::{self, Shown};

/// Show what is in a package: tensors, graphs, devices, layers, sizes, digests, signatures
///
/// Of an image at a registry, only what describes it is fetched, and not the weights. What
/// signatures say is only known to be so where --key or --policy names the key; `wick verify`
/// decides.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wick inspect ./filetype
  wick inspect filetype-1.2.0.tar --key release.pub
  wick inspect registry.example.com/team/filetype:1.2.0 --policy policy.toml --output json")]
pub struct InspectArgs {
    /// A package directory, an OCI layout, its tar, or an image of the store or of a registry
    #[arg(value_name = "PACKAGE", default_value = ".")]
    package: PathBuf,
    /// Leave out digests that would have to be computed
    #[arg(long)]
    no_digests: bool,
    /// Ask the registry, even if the image is in the store
    #[arg(long)]
    remote: bool,
    /// A public key: say which signatures it has made; several times for several
    #[arg(long, value_name = "FILE", conflicts_with = "policy")]
    key: Vec<PathBuf>,
    /// Say which signatures the keys of this policy have made
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    signatures: SignatureArgs,
    #[command(flatten)]
    images: ImageArgs,
}

/// What is shown.
struct View {
    manifest: Manifest,
    digest: Digest,
    path: Option<PathBuf>,
    layers: Vec<Layer>,
    files: Vec<File>,
    /// None for what is no image of the store or of a registry.
    image: Option<Image>,
    signatures: Vec<Shown>,
}

/// What an image has beside the package.
struct Image {
    reference: String,
    platforms: Vec<String>,
    referrers: Vec<Descriptor>,
}

/// A file of the package.
struct File {
    path: String,
    role: &'static str,
    /// None where only its layer's is known.
    size: Option<u64>,
    digest: Option<Digest>,
}

pub fn run(args: &InspectArgs, format: Format) -> Outcome {
    let keys = match &args.policy {
        Some(path) => policy::read(path)?.keys,
        None => policy::trusted(&args.key)?,
    };
    let (mut view, mut found) = view(args)?;
    found.extend(beside(args, view.digest)?);
    let shown = found.iter().map(|signature| Shown::of(signature, view.digest, &keys));
    for signature in shown {
        // One may be beside the image and in the node's store as well.
        if !view.signatures.contains(&signature) {
            view.signatures.push(signature);
        }
    }
    match format {
        Format::Json => output::json(&to_json(&view)),
        Format::Human | Format::Raw => output::line(to_text(&view)),
    }
    Ok(())
}

/// The signatures in the envelopes that were named, in the one beside the image, and in the node's
/// store.
fn beside(args: &InspectArgs, digest: Digest) -> Outcome<Vec<Signature>> {
    // It is not asked: nothing is opened by it.
    let policy = Policy { default: Otherwise::Deny, keys: Vec::new(), rules: Vec::new() };
    let gate = args.signatures.gate(policy, None)?;
    gate.signatures(&args.package, digest).map_err(|error| Failure::open(&error))
}

/// What is shown, and the signatures that came with it.
fn view(args: &InspectArgs) -> Outcome<(View, Vec<Signature>)> {
    let Some(name) = registries::name_of(&args.package) else {
        return Ok((View::of(&host::open(&args.package)?, !args.no_digests)?, Vec::new()));
    };
    if !args.remote {
        let store = args.images.store()?;
        if let Ok(image) = store.find(name) {
            let opened = store.open_package(&image.descriptor);
            let (package, _lease) = opened.map_err(|error| Failure::stored(&error))?;
            let mut view = View::of(&package, !args.no_digests)?;
            let reference = image.names.first().cloned().unwrap_or_else(|| name.to_owned());
            let referrers = image.referrers;
            view.image = Some(Image { reference, platforms: Vec::new(), referrers });
            let found = signatures::stored(&store, view.digest)?;
            return Ok((view, found));
        }
        if !registries::is_whole_name(name) {
            // The error of a path, which a word like this mostly is.
            return Ok((View::of(&host::open(&args.package)?, false)?, Vec::new()));
        }
    }
    remote(args, name)
}

fn remote(args: &InspectArgs, name: &str) -> Outcome<(View, Vec<Signature>)> {
    let reference = registries::reference(name)?;
    let registry = args.images.registry()?;
    let seen = registries::block_on(async {
        registry.inspect(&reference).await.map_err(|error| Failure::of(&error))
    })?;
    let found = signatures::remote(&registry, &reference, seen.digest, &seen.referrers)?;
    let files = seen.manifest.files().into_iter().map(|file| File {
        path: file.path.to_string(),
        role: file.role.as_str(),
        size: None,
        digest: seen.file_digests.get(file.path.as_str()).copied(),
    });
    let view = View {
        files: files.collect(),
        digest: seen.digest,
        path: None,
        layers: seen.layers,
        image: Some(Image {
            reference: reference.to_string(),
            platforms: seen.platforms,
            referrers: seen.referrers,
        }),
        manifest: seen.manifest,
        signatures: Vec::new(),
    };
    Ok((view, found))
}

// === impl View ===

impl View {
    fn of(package: &Package, digests: bool) -> Outcome<Self> {
        Ok(Self {
            manifest: package.manifest().clone(),
            digest: package.digest(),
            path: Some(package.path().to_owned()),
            layers: package.layers(),
            files: files(package, digests)?,
            image: None,
            signatures: Vec::new(),
        })
    }
}

fn files(package: &Package, digests: bool) -> Outcome<Vec<File>> {
    let one = |path: &RelPath, role| -> anyhow::Result<File> {
        let blob = package.file(path)?;
        let digest = match blob.digest {
            None if digests => Some(blob.hash()?),
            recorded => recorded,
        };
        Ok(File { path: path.to_string(), role, size: Some(blob.len), digest })
    };
    let files = package.manifest().files();
    let files = files.iter().map(|file| one(file.path, file.role.as_str()));
    Ok(files.collect::<anyhow::Result<_>>()?)
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn to_json(view: &View) -> Value {
    let Manifest { name, version, description, handler, graphs, inputs, outputs, .. } =
        &view.manifest;
    let limits = &view.manifest.limits;
    let wants = &view.manifest.wants;
    let files: Vec<_> = view
        .files
        .iter()
        .map(|file| {
            json!({
                "path": file.path, "role": file.role, "size": file.size, "digest": file.digest,
            })
        })
        .collect();
    json!({
        "name": name,
        "version": version.to_string(),
        "description": description,
        "path": view.path,
        "digest": view.digest,
        "handler": handler.as_ref().map(|handler| handler.component.as_str()),
        "graphs": graphs.iter().map(graph_json).collect::<Vec<_>>(),
        "inputs": inputs,
        "outputs": outputs,
        "limits": {
            "memory": limits.memory,
            "timeout_ms": millis(limits.timeout),
            "concurrency": limits.concurrency,
            "queue": limits.queue,
            "queue_timeout_ms": limits.queue_timeout.map(millis),
            "weight": limits.weight,
            "request": limits.request,
        },
        "idle": { "graph_ms": view.manifest.idle.graph.map(millis) },
        "wants": {
            "network": wants.network.iter().map(|to| format!("{}:{}", to.host, to.port))
                .collect::<Vec<_>>(),
            "env": wants.env,
            "mounts": wants.mounts.iter().map(|mount| json!({
                "name": mount.name, "path": mount.path, "writable": mount.writable,
            })).collect::<Vec<_>>(),
        },
        "files": files,
        "layers": view.layers,
        "signatures": view.signatures,
        "image": view.image.as_ref().map(|image| json!({
            "reference": image.reference,
            "platforms": image.platforms,
            "referrers": image.referrers,
        })),
    })
}

fn graph_json(graph: &GraphSpec) -> Value {
    json!({
        "name": graph.name,
        "path": graph.path,
        "devices": graph.devices,
        "min_device_share": graph.min_device_share,
        "threads": graph.threads,
        "backend": graph.backend,
        "batch": graph.batch.map(|batch| json!({
            "max": batch.max,
            "delay_us": u64::try_from(batch.delay.as_micros()).unwrap_or(u64::MAX),
        })),
        "variants": graph.variants.iter().map(|variant| json!({
            "device": variant.device, "vendor": variant.vendor, "path": variant.path,
            "options": variant.options,
        })).collect::<Vec<_>>(),
    })
}

fn to_text(view: &View) -> String {
    let manifest = &view.manifest;
    let mut text = format!("{} {}\n", output::bold(manifest.name.as_str()), manifest.version);
    if let Some(description) = &manifest.description {
        text.push_str(&format!("{description}\n"));
    }
    text.push_str(&format!("{}\n", view.digest));
    if let Some(image) = &view.image {
        text.push_str(&format!("{}\n", image.reference));
        if !image.platforms.is_empty() {
            text.push_str(&format!("for {}\n", image.platforms.join(", ")));
        }
    }
    let mut add = |title: &str, table: String| {
        text.push_str(&format!("\n{}\n{table}\n", output::bold(title)));
    };
    add("Tensors", tensors(manifest));
    add("Graphs", graphs(manifest));
    add("Files", file_table(&view.files));
    add("Layers", layers(&view.layers));
    add("Signatures", signatures::table(&view.signatures));
    if let Some(image) = &view.image {
        add("Referrers", referrers(&image.referrers));
    }
    text.trim_end().to_owned()
}

fn referrers(referrers: &[Descriptor]) -> String {
    if referrers.is_empty() {
        return "none".to_owned();
    }
    let mut table = output::table(["TYPE", "DIGEST", "SIZE"]);
    for referrer in referrers {
        let kind = referrer.artifact_type.as_deref().unwrap_or(&referrer.media_type);
        let size = output::size(referrer.size);
        table.add_row([kind.to_owned(), referrer.digest.short(), size]);
    }
    table.trim_fmt()
}

fn tensors(manifest: &Manifest) -> String {
    if manifest.inputs.is_empty() && manifest.outputs.is_empty() {
        let whose = match manifest.handler {
            Some(_) => "none: it is not called with tensors",
            None => "the graph's own: `wick run` shows them at /v2/models/NAME",
        };
        return whose.to_owned();
    }
    let mut table = output::table(["", "NAME", "TYPE", "SHAPE"]);
    let mut rows = |which: &str, specs: &[TensorSpec]| {
        for spec in specs {
            let datatype = spec.datatype.to_string();
            table.add_row([which.to_owned(), spec.name.clone(), datatype, spec.shape_text()]);
        }
    };
    rows("in", &manifest.inputs);
    rows("out", &manifest.outputs);
    table.trim_fmt()
}

fn graphs(manifest: &Manifest) -> String {
    if manifest.graphs.is_empty() {
        return "none".to_owned();
    }
    let mut table = output::table(["NAME", "FILE", "DEVICES", "THREADS", "BACKEND", "BATCH"]);
    for graph in &manifest.graphs {
        let devices: Vec<_> = graph.devices.iter().map(|device| device.as_str()).collect();
        let batch = graph.batch.map(|batch| format!("{} in {:?}", batch.max, batch.delay));
        table.add_row([
            graph.name.to_string(),
            graph.path.to_string(),
            devices.join(", "),
            graph.threads.map_or_else(|| "all".to_owned(), |threads| threads.to_string()),
            graph.backend.as_ref().map_or_else(|| "best".to_owned(), ToString::to_string),
            batch.unwrap_or_else(|| "off".to_owned()),
        ]);
    }
    table.trim_fmt()
}

fn file_table(files: &[File]) -> String {
    let mut table = output::table(["PATH", "ROLE", "SIZE", "DIGEST"]);
    for file in files {
        let digest = file.digest.map_or_else(String::new, |digest| digest.short());
        let size = file.size.map_or_else(String::new, output::size);
        table.add_row([file.path.clone(), file.role.to_owned(), size, digest]);
    }
    table.trim_fmt()
}

fn layers(layers: &[Layer]) -> String {
    let mut table = output::table(["ROLE", "SIZE", "DIGEST", "FILES"]);
    for layer in layers {
        let role = serde_json::to_value(layer.role).unwrap_or_default();
        table.add_row([
            role.as_str().unwrap_or_default().to_owned(),
            output::size(layer.size),
            layer.digest.map_or_else(|| "not packed".to_owned(), |digest| digest.short()),
            layer.files.join(", "),
        ]);
    }
    table.trim_fmt()
}
