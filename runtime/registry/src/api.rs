//! The calls of the distribution specification, one function each. What comes back was checked as
//! far as one answer allows: a document has the digest that it was asked by.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap};
use reqwest::header::{HeaderName, HeaderValue, LINK, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use wick_package::Digest;
use wick_package::oci::{self, Descriptor};

use crate::client::Registry;
use crate::content::Upload;
use crate::error::RegistryError;
use crate::progress::Progress;
use crate::transport::{Access, Call, Payload, host_of};

/// Longest manifest or index, by the specification's advice.
pub(crate) const MAX_DOCUMENT: usize = 4 << 20;

/// Most tags of a repository, of pages that they come in, and of bytes of all pages: so many tags
/// of the 128 letters that the specification permits.
const MAX_TAGS: usize = 100_000;
const MAX_PAGES: usize = 1000;
const MAX_TAG_BYTES: usize = 16 << 20;

/// Pages of what refers to an image, and entries on all of them: registries put a hundred on one.
const MAX_REFERRER_PAGES: usize = 16;
const MAX_LISTED: usize = 1024;

/// Tags asked for at once.
const PAGE: &str = "1000";

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Every document that a reference may stand for.
const DOCUMENTS: &str = "application/vnd.oci.image.index.v1+json, \
                         application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";

/// A repository at a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    /// The registry's name, which credentials are kept under.
    pub(crate) registry: String,
    pub(crate) name: String,
    pub(crate) origin: String,
    /// Ends with a slash.
    pub(crate) base: Url,
}

/// A manifest or an index.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Bytes,
}

/// What became of the wish to mount a blob, or to begin an upload.
pub(crate) enum Begun {
    Mounted,
    Upload(Url),
}

// === impl Repository ===

impl Repository {
    pub(crate) fn host(&self) -> String {
        host_of(&self.base)
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.base.join(path).map_err(|error| self.odd(path, error.to_string()))
    }

    pub(crate) fn odd(&self, what: &str, why: impl Into<String>) -> RegistryError {
        RegistryError::Answer { host: self.host(), what: what.to_owned(), why: why.into() }
    }

    /// Where the next page of a list is, if there is one.
    fn next(
        &self,
        what: &str,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Option<Url>, RegistryError> {
        let next = header(headers, &LINK).and_then(|link| next_page(&link));
        let next = next.and_then(|next| url.join(&next).ok());
        if next.as_ref().is_some_and(|next| next.origin() != self.base.origin()) {
            return Err(self.odd(what, "the next page is at another host"));
        }
        Ok(next)
    }

    pub(crate) fn reads(&self) -> Access {
        self.access(format!("repository:{}:pull", self.name))
    }

    pub(crate) fn writes(&self) -> Access {
        self.access(format!("repository:{}:pull,push", self.name))
    }

    fn mounts(&self, from: &str) -> Access {
        self.access(format!("repository:{}:pull,push repository:{from}:pull", self.name))
    }

    fn access(&self, scope: String) -> Access {
        Access { registry: self.registry.clone(), origin: self.origin.clone(), scope }
    }
}

// === impl Document ===

impl Document {
    /// Read it as what it says to be.
    pub(crate) fn parse<T: DeserializeOwned>(&self, at: &Repository) -> Result<T, RegistryError> {
        let what = || format!("{} {}", self.descriptor.media_type, self.descriptor.digest);
        serde_json::from_slice(&self.bytes).map_err(|error| at.odd(&what(), error.to_string()))
    }
}

// === impl Registry ===

impl Registry {
    /// Get a manifest or an index by tag or digest.
    pub(crate) async fn document(
        &self,
        at: &Repository,
        selector: &str,
        progress: &Arc<dyn Progress>,
    ) -> Result<Document, RegistryError> {
        let what = format!("{}:{selector}", at.name);
        let url = at.url(&format!("manifests/{selector}"))?;
        let mut call = Call::new(Method::GET, url, what.clone());
        call.headers.insert(ACCEPT, HeaderValue::from_static(DOCUMENTS));
        let (headers, bytes) =
            self.transport.fetch(&call, &at.reads(), MAX_DOCUMENT, progress).await?;
        let told = header(&headers, &CONTENT_TYPE);
        let announced = header(&headers, &CONTENT_DIGEST);
        let got = Digest::of(&bytes);
        // Another algorithm's digest can't be compared, and need not be.
        let announced = announced.and_then(|text| text.parse().ok());
        for want in [selector.parse().ok(), announced].into_iter().flatten() {
            if want != got {
                return Err(RegistryError::Digest { host: at.host(), what, want, got });
            }
        }
        let media_type = media_type(at, &what, told, &bytes)?;
        let descriptor = Descriptor::of(&media_type, &bytes);
        Ok(Document { descriptor, bytes })
    }

