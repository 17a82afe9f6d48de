//! A model of an MLflow registry, through the tracking server's REST interface.
//!
//! ```text
//!   models:/NAME@ALIAS ─▶ registered-models/alias ─▶ version
//!   version ─▶ model-versions/get-download-uri ─▶ mlflow-artifacts:/… │ s3://… │ a folder
//!   mlflow-artifacts:/… ─▶ mlflow-artifacts/artifacts?path=… ─▶ files
//!   MLmodel ─▶ the flavour onnx names its file
//! ```

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde::de::DeserializeOwned;
use wick_package::RelPath;

use crate::error::ImportError;
use crate::mlmodel;
use crate::objects;
use crate::remote::{OpenError, Remote, refused, shown};
use crate::source::{MlflowModel, Which};
use crate::tree::local::{self, Wanted};
use crate::tree::{MAX_FILES, Opened, RemoteTree, Tree};

/// Longest answer of the REST interface.
const MAX_ANSWER: usize = 8 << 20;

/// Most folders of a model that are listed.
const MAX_FOLDERS: usize = 200;

/// Where the tracking server is and who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MlflowSettings {
    /// `MLFLOW_TRACKING_URI`.
    pub tracking_uri: Option<String>,
    pub credentials: Option<MlflowCredentials>,
}

/// What a tracking server with authentication asks for.
#[derive(Clone, PartialEq, Eq)]
pub enum MlflowCredentials {
    /// `MLFLOW_TRACKING_TOKEN`.
    Token(String),
    /// `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`.
    Password { user: String, password: String },
}

/// A tracking server.
struct Server<'a> {
    client: &'a Client,
    base: Url,
    authorization: Option<HeaderValue>,
    /// The model, for messages.
    place: String,
}

#[derive(serde::Deserialize)]
struct VersionAnswer {
    model_version: Version,
}

#[derive(serde::Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    description: String,
}

#[derive(serde::Deserialize)]
struct UriAnswer {
    artifact_uri: String,
}

#[derive(serde::Deserialize)]
struct ListAnswer {
    #[serde(default)]
    files: Vec<Listed>,
}

#[derive(serde::Deserialize)]
struct Listed {
    path: String,
    #[serde(default)]
    is_dir: bool,
    file_size: Option<u64>,
}

#[derive(Default, serde::Deserialize)]
struct ErrorAnswer {
    #[serde(default)]
    message: String,
}

// === impl MlflowSettings ===

impl MlflowSettings {
    /// Read MLflow's own variables; `variable` looks one up.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let token = variable("MLFLOW_TRACKING_TOKEN").map(MlflowCredentials::Token);
        let password = || {
            let user = variable("MLFLOW_TRACKING_USERNAME")?;
            let password = variable("MLFLOW_TRACKING_PASSWORD").unwrap_or_default();
            Some(MlflowCredentials::Password { user, password })
        };
        Self { tracking_uri: variable("MLFLOW_TRACKING_URI"), credentials: password().or(token) }
    }
}

// === impl MlflowCredentials ===

impl MlflowCredentials {
    fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Token(token) => format!("Bearer {token}"),
            Self::Password { user, password } => {
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
        };
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl std::fmt::Debug for MlflowCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MlflowCredentials(…)")
    }
}

/// Open a registered model.
///
/// # Errors
/// No tracking server is named, it refuses or is not there, it has no such model, or the model is
/// not in ONNX.
pub(crate) async fn open(
    model: &MlflowModel,
    settings: &MlflowSettings,
    client: &Client,
    wanted: Wanted<'_>,
) -> Result<Opened, ImportError> {
    let place = model.to_string();
    let server = Server::new(&place, settings, client)?;
    let version = server.version(model).await?;
    let query = [("name", model.name.as_str()), ("version", version.version.as_str())];
    let uri: UriAnswer =
        server.get("api/2.0/mlflow/model-versions/get-download-uri", &query).await?;
    let mut opened = server.artifacts(&uri.artifact_uri, wanted).await?;
    if let Tree::Remote(tree) = &opened.tree {
        opened.model = Some(server.onnx_file(tree).await?);
    } else if opened.model.is_none() {
        return Err(server.wrong(&format!(
            "there is no {} in {}",
            mlmodel::FILE,
            uri.artifact_uri
        )));
    }
    opened.origin = format!("{place} (version {}) of {}", version.version, shown(&server.base));
    opened.name = Some(model.name.clone());
    opened.version = Some(version.version);
    opened.description = Some(version.description).filter(|text| !text.is_empty());
    Ok(opened)
}

// === impl MlflowModel ===

impl std::fmt::Display for MlflowModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.which {
            Which::Version(version) => write!(f, "models:/{}/{version}", self.name),
            Which::Alias(alias) => write!(f, "models:/{}@{alias}", self.name),
        }
    }
}

// === impl Server ===

impl<'a> Server<'a> {
    fn new(
        place: &str,
        settings: &MlflowSettings,
        client: &'a Client,
    ) -> Result<Self, ImportError> {
        let bad = |why: &str| ImportError::Source { text: place.to_owned(), why: why.to_owned() };
        let uri = settings.tracking_uri.as_deref().ok_or_else(|| {
            bad("no tracking server is named: set MLFLOW_TRACKING_URI, or give --tracking-uri URL")
        })?;
        let base = uri.parse::<Url>().ok().filter(|url| url.scheme().starts_with("http"));
        let mut base =
            base.ok_or_else(|| bad("the tracking server must be an http or https URL"))?;
        // Paths are joined to it, also below a prefix.
        let path = format!("{}/", base.path().trim_end_matches('/'));
        base.set_path(&path);
        let authorization = settings.credentials.as_ref().map(|credentials| {
            credentials.header().ok_or_else(|| bad("the credentials are not printable text"))
        });
        Ok(Self {
            client,
            base,
            authorization: authorization.transpose()?,
            place: place.to_owned(),
        })
    }

