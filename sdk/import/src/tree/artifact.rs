//! A ModelPack or KitOps artifact in an OCI image layout. Blobs are hashed before anything in
//! them is used; paths in them stay inside, and links in them are not taken.

mod document;
mod headers;
mod media;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType};
use wick_package::{Digest, RelPath};

use super::{MAX_FILES, Opened, Tree};
use crate::choose::Entry;
use crate::error::ImportError;
use crate::place::Local;
use crate::progress::Meter;
use document::{About, Descriptor, FILE_PATH, Index, Manifest};
use headers::Headers;
use media::{Family, Packing};

/// Longest document that is read. Manifests have some kilobytes.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Most artifacts that are looked through in an index, those of its indexes included.
const MAX_MANIFESTS: usize = 1000;

/// Most entries of all archives: folders, links and names that come again are some too.
const MAX_ENTRIES: usize = 4 * MAX_FILES;

/// Most artifacts that an error lists.
const MAX_LISTED: usize = 8;

/// Bytes copied at once; progress is told after each.
const CHUNK: u64 = 4 << 20;

/// The files of an artifact.
#[derive(Debug)]
pub(crate) struct ArtifactTree {
    place: String,
    files: BTreeMap<RelPath, Place>,
}

/// Where a file is.
#[derive(Debug, Clone)]
struct Place {
    blob: PathBuf,
    packing: Packing,
    /// Its path as the archive has it.
    inside: Vec<u8>,
    len: u64,
}

/// An artifact of a layout.
struct Found {
    /// Its tag and digest, for people.
    tag: Option<String>,
    digest: Digest,
    family: Family,
    manifest: Manifest,
}

/// What is found in layers.
struct Listing {
    /// Largest file, and most bytes of an unpacked layer.
    most: u64,
    entries: usize,
    files: BTreeMap<RelPath, Place>,
}

/// A layout's folder.
struct Layout<'a> {
    root: &'a Path,
    place: &'a str,
}

/// Open the artifact of a layout that `reference` names by tag or digest, or the only one.
///
/// # Errors
/// There is none, or several, or a blob is missing or damaged.
pub(crate) fn open(
    root: &Path,
    origin: String,
    reference: Option<&str>,
    most: u64,
) -> Result<Opened, ImportError> {
    let layout = Layout { root, place: &origin };
    let mut found = layout.artifacts(reference)?;
    let artifact = match found.len() {
        1 => found.remove(0),
        0 => {
            let why = match reference {
                Some(reference) => format!("no model is called {reference}"),
                None => "neither ModelPack's nor KitOps' media types are in it".to_owned(),
            };
            return Err(ImportError::Registry { place: origin, system: "an OCI layout", why });
        }
        _ => {
            let name =
                |found: &Found| found.tag.clone().unwrap_or_else(|| found.digest.to_string());
            let names: Vec<_> = found.iter().take(MAX_LISTED).map(name).collect();
            return Err(ImportError::Several { place: origin, names: names.join(", ") });
        }
    };
    let about = About::read(artifact.family, &layout.document(&artifact.manifest.config)?);
    let mut listing = Listing { most, entries: 0, files: BTreeMap::new() };
    for layer in &artifact.manifest.layers {
        let Some(kind) = media::layer(&layer.media_type).filter(|kind| kind.is_model) else {
            continue;
        };
        layout.list(layer, kind.packing, &mut listing)?;
    }
    let files = listing.files;
    let tag = artifact.tag.as_deref().and_then(|tag| tag.rsplit('/').next());
    let tag = tag.map(|tag| tag.split([':', '@']).next().unwrap_or(tag).to_owned());
    let annotation = |key: &str| artifact.manifest.annotations.get(key).cloned();
    let tree = ArtifactTree { place: origin.clone(), files };
    let model = about.model.and_then(|path| tree.model_at(&path));
    let mut opened = Opened::new(Tree::Artifact(tree), format!("{origin} ({})", artifact.digest));
    opened.name = about.name.or(tag);
    opened.version = about.version.or_else(|| annotation("org.opencontainers.image.version"));
    opened.description =
        about.description.or_else(|| annotation("org.opencontainers.image.description"));
    opened.model = model;
    Ok(opened)
}

// === impl Layout ===