    /// Get a small blob into memory, checked.
    pub(crate) async fn small_blob(
        &self,
        at: &Repository,
        blob: &Descriptor,
        limit: u64,
        progress: &Arc<dyn Progress>,
    ) -> Result<Bytes, RegistryError> {
        let what = format!("blob {} of {}", blob.digest.short(), at.name);
        if blob.size > limit {
            return Err(at.odd(&what, format!("{} bytes, and at most {limit} are read", blob.size)));
        }
        let call = blob_call(at, blob.digest, 0)?;
        let most = usize::try_from(blob.size).unwrap_or(usize::MAX);
        let (_, bytes) = self.transport.fetch(&call, &at.reads(), most, progress).await?;
        let (host, want) = (at.host(), blob.size);
        if bytes.len() as u64 != want {
            let got = bytes.len() as u64;
            return Err(RegistryError::Length { host, what, want, got });
        }
        let (want, got) = (blob.digest, Digest::of(&bytes));
        if want != got {
            return Err(RegistryError::Digest { host, what, want, got });
        }
        Ok(bytes)
    }

    /// Ask once for a blob from a byte on. The body is still to come, and may fail as the answer
    /// may: so it is the caller who tries again.
    pub(crate) async fn blob_once(
        &self,
        at: &Repository,
        blob: &Descriptor,
        from: u64,
    ) -> Result<Response, RegistryError> {
        self.transport.attempt(&blob_call(at, blob.digest, from)?, &at.reads()).await
    }
    /// Whether a blob is there.
    pub(crate) async fn has_blob(
        &self,
        at: &Repository,
        digest: Digest,
        progress: &Arc<dyn Progress>,
    ) -> Result<bool, RegistryError> {
        let what = format!("blob {} of {}", digest.short(), at.name);
        let call = Call::new(Method::HEAD, at.url(&format!("blobs/{digest}"))?, what);
        match self.transport.send(&call, &at.writes(), progress).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begin an upload, or have the registry take the blob from another repository of its own.
    pub(crate) async fn begin(
        &self,
        at: &Repository,
        digest: Digest,
        mount: Option<&str>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Begun, RegistryError> {
        let what = format!("blob {} for {}", digest.short(), at.name);
        let mut url = at.url("blobs/uploads/")?;
        let access = match mount {
            Some(from) => {
                url.query_pairs_mut()
                    .append_pair("mount", &digest.to_string())
                    .append_pair("from", from);
                at.mounts(from)
            }
            None => at.writes(),
        };
        let mut call = Call::new(Method::POST, url, what.clone());
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.transport.send(&call, &access, progress).await?;
        if response.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        let location = header(response.headers(), &LOCATION);
        let location = location.and_then(|text| call.url.join(&text).ok());
        location.map(Begun::Upload).ok_or_else(|| at.odd(&what, "it names no place for the bytes"))
    }

    /// Send a whole blob to the place that the registry named.
    pub(crate) async fn upload(
        &self,
        at: &Repository,
        digest: Digest,
        mut place: Url,
        upload: Arc<Upload>,
    ) -> Result<(), RegistryError> {
        let what = format!("blob {} for {}", digest.short(), at.name);
        if place.scheme() != "https" && place.scheme() != at.base.scheme() {
            let why = format!("to {}, which is not encrypted", host_of(&place));
            return Err(RegistryError::Redirect { host: at.host(), what, why });
        }
        place.query_pairs_mut().append_pair("digest", &digest.to_string());
        // Whoever the registry points to gets the bytes, and no credentials.
        let own = place.origin() == at.base.origin();
        let mut call = Call::new(Method::PUT, place, what);
        let octets = HeaderValue::from_static("application/octet-stream");
        call.headers.insert(CONTENT_TYPE, octets);
        call.payload = Payload::Upload(upload);
        match own {
            // One try: the place is used up by it, and another begins with a new one.
            true => self.transport.attempt(&call, &at.writes()).await?,
            false => self.transport.send_plain(&call).await?,
        };
        Ok(())
    }

    /// Store a manifest or an index, and say whether the registry lists what refers to others.
    pub(crate) async fn put_document(
        &self,
        at: &Repository,
        selector: &str,
        document: &Document,
        progress: &Arc<dyn Progress>,
    ) -> Result<bool, RegistryError> {
        let what = format!("{}:{selector}", at.name);
        let url = at.url(&format!("manifests/{selector}"))?;
        let mut call = Call::new(Method::PUT, url, what.clone());
        let media_type = HeaderValue::from_str(&document.descriptor.media_type);
        let media_type = media_type.map_err(|_| at.odd(&what, "its media type is no text"))?;
        call.headers.insert(CONTENT_TYPE, media_type);
        call.payload = Payload::Bytes(document.bytes.clone());
        let response = self.transport.send(&call, &at.writes(), progress).await?;
        let stored = header(response.headers(), &CONTENT_DIGEST).and_then(|text| text.parse().ok());
        let want = document.descriptor.digest;
        if let Some(got) = stored
            && got != want
        {
            return Err(RegistryError::Digest { host: at.host(), what, want, got });
        }
        Ok(response.headers().contains_key(SUBJECT))
    }

    /// All tags of a repository, page by page.
    pub(crate) async fn all_tags(
        &self,
        at: &Repository,
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            // Null in some registries when there are none.
            tags: Option<Vec<String>>,
        }
        let what = format!("the tags of {}", at.name);
        let mut url = at.url("tags/list")?;
        url.query_pairs_mut().append_pair("n", PAGE);
        let mut all = Vec::new();
        let mut read = 0;
        for _ in 0..MAX_PAGES {
            let call = Call::new(Method::GET, url.clone(), what.clone());
            let (headers, bytes) =
                self.transport.fetch(&call, &at.reads(), MAX_DOCUMENT, progress).await?;
            let next = at.next(&what, &url, &headers)?;
            read += bytes.len();
            if read > MAX_TAG_BYTES {
                return Err(at.odd(&what, format!("more than {MAX_TAG_BYTES} bytes of tags")));
            }
            let page: Page =
                serde_json::from_slice(&bytes).map_err(|error| at.odd(&what, error.to_string()))?;
            all.extend(page.tags.unwrap_or_default());
            if all.len() > MAX_TAGS {
                return Err(at.odd(&what, format!("more than {MAX_TAGS} tags")));
            }
            let Some(next) = next else { return Ok(all) };
            url = next;
        }
        Err(at.odd(&what, format!("more than {MAX_PAGES} pages")))
    }

    /// The registry's own list of what refers to a digest, page by page; none if it keeps no such
    /// list.
    pub(crate) async fn listed_referrers(
        &self,
        at: &Repository,
        digest: Digest,
        progress: &Arc<dyn Progress>,
    ) -> Result<Option<oci::Index>, RegistryError> {
        let what = format!("what refers to {} in {}", digest.short(), at.name);
        let access = at.reads();
        let mut url = at.url(&format!("referrers/{digest}"))?;
        let mut all: Option<oci::Index> = None;
        for _ in 0..MAX_REFERRER_PAGES {
            let mut call = Call::new(Method::GET, url.clone(), what.clone());
            call.headers.insert(ACCEPT, HeaderValue::from_static(oci::INDEX));
            let ask = || async {
                let mut response = self.transport.attempt(&call, &access).await?;
                let headers = std::mem::take(response.headers_mut());
                let told = header(&headers, &CONTENT_TYPE).unwrap_or_default();
                // Some answer every path with a page for people.
                if told.split(';').next().map(str::trim) != Some(oci::INDEX) {
                    return Ok(None);
                }
                let bytes = self.transport.read(response, &what, MAX_DOCUMENT).await?;
                Ok(Some((headers, bytes)))
            };
            let (headers, bytes) = match self.transport.patiently(progress, ask).await {
                Ok(Some(page)) => page,
                Ok(None) if all.is_none() => return Ok(None),
                Ok(None) => return Err(at.odd(&what, "the next page is no index")),
                Err(
                    RegistryError::NotFound { .. }
                    | RegistryError::Status { status: 400..=499, .. },
                ) if all.is_none() => return Ok(None),
                Err(error) => return Err(error),
            };
            let next = at.next(&what, &url, &headers)?;
            let mut page: oci::Index =
                serde_json::from_slice(&bytes).map_err(|error| at.odd(&what, error.to_string()))?;
            let before = all.take().map(|index| index.manifests).unwrap_or_default();
            page.manifests.splice(0..0, before);
            if page.manifests.len() > MAX_LISTED {
                return Err(at.odd(&what, format!("more than {MAX_LISTED} artifacts")));
            }
            let Some(next) = next else { return Ok(Some(page)) };
            all = Some(page);
            url = next;
        }
        Err(at.odd(&what, format!("more than {MAX_REFERRER_PAGES} pages")))
    }
}

fn blob_call(at: &Repository, digest: Digest, from: u64) -> Result<Call, RegistryError> {
    let what = format!("blob {} of {}", digest.short(), at.name);
    let mut call = Call::new(Method::GET, at.url(&format!("blobs/{digest}"))?, what);
    if from > 0 {
        let range = HeaderValue::from_str(&format!("bytes={from}-"));
        call.headers.extend(range.ok().map(|range| (RANGE, range)));
    }
    Ok(call)
}

/// Where a partial answer begins, and how long the whole is, if it says so.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = header(headers, &CONTENT_RANGE)?;
    let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _end) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, whole.trim().parse().ok()))
}

fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The path in `<path>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let (path, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| path.to_owned())
}

/// What a document is. The header and the document itself must agree, and it must not be two
/// things at once: somebody else may read the same bytes otherwise.
fn media_type(
    at: &Repository,
    what: &str,
    told: Option<String>,
    bytes: &[u8],
) -> Result<String, RegistryError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let shape: Shape =
        serde_json::from_slice(bytes).map_err(|error| at.odd(what, error.to_string()))?;
    let told = told.as_deref().and_then(|told| told.split(';').next()).map(str::trim);
    let known = told.filter(|told| oci::is_index(told) || oci::is_manifest(told));
    let index = shape.manifests.is_some();
    if index && (shape.layers.is_some() || shape.config.is_some()) {
        return Err(at.odd(what, "it is an index and a manifest at once"));
    }
    let media_type = match (known, shape.media_type) {
        (Some(told), Some(own)) if told != own => {
            return Err(at.odd(what, format!("it is sent as `{told}` and says to be `{own}`")));
        }
        (_, Some(own)) => own,
        (Some(told), None) => told.to_owned(),
        (None, None) if index => oci::INDEX.to_owned(),
        (None, None) => oci::MANIFEST.to_owned(),
    };
    let agrees = match index {
        true => oci::is_index(&media_type),
        false => oci::is_manifest(&media_type),
    };
    match agrees {
        true => Ok(media_type),
        false => Err(at.odd(what, format!("its media type is `{media_type}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_ranges_are_read() {
        let link = r#"</v2/a/tags/list?last=x&n=5>; rel="next""#;
        assert_eq!(next_page(link).as_deref(), Some("/v2/a/tags/list?last=x&n=5"));
        assert_eq!(next_page("nonsense"), None);
        let range = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            content_range(&headers)
        };
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(range("items 5-9/10"), None);
    }
}
