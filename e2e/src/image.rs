//! An OCI image made in memory from files: one layer, one platform, and a configuration that
//! no other image has, since containerd's CRI takes two images with equal configurations
//! for one. Written as an archive to import, or pushed by `registry`.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Media types of the OCI image specification.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Permissions of a program and of a plain file in an image.
const PROGRAM: u32 = 0o755;
const PLAIN: u32 = 0o644;

/// An image that is being put together.
pub struct Image {
    reference: String,
    files: Vec<(String, u32, Vec<u8>)>,
    links: Vec<(String, String)>,
    entrypoint: Vec<String>,
    env: Vec<String>,
    labels: Vec<(String, String)>,
    user: Option<String>,
}

/// What an image consists of, ready to be sent.
pub struct Built {
    pub reference: String,
    pub manifest: Vec<u8>,
    /// The configuration and the layer.
    pub blobs: Vec<Vec<u8>>,
}

// === impl Image ===

impl Image {
    /// An image without files. The reference is its full name, such as
    /// `docker.io/local/name:1`.
    pub fn new(reference: &str) -> Self {
        Self {
            reference: reference.to_owned(),
            files: Vec::new(),
            links: Vec::new(),
            entrypoint: Vec::new(),
            env: Vec::new(),
            labels: Vec::new(),
            user: None,
        }
    }

    /// Add a program or a library from the machine. One that is not linked statically needs its
    /// loader and libraries in the image, too.
    pub fn program(self, path: &str, program: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
        Ok(self.with(path, PROGRAM, bytes))
    }

    /// Add a plain file.
    pub fn file(self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.with(path, PLAIN, bytes.into())
    }

    /// Add a symbolic link, wherever it leads.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.links.push((path.trim_start_matches('/').to_owned(), target.to_owned()));
        self
    }

    /// Add all files of a folder of the machine below `path`.
    pub fn folder(mut self, path: &str, folder: &Path) -> anyhow::Result<Self> {
        let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let below = format!("{path}/{}", entry.file_name().to_string_lossy());
            self = if entry.path().is_dir() {
                self.folder(&below, &entry.path())?
            } else {
                let file = entry.path();
                let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
                self.file(&below, bytes)
            };
        }
        Ok(self)
    }

    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(ToString::to_string).collect();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Who runs it, such as `65532:65532`; root if nothing is said.
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Put the layer, the configuration and the manifest together.
    pub fn build(&self) -> anyhow::Result<Built> {
        let layer = self.layer()?;
        let config = serde_json::to_vec(&self.config(&digest(&layer)))?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &layer)],
        });
        Ok(Built {
            reference: self.reference.clone(),
            manifest: serde_json::to_vec(&manifest)?,
            blobs: vec![config, layer],
        })
    }

    /// Write it as a tar of an OCI layout, to import by `ctr images import`.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let archive = self.build()?.archive()?;
        fs::write(path, archive).with_context(|| format!("write {}", path.display()))
    }

    fn with(mut self, path: &str, mode: u32, bytes: Vec<u8>) -> Self {
        self.files.push((path.trim_start_matches('/').to_owned(), mode, bytes));
        self
    }

    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, mode, bytes) in &self.files {
            append(&mut tar, path, *mode, bytes)?;
        }
        for (path, target) in &self.links {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(PROGRAM);
            header.set_mtime(0);
            let added = tar.append_link(&mut header, path, target);
            added.with_context(|| format!("add the link {path}"))?;
        }
        tar.into_inner().context("end the layer")
    }

    fn config(&self, layer: &str) -> Value {
        let mut labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        // What makes the configuration differ from that of an image with the same files.
        labels.insert("org.opencontainers.image.ref.name".to_owned(), json!(self.reference));
        json!({
            "os": "linux",
            "architecture": architecture(),
            "rootfs": { "type": "layers", "diff_ids": [layer] },
            "config": {
                "User": self.user.as_deref().unwrap_or_default(),
                "Entrypoint": self.entrypoint,
                "Env": self.env,
                "Labels": labels,
                "WorkingDir": "/",
            },
        })
    }
}

// === impl Built ===

impl Built {
    /// A tar of an OCI layout.
    pub fn archive(&self) -> anyhow::Result<Vec<u8>> {
        let mut entry = descriptor(MANIFEST, &self.manifest);
        entry["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": self.reference,
        });
        entry["platform"] = json!({ "os": "linux", "architecture": architecture() });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, "oci-layout", PLAIN, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut tar, "index.json", PLAIN, &serde_json::to_vec(&index)?)?;
        for blob in self.blobs.iter().chain([&self.manifest]) {
            let path = format!("blobs/{}", digest(blob).replace(':', "/"));
            append(&mut tar, &path, PLAIN, blob)?;
        }
        tar.into_inner().context("end the archive")
    }

    /// The media type of the manifest, which a registry wants to be told.
    pub fn media_type(&self) -> &'static str {
        MANIFEST
    }
}

/// `sha256:` and the digest in hex.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// The machine's architecture as the specification spells it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Root's, and of no particular time, so that the same files give the same digest.
fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(u64::try_from(bytes.len())?);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("add {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_image_has_the_same_bytes_and_another_name_another_configuration()
    -> anyhow::Result<()> {
        let image = |name: &str| Image::new(name).file("/a", "b").entrypoint(&["/a"]).build();
        let (one, same, other) = (image("x/a:1")?, image("x/a:1")?, image("x/b:1")?);
        assert_eq!(one.archive()?, same.archive()?);
        assert_eq!(one.blobs[1], other.blobs[1]);
        assert_ne!(one.blobs[0], other.blobs[0]);
        Ok(())
    }

    #[test]
    fn every_blob_of_an_archive_has_its_digest_for_a_name() -> anyhow::Result<()> {
        let scratch = tempfile::tempdir()?;
        fs::create_dir(scratch.path().join("sub"))?;
        fs::write(scratch.path().join("sub/file"), "text")?;
        let archive = Image::new("x/a:1").folder("/data", scratch.path())?.build()?.archive()?;
        let mut blobs = 0;
        for entry in tar::Archive::new(archive.as_slice()).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().into_owned();
            let Some(name) = path.strip_prefix("blobs/sha256/") else { continue };
            let mut bytes = Vec::new();
            std::io::copy(&mut entry, &mut bytes)?;
            assert_eq!(digest(&bytes), format!("sha256:{name}"));
            blobs += 1;
        }
        assert_eq!(blobs, 3);
        Ok(())
    }
}