impl Layout<'_> {
    /// The documents to begin with: the one with a digest, or all of the index, those with a tag
    /// if one is given.
    fn roots(&self, reference: Option<&str>) -> Result<Vec<Descriptor>, ImportError> {
        if let Some(Ok(digest)) = reference.map(str::parse) {
            return Ok(vec![Descriptor::of(digest)]);
        }
        let bytes = read(&self.root.join("index.json"), MAX_DOCUMENT)?;
        let index: Index = self.parse(&bytes, "index.json")?;
        let mut roots = index.manifests;
        roots.retain(|root| reference.is_none() || root.tag() == reference);
        Ok(roots)
    }

    /// Every model artifact that `reference` names.
    fn artifacts(&self, reference: Option<&str>) -> Result<Vec<Found>, ImportError> {
        let tagged = |descriptor: Descriptor, tag: Option<String>| {
            let own = descriptor.tag().map(str::to_owned);
            (descriptor, own.or(tag))
        };
        let roots = self.roots(reference)?.into_iter().rev();
        let mut rest: Vec<_> = roots.map(|root| tagged(root, None)).collect();
        let (mut found, mut seen) = (Vec::new(), 0);
        while let Some((descriptor, tag)) = rest.pop() {
            seen += 1;
            if seen > MAX_MANIFESTS {
                let place = self.place.to_owned();
                return Err(ImportError::TooMany { place, most: MAX_MANIFESTS });
            }
            let bytes = self.document(&descriptor)?;
            if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
                let layers = manifest.layers.iter();
                let family = media::config(&manifest.config.media_type).or_else(|| {
                    layers
                        .filter_map(|layer| media::layer(&layer.media_type))
                        .map(|l| l.family)
                        .next()
                });
                let digest = descriptor.digest;
                found.extend(family.map(|family| Found { tag, digest, family, manifest }));
            } else {
                let index: Index = self.parse(&bytes, &descriptor.digest.to_string())?;
                rest.extend(index.manifests.into_iter().map(|one| tagged(one, tag.clone())));
            }
        }
        Ok(found)
    }

    /// Add the files of a layer.
    fn list(
        &self,
        layer: &Descriptor,
        packing: Packing,
        listing: &mut Listing,
    ) -> Result<(), ImportError> {
        let blob = self.checked(layer)?;
        let hostile = |path: &str| ImportError::Hostile {
            place: self.place.to_owned(),
            path: path.chars().flat_map(char::escape_debug).collect(),
        };
        if packing == Packing::Raw {
            let path = FILE_PATH.iter().find_map(|key| layer.annotations.get(*key));
            let path = path.map_or("model.onnx", |path| path.trim_start_matches("./"));
            let path: RelPath = path.parse().map_err(|_| hostile(path))?;
            let len = layer.size;
            return listing.add(self.place, path, Place { blob, packing, inside: Vec::new(), len });
        }
        let damaged = |error: io::Error| self.damaged(&format!("{}: {error}", layer.digest));
        let mut archive = Headers::new(unpacked(&blob, packing, listing.most)?);
        archive.each(damaged, |entry| {
            listing.count(self.place)?;
            if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
                return Ok(());
            }
            let inside = entry.path_bytes().into_owned();
            let text = String::from_utf8_lossy(&inside).into_owned();
            let path = text.trim_start_matches("./");
            let path: RelPath = path.parse().map_err(|_| hostile(&text))?;
            // Within an archive the first of a name counts here, across layers the last.
            if listing.files.get(&path).is_some_and(|known| known.blob == blob) {
                return Ok(());
            }
            let place = Place { blob: blob.clone(), packing, inside, len: entry.size() };
            listing.add(self.place, path, place)
        })
    }

    /// A small blob.
    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImportError> {
        let bytes = read(&self.blob(descriptor.digest), MAX_DOCUMENT)?;
        if Digest::of(&bytes) == descriptor.digest {
            return Ok(bytes);
        }
        Err(self.damaged(&format!("{} has other bytes than its digest says", descriptor.digest)))
    }

    /// A large blob, hashed.
    fn checked(&self, descriptor: &Descriptor) -> Result<PathBuf, ImportError> {
        let path = self.blob(descriptor.digest);
        let mut file = File::open(&path).map_err(ImportError::read(&path))?;
        let mut hasher = Sha256::new();
        let len = io::copy(&mut file, &mut hasher).map_err(ImportError::read(&path))?;
        let digest = descriptor.digest;
        if len != descriptor.size {
            let size = descriptor.size;
            return Err(self.damaged(&format!("{digest} has {len} bytes, and {size} are said")));
        }
        if Digest::from_hasher(hasher) != digest {
            return Err(self.damaged(&format!("{digest} has other bytes than its digest says")));
        }
        Ok(path)
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    fn parse<T: serde::de::DeserializeOwned>(
        &self,
        bytes: &[u8],
        what: &str,
    ) -> Result<T, ImportError> {
        serde_json::from_slice(bytes).map_err(|error| self.damaged(&format!("{what}: {error}")))
    }

    fn damaged(&self, why: &str) -> ImportError {
        ImportError::Artifact { place: self.place.to_owned(), why: why.to_owned() }
    }
}