    async fn version(&self, model: &MlflowModel) -> Result<Version, ImportError> {
        let name = ("name", model.name.as_str());
        let answer: VersionAnswer = match &model.which {
            Which::Version(version) => {
                let query = [name, ("version", version.as_str())];
                self.get("api/2.0/mlflow/model-versions/get", &query).await?
            }
            Which::Alias(alias) => {
                let query = [name, ("alias", alias.as_str())];
                self.get("api/2.0/mlflow/registered-models/alias", &query).await?
            }
        };
        Ok(answer.model_version)
    }

    /// The files at an artifact's address.
    async fn artifacts(&self, uri: &str, wanted: Wanted<'_>) -> Result<Opened, ImportError> {
        let (scheme, rest) = uri.split_once(':').unwrap_or(("file", uri));
        match scheme {
            "mlflow-artifacts" => {
                // `//host:port/path` names the server, which is the one that was asked.
                let path = match rest.strip_prefix("//") {
                    Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
                    None => rest,
                };
                self.list(path.trim_matches('/')).await
            }
            "file" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                local::open(path.as_ref(), wanted)
            }
            "s3" | "gs" | "abfs" | "abfss" => {
                let url: Result<Url, _> = format!("{}/", uri.trim_end_matches('/')).parse();
                let url = url.map_err(|_| self.wrong(&format!("`{uri}` is not a URL")))?;
                objects::open(&url, self.client).await
            }
            _ => {
                Err(self
                    .wrong(&format!("its files are at `{uri}`, which cannot be read from here")))
            }
        }
    }

    /// The files below a path that the server proxies.
    async fn list(&self, root: &str) -> Result<Opened, ImportError> {
        let mut files = BTreeMap::new();
        let (mut folders, mut seen) = (vec![String::new()], 0);
        while let Some(folder) = folders.pop() {
            seen += 1;
            for (count, most) in [(seen, MAX_FOLDERS), (files.len(), MAX_FILES)] {
                if count > most {
                    return Err(ImportError::TooMany { place: self.place.clone(), most });
                }
            }
            let path = join(root, &folder);
            let query = [("path", path.as_str())];
            let answer: ListAnswer = self.get("api/2.0/mlflow-artifacts/artifacts", &query).await?;
            for Listed { path, is_dir, file_size } in answer.files {
                let inside = join(&folder, &path);
                // A path that leads out of the model is none of its files.
                let Ok(rel) = inside.parse::<RelPath>() else { continue };
                if is_dir {
                    folders.push(inside);
                    continue;
                }
                let url = self.url("api/2.0/mlflow-artifacts/artifacts", &join(root, &inside))?;
                let (client, authorization) = (self.client.clone(), self.authorization.clone());
                let remote = Remote::Http { client, url, authorization };
                files.insert(rel, (remote, file_size));
            }
        }
        let tree = RemoteTree { place: self.place.clone(), files, has_siblings: false };
        Ok(Opened::new(Tree::Remote(tree), self.place.clone()))
    }

    async fn onnx_file(&self, tree: &RemoteTree) -> Result<String, ImportError> {
        let found = tree.files.iter().find(|(path, _)| path.as_str() == mlmodel::FILE);
        let (_, (remote, _)) =
            found.ok_or_else(|| self.wrong(&format!("there is no {} in it", mlmodel::FILE)))?;
        let text = remote.head(mlmodel::MAX_LEN).await?;
        mlmodel::onnx_file(&String::from_utf8_lossy(&text), &self.place)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, ImportError> {
        let mut url = self.url(path, "")?;
        url.query_pairs_mut().extend_pairs(query);
        let unreachable = |error: reqwest::Error| ImportError::Unreachable {
            place: shown(&self.base),
            source: Box::new(error.without_url()),
        };
        let mut request = self.client.get(url);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(self.wrong("the server's answer does not end"));
            }
        }
        if status != StatusCode::OK {
            let error: ErrorAnswer = serde_json::from_slice(&body).unwrap_or_default();
            let place = format!("{}, asked for {},", shown(&self.base), self.place);
            return Err(match refused(place, status, &error.message, None) {
                OpenError::Never(error) | OpenError::Later { error, .. } => error,
                OpenError::Changed => self.wrong("it changes all the time"),
            });
        }
        serde_json::from_slice(&body).map_err(|error| {
            self.wrong(&format!("{} is no MLflow server: {error}", shown(&self.base)))
        })
    }

    /// An address below the server's.
    fn url(&self, path: &str, file: &str) -> Result<Url, ImportError> {
        let bad = || self.wrong("the tracking server's address can't be joined to");
        let mut url = self.base.join(path).map_err(|_| bad())?;
        let parts = file.split('/').filter(|part| !part.is_empty());
        url.path_segments_mut().map_err(|()| bad())?.extend(parts);
        Ok(url)
    }

    fn wrong(&self, why: &str) -> ImportError {
        ImportError::Registry { place: self.place.clone(), system: "MLflow", why: why.to_owned() }
    }
}

fn join(folder: &str, name: &str) -> String {
    let separator = if folder.is_empty() || name.is_empty() { "" } else { "/" };
    format!("{folder}{separator}{name}")
}
