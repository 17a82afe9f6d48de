//! The page at `/v2/page`: one HTML document without anything from elsewhere, which lists
//! the models and lets people try them by the public REST interface.
//!
//! `/` leads to it, unless a package answers HTTP at `/` itself. It is one address so that
//! the page's links are right behind a proxy that adds a prefix.
//!
//! The browser is told to run the page's own script and style, by their digests, and nothing
//! else: what a package calls itself can't become code even if the page had a hole.

use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use sha2::{Digest as _, Sha256};

const MARKUP: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Where the page is. The script asks for what lies beside it.
pub(crate) const PATH: &str = "/v2/page";

/// The document, and the policy for browsers that its digests make.
struct Page {
    text: Bytes,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

/// The page itself.
pub(crate) async fn answer() -> Response {
    let mut response = PAGE.text.clone().into_response();
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A new version of the server may have a new page at the same address.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, PAGE.policy.clone());
    response
}

/// Whether a request is one of a person who typed no path.
pub(crate) fn is_front_door(method: &Method, path: &str) -> bool {
    path == "/" && (method == Method::GET || method == Method::HEAD)
}

/// The way from `/` to the page, relative so that a proxy's prefix stays.
pub(crate) fn lead() -> Response {
    let location = HeaderValue::from_static("v2/page");
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()
}

// === impl Page ===

impl Page {
    fn new() -> Self {
        let text = MARKUP.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT);
        let digest = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            digest(SCRIPT),
            digest(STYLE)
        );
        // Base64 and these words are always a header.
        let policy = HeaderValue::try_from(policy);
        let policy = policy.unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
        Self { text: Bytes::from(text), policy }
    }
}
