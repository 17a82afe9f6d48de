//! `wick inspect`: what is in a package.

use std::path::PathBuf;

use serde_json::{Value, json};
use wick_package::{Digest, GraphSpec, Manifest, Package, RelPath, TensorSpec};

use crate::failure::Outcome;
use crate::host;
use crate::output::{self, Format};

/// Show what is in a package: tensors, graphs, devices, layers, sizes, digests
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// A package directory, an OCI layout, or its tar
    #[arg(value_name = "PACKAGE", default_value = ".")]
    package: PathBuf,
    /// Leave out digests that would have to be computed
    #[arg(long)]
    no_digests: bool,
}

/// A file of the package.
struct File {
    path: String,
    role: &'static str,
    size: u64,
    digest: Option<Digest>,
}

pub fn run(args: &InspectArgs, format: Format) -> Outcome {
    let package = host::open(&args.package)?;
    let files = files(&package, !args.no_digests)?;
    match format {
        Format::Json => output::json(&to_json(&package, &files)),
        Format::Human | Format::Raw => output::line(to_text(&package, &files)),
    }
    Ok(())
}

fn files(package: &Package, digests: bool) -> Outcome<Vec<File>> {
    let one = |path: &RelPath, role| -> anyhow::Result<File> {
        let blob = package.file(path)?;
        let digest = match blob.digest {
            None if digests => Some(blob.hash()?),
            recorded => recorded,
        };
        Ok(File { path: path.to_string(), role, size: blob.len, digest })
    };
    let files = package.manifest().files();
    let files = files.iter().map(|file| one(file.path, file.role.as_str()));
    Ok(files.collect::<anyhow::Result<_>>()?)
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn to_json(package: &Package, files: &[File]) -> Value {
    let Manifest { name, version, description, handler, graphs, inputs, outputs, .. } =
        package.manifest();
    let limits = &package.manifest().limits;
    let wants = &package.manifest().wants;
    let files: Vec<_> = files
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
        "path": package.path(),
        "digest": package.digest(),
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
        "idle": { "graph_ms": package.manifest().idle.graph.map(millis) },
        "wants": {
            "network": wants.network.iter().map(|to| format!("{}:{}", to.host, to.port))
                .collect::<Vec<_>>(),
            "env": wants.env,
            "mounts": wants.mounts.iter().map(|mount| json!({
                "name": mount.name, "path": mount.path, "writable": mount.writable,
            })).collect::<Vec<_>>(),
        },
        "files": files,
        "layers": package.layers(),
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
        })).collect::<Vec<_>>(),
    })
}

fn to_text(package: &Package, files: &[File]) -> String {
    let manifest = package.manifest();
    let mut text = format!("{} {}\n", output::bold(manifest.name.as_str()), manifest.version);
    if let Some(description) = &manifest.description {
        text.push_str(&format!("{description}\n"));
    }
    text.push_str(&format!("{}\n", package.digest()));
    let mut add = |title: &str, table: String| {
        text.push_str(&format!("\n{}\n{table}\n", output::bold(title)));
    };
    add("Tensors", tensors(manifest));
    add("Graphs", graphs(manifest));
    add("Files", file_table(files));
    add("Layers", layers(package));
    text.trim_end().to_owned()
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
        let size = output::size(file.size);
        table.add_row([file.path.clone(), file.role.to_owned(), size, digest]);
    }
    table.trim_fmt()
}

fn layers(package: &Package) -> String {
    let mut table = output::table(["ROLE", "SIZE", "DIGEST", "FILES"]);
    for layer in package.layers() {
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
