//! Media types of model artifacts: CNCF ModelPack's (`application/vnd.cncf.model.…`, and
//! `vnd.cnai` before it had that name) and KitOps' (`application/vnd.kitops.modelkit.…`). Pure.

/// Whose artifact it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    ModelPack,
    KitOps,
}

/// A layer that holds files of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) family: Family,
    /// Whether the model is in it; otherwise documentation, code or data.
    pub(crate) is_model: bool,
    pub(crate) packing: Packing,
}

/// How files are in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// The layer is the file.
    Raw,
    Tar,
    TarGzip,
    TarZstd,
}

const MODELPACK: [&str; 2] = ["application/vnd.cncf.model.", "application/vnd.cnai.model."];
const KITOPS: &str = "application/vnd.kitops.modelkit.";

/// Kinds of layers with files of the model itself.
const MODEL_KINDS: [&str; 5] = ["weight", "weight.config", "model", "modelpart", "layer"];

/// What a layer's media type says; none of one that is of something else.
pub(crate) fn layer(media_type: &str) -> Option<Layer> {
    let (family, rest) = split(media_type)?;
    let (kind, packing) = rest.split_once(".v1.")?;
    let packing = match packing {
        "raw" => Packing::Raw,
        "tar" => Packing::Tar,
        "tar+gzip" => Packing::TarGzip,
        "tar+zstd" => Packing::TarZstd,
        _ => return None,
    };
    Some(Layer { family, is_model: MODEL_KINDS.contains(&kind), packing })
}

/// Whose config a media type is.
pub(crate) fn config(media_type: &str) -> Option<Family> {
    split(media_type).filter(|(_, rest)| *rest == "config.v1+json").map(|(family, _)| family)
}

fn split(media_type: &str) -> Option<(Family, &str)> {
    if let Some(rest) = media_type.strip_prefix(KITOPS) {
        return Some((Family::KitOps, rest));
    }
    let rest = MODELPACK.iter().find_map(|prefix| media_type.strip_prefix(prefix))?;
    Some((Family::ModelPack, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layers_of_both_families_are_told_apart() {
        for (media_type, expected) in [
            ("application/vnd.cncf.model.weight.v1.raw", "ModelPack true Raw"),
            ("application/vnd.cncf.model.weight.v1.tar", "ModelPack true Tar"),
            ("application/vnd.cncf.model.weight.config.v1.tar+gzip", "ModelPack true TarGzip"),
            ("application/vnd.cncf.model.doc.v1.raw", "ModelPack false Raw"),
            ("application/vnd.cncf.model.dataset.v1.tar+zstd", "ModelPack false TarZstd"),
            ("application/vnd.cnai.model.layer.v1.tar", "ModelPack true Tar"),
            ("application/vnd.kitops.modelkit.model.v1.tar+gzip", "KitOps true TarGzip"),
            ("application/vnd.kitops.modelkit.modelpart.v1.tar", "KitOps true Tar"),
            ("application/vnd.kitops.modelkit.docs.v1.tar", "KitOps false Tar"),
            ("application/vnd.oci.image.layer.v1.tar", "none"),
            ("application/vnd.cncf.model.weight.v1.brotli", "none"),
            ("application/vnd.cncf.model.config.v1+json", "none"),
        ] {
            let shown = match layer(media_type) {
                Some(layer) => {
                    format!("{:?} {} {:?}", layer.family, layer.is_model, layer.packing)
                }
                None => "none".to_owned(),
            };
            assert_eq!(shown, expected, "{media_type}");
        }
        assert_eq!(config("application/vnd.cncf.model.config.v1+json"), Some(Family::ModelPack));
        assert_eq!(config("application/vnd.kitops.modelkit.config.v1+json"), Some(Family::KitOps));
        assert_eq!(config("application/vnd.oci.image.config.v1+json"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_media_type_or_none(text: String) {
            layer(&format!("application/vnd.cncf.model.{text}"));
            config(&text);
        }
    }
}