// === impl Listing ===

impl Listing {
    /// Count an entry of an archive.
    fn count(&mut self, place: &str) -> Result<(), ImportError> {
        self.entries += 1;
        match self.entries > MAX_ENTRIES {
            true => Err(ImportError::TooMany { place: place.to_owned(), most: MAX_ENTRIES }),
            false => Ok(()),
        }
    }

    fn add(&mut self, place: &str, path: RelPath, file: Place) -> Result<(), ImportError> {
        if file.len > self.most {
            let (place, len, most) = (format!("{path} of {place}"), file.len, self.most);
            return Err(ImportError::TooLarge { place, len, most });
        }
        self.files.insert(path, file);
        match self.files.len() > MAX_FILES {
            true => Err(ImportError::TooMany { place: place.to_owned(), most: MAX_FILES }),
            false => Ok(()),
        }
    }
}

// === impl ArtifactTree ===

impl ArtifactTree {
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        let entry =
            |(path, place): (&RelPath, &Place)| Entry { path: path.clone(), len: Some(place.len) };
        self.files.iter().map(entry).collect()
    }

    pub(crate) fn head(&self, path: &RelPath, most: usize) -> Result<Vec<u8>, ImportError> {
        let mut bytes = Vec::new();
        self.read(path, |file| file.take(most as u64).read_to_end(&mut bytes).map(drop))?;
        Ok(bytes)
    }

    /// A file of its own: the blob itself where it is one, a copy in `parts` otherwise.
    pub(crate) fn extract(
        &self,
        path: &RelPath,
        parts: &Path,
        meter: &mut Meter<'_>,
    ) -> Result<Local, ImportError> {
        let place = self.find(path)?;
        if place.packing == Packing::Raw {
            return Ok(Local::Blob(place.blob.clone()));
        }
        let to = parts.join(Digest::of(path.as_str().as_bytes()).short());
        let mut file = File::create(&to).map_err(ImportError::write(&to))?;
        meter.begin(path.as_str(), 0, Some(place.len));
        let mut left = place.len;
        self.read(path, |entry| {
            while left > 0 {
                let count = io::copy(&mut entry.take(left.min(CHUNK)), &mut file)?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left -= count;
                meter.advance(count);
            }
            file.sync_all()
        })?;
        Ok(Local::Ours(to))
    }

    /// The model in the file or folder that a Kitfile names.
    fn model_at(&self, path: &str) -> Option<String> {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        self.files.keys().any(|file| file.as_str() == path).then(|| path.to_owned())
    }

    fn find(&self, path: &RelPath) -> Result<&Place, ImportError> {
        self.files.get(path).ok_or_else(|| ImportError::missing(&self.place, path))
    }

    /// Read a file where it is.
    fn read(
        &self,
        path: &RelPath,
        work: impl FnOnce(&mut dyn Read) -> io::Result<()>,
    ) -> Result<(), ImportError> {
        let Place { blob, packing, inside, .. } = self.find(path)?;
        let failed = ImportError::read(blob);
        if *packing == Packing::Raw {
            let mut file = File::open(blob).map_err(ImportError::read(blob))?;
            return work(&mut file).map_err(failed);
        }
        let mut archive = Archive::new(unpacked(blob, *packing, u64::MAX)?);
        let mut entries = archive.entries().map_err(ImportError::read(blob))?;
        let entry = entries
            .find(|entry| entry.as_ref().map_or(true, |entry| *entry.path_bytes() == **inside));
        let mut entry = entry
            .ok_or_else(|| ImportError::missing(&self.place, path))?
            .map_err(ImportError::read(blob))?;
        work(&mut entry).map_err(failed)
    }
}

/// A layer as a tar, at most `most` bytes of it.
fn unpacked(blob: &Path, packing: Packing, most: u64) -> Result<Box<dyn Read>, ImportError> {
    let file = BufReader::new(File::open(blob).map_err(ImportError::read(blob))?);
    Ok(match packing {
        Packing::Raw | Packing::Tar => Box::new(file),
        Packing::TarGzip => Box::new(MultiGzDecoder::new(file).take(most)),
        Packing::TarZstd => {
            let decoder = zstd::Decoder::with_buffer(file).map_err(ImportError::read(blob))?;
            Box::new(decoder.take(most))
        }
    })
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, ImportError> {
    let len = fs::metadata(path).map_err(ImportError::read(path))?.len();
    if len > most {
        return Err(ImportError::TooLarge { place: path.display().to_string(), len, most });
    }
    fs::read(path).map_err(ImportError::read(path))
}
