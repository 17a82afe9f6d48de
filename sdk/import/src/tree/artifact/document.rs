//! The documents of an artifact, as far as an import reads them.

use std::collections::BTreeMap;

use wick_package::Digest;

use super::media::Family;

/// The path of a file, on a layer: ModelPack's key, and the one before it had that name.
pub(super) const FILE_PATH: [&str; 3] =
    ["org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title"];

/// The tag of an artifact, in a layout's index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// `index.json`, and an index in it.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Index {
    #[serde(default)]
    pub(super) manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

/// What an artifact says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) description: Option<String>,
    /// The model's file or folder.
    pub(super) model: Option<String>,
}

/// ModelPack's config.
#[derive(Debug, Default, serde::Deserialize)]
struct ModelPackConfig {
    #[serde(default)]
    descriptor: Named,
}

/// KitOps' config, which is the Kitfile.
#[derive(Debug, Default, serde::Deserialize)]
struct Kitfile {
    #[serde(default)]
    package: Named,
    #[serde(default)]
    model: KitModel,
}

#[derive(Debug, Default, serde::Deserialize)]
struct Named {
    name: Option<String>,
    version: Option<String>,
    description: Option<String>,
}

#[derive(Debug, Default, serde::Deserialize)]
struct KitModel {
    path: Option<String>,
}

// === impl Descriptor ===

impl Descriptor {
    /// Of a document whose digest alone is known.
    pub(super) fn of(digest: Digest) -> Self {
        Self { media_type: String::new(), digest, size: 0, annotations: BTreeMap::new() }
    }

    /// Its name in the layout's index.
    pub(super) fn tag(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

// === impl About ===

impl About {
    /// Read a config. One that can't be read says nothing: the files are what counts.
    pub(super) fn read(family: Family, config: &[u8]) -> Self {
        let (Named { name, version, description }, model) = match family {
            Family::ModelPack => {
                let config: ModelPackConfig = serde_json::from_slice(config).unwrap_or_default();
                (config.descriptor, None)
            }
            Family::KitOps => {
                let kitfile: Kitfile = serde_json::from_slice(config).unwrap_or_default();
                (kitfile.package, kitfile.model.path)
            }
        };
        let text = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        Self {
            name: text(name),
            version: text(version),
            description: text(description),
            model: text(model),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_configs_say_what_the_model_is() {
        let config = br#"{"descriptor": {"name": "resnet", "version": "2.1", "description": "d"},
            "config": {"format": "onnx"}, "modelfs": {"type": "layers", "diffIds": []}}"#;
        let about = About::read(Family::ModelPack, config);
        assert_eq!(about.name.as_deref(), Some("resnet"));
        assert_eq!(about.version.as_deref(), Some("2.1"));
        let kitfile = br#"{"manifestVersion": "1.0.0", "package": {"name": "net", "version": "3"},
            "model": {"name": "net", "path": "./m/net.onnx", "framework": "onnx"}}"#;
        let about = About::read(Family::KitOps, kitfile);
        assert_eq!(about.model.as_deref(), Some("./m/net.onnx"));
        assert_eq!(about.version.as_deref(), Some("3"));
    }

    proptest! {
        #[test]
        fn any_bytes_say_something_or_nothing(bytes: Vec<u8>) {
            About::read(Family::KitOps, &bytes);
            About::read(Family::ModelPack, &bytes);
            let _ = serde_json::from_slice::<Index>(&bytes);
        }
    }
}
