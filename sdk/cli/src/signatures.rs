//! Signatures as commands meet them: in artifacts beside an image, in the envelope that is written
//! for a node, and as people are shown them. What they are good for is the policy's to decide.

use std::path::Path;

use wick_package::oci::{Annotations, Descriptor};
use wick_package::signature::{
    Attached, BUNDLE_TYPE, Envelope, KeyId, Referrer, Signature, TrustedKey, holds_signatures,
    read_envelope,
};
use wick_package::{Digest, ImageDocuments, Reference};
use wick_registry::{Artifact, Registry, Store};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::{output, registries};

/// Most artifacts of one image at a registry whose signatures are fetched to be shown.
const MAX_ARTIFACTS: usize = 64;

/// Longest text of a signature that is shown; nobody has vouched for it.
const MAX_TEXT: usize = 255;

/// A signature for people and programs. Nothing of it is certain but what is `verified`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Shown {
    form: &'static str,
    /// The key that has made it, or that it says to be made by.
    key: Option<KeyId>,
    /// What the key is called, where it is known.
    by: Option<String>,
    /// None where no key was named to check it with.
    verified: Option<bool>,
    /// The repository that it is for.
    name: Option<String>,
    created: Option<String>,
    /// Why it approves nothing.
    fault: Option<String>,
}

// === impl Shown ===

impl Shown {
    /// What a signature says of an image, and which of these keys has made it.
    pub fn of(signature: &Signature, image: Digest, keys: &[TrustedKey]) -> Self {
        let by = keys.iter().find(|trusted| signature.is_by(&trusted.key));
        let (claim, fault) = match signature.claims() {
            Ok(claims) => match claims.into_iter().find(|claim| claim.digest == image) {
                Some(claim) => (Some(claim), None),
                None => (None, Some("it is for another image".to_owned())),
            },
            Err(error) => (None, Some(error.to_string())),
        };
        let said = claim.map(|claim| (claim.image, claim.signed_at));
        let (name, created) = said.unwrap_or_default();
        Self {
            form: signature.form(),
            key: by.map(|trusted| trusted.key.id()).or_else(|| signature.key_hint()),
            by: by.map(|trusted| trusted.name.clone()),
            verified: (!keys.is_empty()).then_some(by.is_some()),
            name,
            created,
            fault,
        }
    }

    fn row(&self) -> [String; 5] {
        let text = |text: Option<&str>, none: &str| {
            let text: String = text.unwrap_or(none).chars().take(MAX_TEXT).collect();
            text.escape_debug().to_string()
        };
        let by = match (&self.by, self.verified) {
            (Some(by), _) => by.clone(),
            (None, Some(_)) => "none of these keys".to_owned(),
            (None, None) => "not checked".to_owned(),
        };
        let name = self.fault.as_deref().or(self.name.as_deref());
        let key = self.key.map(|key| key.to_string());
        let key = key.as_deref().map(|key| &key[.."sha256:".len() + 12]);
        [
            self.form.to_owned(),
            text(key, "not said"),
            by,
            text(name, "any"),
            text(self.created.as_deref(), "not said"),
        ]
    }
}

/// Signatures as a table.
pub fn table(signatures: &[Shown]) -> String {
    if signatures.is_empty() {
        return "none".to_owned();
    }
    let mut table = output::table(["FORM", "KEY", "SIGNED BY", "FOR THE NAME", "CREATED"]);
    for signature in signatures {
        table.add_row(signature.row());
    }
    table.trim_fmt()
}

/// The signatures of an image that came with it into the store.
///
/// # Errors
/// The store can't be read.
pub fn stored(store: &Store, image: Digest) -> Outcome<Vec<Signature>> {
    let layout = store.layout().map_err(|error| Failure::stored(&error))?;
    let referrers = store.referrers(image).map_err(|error| Failure::stored(&error))?;
    let document =
        |blob: &Descriptor, what| -> anyhow::Result<Vec<u8>> { Ok(layout.document(blob, what)?) };
    let found = referrers.iter().map(|referrer| {
        let manifest = document(referrer, "manifest of a signature")?;
        read(&manifest, image, |blob| document(blob, "signature"))
    });
    Ok(those_that_are_read(&referrers, found))
}

/// The signatures that a registry has for an image, among what refers to it.
///
/// # Errors
/// The registry can't be asked.
pub fn remote(
    registry: &Registry,
    reference: &Reference,
    image: Digest,
    referrers: &[Descriptor],
) -> Outcome<Vec<Signature>> {
    let some: Vec<_> = referrers.iter().filter(|it| holds_signatures(it)).cloned().collect();
    let some = &some[..some.len().min(MAX_ARTIFACTS)];
    registries::block_on(async {
        let mut found = Vec::new();
        for referrer in some {
            found.push(fetched(registry, reference, image, referrer).await);
        }
        Ok(those_that_are_read(some, found))
    })
}

