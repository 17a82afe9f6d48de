//! Pushes an image to a registry that speaks plain HTTP. Each blob is sent whole; a blob
//! that is there already is sent again, since tests make small images.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};

use crate::http::{Answer, Request};
use crate::image::{Built, digest};

/// Push `image` under the path and tag of its reference: what comes after the first `/`.
pub fn push(registry: SocketAddr, image: &Built) -> anyhow::Result<()> {
    let (path, tag) = split(&image.reference)?;
    for blob in &image.blobs {
        push_blob(registry, path, blob).with_context(|| format!("push {}", image.reference))?;
    }
    let put = Request {
        method: "PUT",
        path: &format!("/v2/{path}/manifests/{tag}"),
        headers: &[("Content-Type", image.media_type())],
        body: &image.manifest,
    };
    expect(&put.send(registry)?, 201).with_context(|| format!("push {}", image.reference))
}

fn push_blob(registry: SocketAddr, path: &str, blob: &[u8]) -> anyhow::Result<()> {
    let start = format!("/v2/{path}/blobs/uploads/");
    let answer = Request { method: "POST", path: &start, headers: &[], body: &[] };
    let answer = answer.send(registry)?;
    expect(&answer, 202)?;
    let location = answer.header("location").context("an upload without a location")?;
    // It may be a whole URL, of which the host is the one that was asked.
    let location = location
        .split_once("://")
        .map_or(location, |(_, rest)| rest.find('/').map_or("/", |slash| &rest[slash..]));
    let joint = if location.contains('?') { '&' } else { '?' };
    let put = Request {
        method: "PUT",
        path: &format!("{location}{joint}digest={}", digest(blob)),
        headers: &[("Content-Type", "application/octet-stream")],
        body: blob,
    };
    expect(&put.send(registry)?, 201)
}

fn expect(answer: &Answer, status: u16) -> anyhow::Result<()> {
    ensure!(answer.status == status, "the registry answered {}: {}", answer.status, answer.text());
    Ok(())
}

/// Path and tag of a reference with a host.
fn split(reference: &str) -> anyhow::Result<(&str, &str)> {
    let (_, rest) = reference.split_once('/').context("a reference without a host")?;
    rest.rsplit_once(':').with_context(|| format!("`{reference}` has no tag"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_reference_is_found_beside_a_port() {
        assert_eq!(split("registry.local/a/b:1").ok(), Some(("a/b", "1")));
        assert_eq!(split("10.0.0.1:5000/a:1").ok(), Some(("a", "1")));
        assert!(split("a:1").is_err());
        assert!(split("host/a").is_err());
    }
}
