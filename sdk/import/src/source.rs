//! What can be imported, as it is typed. Pure: nothing is looked up here, so what is neither a
//! URL nor a model of a registry is a path.

use std::path::PathBuf;

use reqwest::Url;
use wick_package::Digest;

use crate::error::ImportError;

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or folder on this machine.
    Path(PathBuf),
    /// A file that a web server has.
    Http(Url),
    /// A file or everything below a prefix in S3, GCS or Azure.
    Objects(Url),
    /// A model of an MLflow registry.
    Mlflow(MlflowModel),
    /// An artifact in an OCI registry, without the scheme. It is pulled first, and then a
    /// [`Source::Layout`]: this crate knows no registry.
    Oci(String),
    /// One artifact of an image layout on this disk, and where it came from.
    Layout { root: PathBuf, digest: Digest, origin: String },
}

/// `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlflowModel {
    pub name: String,
    pub which: Which,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    Version(String),
    Alias(String),
}

/// Schemes of object stores, as `object_store` knows them.
const OBJECTS: [&str; 8] = ["s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss"];

// === impl Source ===

impl Source {
    /// # Errors
    /// The scheme is unknown, or what follows it is no source.
    pub fn parse(text: &str) -> Result<Self, ImportError> {
        let bad = |why: &str| ImportError::Source { text: text.to_owned(), why: why.to_owned() };
        if let Some(rest) = text.strip_prefix("models:/") {
            return MlflowModel::parse(rest.trim_start_matches('/'))
                .map(Self::Mlflow)
                .ok_or_else(|| bad("write models:/NAME/VERSION or models:/NAME@ALIAS"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(bad("name a file, a folder or a URL")),
                text if text.starts_with("runs:/") => {
                    Err(bad("register the model, and name it as models:/NAME/VERSION"))
                }
                text => Ok(Self::Path(text.into())),
            };
        };
        let url = || text.parse::<Url>().map_err(|error| bad(&error.to_string()));
        let with_host = |url: Url| match url.host_str() {
            Some(host) if !host.is_empty() => Ok(url),
            _ => Err(bad("no host or bucket is named")),
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => url().and_then(with_host).map(Self::Http),
            scheme if OBJECTS.contains(&scheme) => url().and_then(with_host).map(Self::Objects),
            "oci" if rest.is_empty() => Err(bad("write oci://HOST/NAME:TAG")),
            "oci" => Ok(Self::Oci(rest.to_owned())),
            "file" => {
                let path = url()?.to_file_path().map_err(|()| bad("it is no path here"))?;
                Ok(Self::Path(path))
            }
            "hf" => Err(bad(
                "nothing is fetched from the Hugging Face hub by itself: name the folder of a \
                 snapshot, or the https URL of a file",
            )),
            _ => Err(bad("use a path, http(s)://, s3://, gs://, az://, abfss://, oci://, or \
                 models:/NAME/VERSION")),
        }
    }
}

// === impl MlflowModel ===

impl MlflowModel {
    fn parse(text: &str) -> Option<Self> {
        let (name, which) = match text.split_once('@') {
            Some((name, alias)) => (name, Which::Alias(alias.to_owned())),
            None => {
                let (name, version) = text.rsplit_once('/')?;
                let number = version.bytes().all(|byte| byte.is_ascii_digit());
                if !number {
                    return None;
                }
                (name, Which::Version(version.to_owned()))
            }
        };
        let (Which::Version(last) | Which::Alias(last)) = &which;
        let good = !name.is_empty() && !name.contains('/') && !last.is_empty();
        (good && !last.contains('/')).then(|| Self { name: name.to_owned(), which })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        match Source::parse(text) {
            Ok(Source::Path(path)) => format!("path {}", path.display()),
            Ok(Source::Http(url)) => format!("http {url}"),
            Ok(Source::Objects(url)) => format!("objects {url}"),
            Ok(Source::Oci(reference)) => format!("oci {reference}"),
            Ok(Source::Layout { root, .. }) => format!("layout {}", root.display()),
            Ok(Source::Mlflow(MlflowModel { name, which })) => format!("mlflow {name} {which:?}"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn every_kind_of_source_is_told_by_its_spelling() {
        for (text, source) in [
            ("model.onnx", "path model.onnx"),
            ("./a b/c", "path ./a b/c"),
            ("file:///m/a.onnx", "path /m/a.onnx"),
            ("https://h/m.onnx?x=1", "http https://h/m.onnx?x=1"),
            ("S3://bucket/key", "objects s3://bucket/key"),
            ("gs://b/dir/", "objects gs://b/dir/"),
            ("az://container/m.onnx", "objects az://container/m.onnx"),
            ("oci://ghcr.io/org/m:1", "oci ghcr.io/org/m:1"),
            ("models:/fraud/3", "mlflow fraud Version(\"3\")"),
            ("models://fraud/3", "mlflow fraud Version(\"3\")"),
            ("models:/a b@champion", "mlflow a b Alias(\"champion\")"),
        ] {
            assert_eq!(shown(text), source);
        }
    }

    #[test]
    fn what_is_no_source_says_how_to_write_one() {
        for (text, hint) in [
            ("", "name a file"),
            ("ftp://h/m", "use a path"),
            ("models:/fraud", "models:/NAME/VERSION"),
            ("models:/fraud/Production", "models:/NAME/VERSION"),
            ("models:/fraud@", "models:/NAME/VERSION"),
            ("models:/a/b/1", "models:/NAME/VERSION"),
            ("runs:/abc/model", "register the model"),
            ("hf://org/m", "snapshot"),
            ("oci://", "oci://HOST"),
            ("s3://", "s3://"),
        ] {
            let shown = shown(text);
            assert!(shown.starts_with("error: ") && shown.contains(hint), "{text}: {shown}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_source_or_an_error(text: String, scheme in 0..6_usize) {
            let schemes = ["", "s3://", "https://", "models:/", "file://", "oci://"];
            let _ = Source::parse(&format!("{}{text}", schemes[scheme]));
        }
    }
}