async fn fetched(
    registry: &Registry,
    reference: &Reference,
    image: Digest,
    referrer: &Descriptor,
) -> anyhow::Result<Vec<Signature>> {
    let manifest = registry.artifact(reference, referrer).await?;
    let mut found = Vec::new();
    for attached in Attached::of(&manifest, image)? {
        let bytes = registry.artifact_blob(reference, &attached.blob()).await?;
        found.push(attached.read(bytes.into())?);
    }
    Ok(found)
}

fn read(
    manifest: &[u8],
    image: Digest,
    blob: impl Fn(&Descriptor) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Vec<Signature>> {
    let attached = Attached::of(manifest, image)?.into_iter();
    attached.map(|one| Ok(one.clone().read(blob(&one.blob())?)?)).collect()
}

/// Others' artifacts are no reason to stop.
fn those_that_are_read(
    artifacts: &[Descriptor],
    found: impl IntoIterator<Item = anyhow::Result<Vec<Signature>>>,
) -> Vec<Signature> {
    let mut all = Vec::new();
    for (artifact, found) in artifacts.iter().zip(found) {
        match found {
            Ok(found) => all.extend(found),
            Err(error) => tracing::warn!("{} is passed over: {error:#}", artifact.digest),
        }
    }
    all
}

/// The envelope of an image with those of its signatures that these keys have made.
///
/// # Errors
/// There is none, or the envelope would be too long.
pub fn envelope(
    path: &Path,
    image: Digest,
    signatures: Vec<Signature>,
    keys: &[TrustedKey],
) -> Outcome<Envelope> {
    let documents = ImageDocuments::read(path).map_err(|error| Failure::open(&error))?.documents;
    let mut some: Vec<Signature> = Vec::new();
    for signature in signatures {
        let holds = signature.verify(image, keys.iter().map(|trusted| &trusted.key)).is_ok();
        if holds && !some.contains(&signature) {
            some.push(signature);
        }
    }
    if some.is_empty() {
        let text = format!("{image} has no signature by a key that was named");
        return Err(Failure::new(Exit::Denied, "unsigned", text)
            .help("an envelope without a signature lets nothing run: sign the image first"));
    }
    Envelope::new(image, documents, some).map_err(|error| Failure::of(&error))
}

/// What a node needs to check an image without the store: its signatures, with `more`, and its
/// documents. None where nobody has signed.
///
/// # Errors
/// The store can't be read, or there are too many signatures.
pub fn for_node(store: &Store, image: Digest, more: Vec<Signature>) -> Outcome<Option<Envelope>> {
    let found = stored(store, image)?;
    if found.is_empty() && more.is_empty() {
        return Ok(None);
    }
    let documents = ImageDocuments::read(&store.blob_path(image));
    let documents = documents.map_err(|error| Failure::open(&error))?.documents;
    let envelope = |signatures, documents| Envelope::new(image, documents, signatures);
    let whole = envelope(found, documents).and_then(|it| it.merged(envelope(more, Vec::new())?));
    whole.map(Some).map_err(|error| Failure::of(&error))
}

/// A signature as what refers to its image; none for one of cosign 1 or 2, which has no bundle.
pub fn artifact(signature: &Signature) -> Option<Artifact> {
    let bundle = signature.to_bundle()?;
    Some(Artifact {
        artifact_type: BUNDLE_TYPE.to_owned(),
        annotations: Referrer::annotations(signature),
        layers: vec![(BUNDLE_TYPE.to_owned(), Annotations::new(), bundle)],
    })
}

/// Write an envelope, with the signatures that are there.
///
/// # Errors
/// What is there is another image's, or the file can't be written.
pub fn write(path: &Path, envelope: Envelope) -> Outcome {
    let before = read_envelope(path).map_err(|error| Failure::open(&error))?;
    let whole = match before {
        Some(before) => before.merged(envelope).map_err(|error| {
            Failure::of(&error).about(path).help("name another file with --out, or remove it")
        })?,
        None => envelope,
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new(".")))?;
        std::io::Write::write_all(&mut file, whole.to_json().as_bytes())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error: std::io::Error| {
        let text = format!("cannot write {}", path.display());
        Failure::new(Exit::CannotCreate, "cannot-write", text).caused_by(Some(&error))
    })
}
