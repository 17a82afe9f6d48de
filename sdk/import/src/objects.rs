//! Object stores: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage. An
//! address is a file, or everything below a prefix.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _, ObjectStoreScheme, RetryConfig};
use reqwest::{Client, Url};
use wick_package::RelPath;

use crate::client::Connector;
use crate::error::ImportError;
use crate::remote::{OpenError, Remote, shown, store_error};
use crate::tree::{MAX_FILES, Opened, RemoteTree, Tree};

/// Tries within `object_store`, for requests that are not downloads. Those try again by
/// themselves, and there the time is better spent.
const MAX_RETRIES: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);

/// Open an address.
///
/// # Errors
/// The store refuses or is not there, or nothing is at the address.
pub(crate) async fn open(url: &Url, client: &Client) -> Result<Opened, ImportError> {
    let bad = |why: String| ImportError::Source { text: shown(url), why };
    let (scheme, key) = ObjectStoreScheme::parse(url).map_err(|error| bad(error.to_string()))?;
    let store = store(&scheme, url, client).map_err(|error| bad(error.to_string()))?;
    let place = shown(url);
    let failed = |error: object_store::Error| match store_error(shown(url), &error) {
        OpenError::Never(error) | OpenError::Later { error, .. } => error,
        OpenError::Changed => ImportError::NotFound { path: shown(url).into() },
    };
    let remote = |key: &Key| Remote::Object {
        store: Arc::clone(&store),
        key: key.clone(),
        place: format!("{}/{key}", base(url)),
    };
    let mut files = BTreeMap::new();
    let is_folder = url.path().ends_with('/') || key.parts().count() == 0;
    if !is_folder {
        match store.head(&key).await {
            Ok(meta) => {
                let path = key.filename().unwrap_or("model.onnx").parse();
                let path = path.map_err(|error: wick_package::NameError| bad(error.to_string()))?;
                files.insert(path, (remote(&key), Some(meta.size)));
            }
            // A prefix may be written without its slash.
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    // Beside a file that was named, nothing else is listed; its weights may be there.
    let has_siblings = !files.is_empty();
    if !has_siblings {
        let mut list = store.list(Some(&key));
        while let Some(meta) = list.try_next().await.map_err(failed)? {
            // A key that reads like a way out can't be a model's.
            if let Some(path) = below(&key, &meta.location) {
                files.insert(path, (remote(&meta.location), Some(meta.size)));
            }
            if files.len() > MAX_FILES {
                return Err(ImportError::TooMany { place, most: MAX_FILES });
            }
        }
    }
    if files.is_empty() {
        return Err(ImportError::NotFound { path: place.into() });
    }
    let tree = RemoteTree { place: place.clone(), files, has_siblings };
    let mut opened = Opened::new(Tree::Remote(tree), place);
    opened.words = words(url, &key);
    Ok(opened)
}

/// The path of a key below a prefix.
fn below(prefix: &Key, key: &Key) -> Option<RelPath> {
    let parts: Vec<_> = key.prefix_match(prefix)?.map(|part| part.as_ref().to_owned()).collect();
    parts.join("/").parse().ok()
}

/// Names in an address, the last part first.
fn words(url: &Url, key: &Key) -> Vec<String> {
    let mut words: Vec<String> = key.parts().map(|part| part.as_ref().to_owned()).collect();
    words.reverse();
    words.extend(url.host_str().map(str::to_owned));
    words
}

/// Settings and credentials come from the variables that the stores' own tools read.
fn store(
    scheme: &ObjectStoreScheme,
    url: &Url,
    client: &Client,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let (connector, url) = (Connector(client.clone()), url.as_str());
    let retry = RetryConfig {
        max_retries: MAX_RETRIES,
        retry_timeout: RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    Ok(match scheme {
        ObjectStoreScheme::GoogleCloudStorage => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_url(url)
                .with_retry(retry)
                .with_http_connector(connector)
                .build()?,
        ),
        ObjectStoreScheme::MicrosoftAzure => Arc::new(
            MicrosoftAzureBuilder::from_env()
                .with_url(url)
                .with_retry(retry)
                .with_http_connector(connector)
                .build()?,
        ),
        _ => Arc::new(
            AmazonS3Builder::from_env()
                .with_url(url)
                .with_retry(retry)
                .with_http_connector(connector)
                .build()?,
        ),
    })
}

/// The bucket's address.
fn base(url: &Url) -> String {
    let authority = url.authority();
    format!("{}://{authority}", url.scheme())
}
