//! `[wants]`: network, environment and mounts.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use crate::manifest::{HostPort, MountWant, Wants};
use crate::names::GraphName;
use crate::reader::{At, Reader};

/// Longest host name, by the DNS.
const MAX_HOST_LEN: usize = 253;

/// Longest name of an environment variable and longest path of a mount, in bytes;
/// the kernel's limit for paths.
const MAX_TEXT_LEN: usize = 4096;

pub(super) fn wants(root: &Reader<'_>) -> Wants {
    let Some(wants) = root.table("wants", "[wants]", &["network", "env", "mounts"]) else {
        return Wants::default();
    };
    Wants { network: network(&wants), env: env(&wants), mounts: mounts(&wants) }
}

fn network(wants: &Reader<'_>) -> Vec<HostPort> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for At { at, value } in wants.texts("network", "[\"api.example.com:443\"]").unwrap_or_default()
    {
        let Some(want) = host_port(value) else {
            let message = format!(
                "`{value}` is not a destination: write host and port, for instance \
                 \"api.example.com:443\""
            );
            wants.mistake(at, message);
            continue;
        };
        if seen.insert((want.host.clone(), want.port)) {
            found.push(want);
        } else {
            wants.mistake(at, format!("`{value}` is listed twice: list it once"));
        }
    }
    found
}

fn host_port(text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|&port| digits && port != 0)?;
    is_host(host).then(|| HostPort { host: host.to_ascii_lowercase(), port })
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte != b'-');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        label.len() <= 63
            && edge(label.bytes().next())
            && edge(label.bytes().last())
            && label.bytes().all(plain)
    };
    host.len() <= MAX_HOST_LEN && host.split('.').all(label)
}

fn env(wants: &Reader<'_>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for At { at, value } in wants.texts("env", "[\"LOG_LEVEL\"]").unwrap_or_default() {
        if !is_env_name(value) {
            let message = format!(
                "`{value}` is not the name of an environment variable: use A-Z, a-z, 0-9 and `_`, \
                 not starting with a digit"
            );
            wants.mistake(at, message);
        } else if seen.insert(value) {
            found.push(value.to_owned());
        } else {
            wants.mistake(at, format!("`{value}` is listed twice: list it once"));
        }
    }
    found
}

fn is_env_name(text: &str) -> bool {
    text.len() <= MAX_TEXT_LEN
        && text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn mounts(wants: &Reader<'_>) -> Vec<MountWant> {
    let mut names = BTreeSet::new();
    let mut paths = BTreeSet::new();
    let mut found = Vec::new();
    for reader in wants.tables("mounts", "`mounts`", &["name", "path", "writable"]) {
        reader.require("name", "mounts = [{ name = \"data\", path = \"/data\" }]");
        reader.require("path", "mounts = [{ name = \"data\", path = \"/data\" }]");
        let name = mount_name(&reader);
        let path = mount_path(&reader);
        let writable = reader.flag("writable").unwrap_or(false);
        let (Some(name), Some(path)) = (name, path) else { continue };
        if !names.insert(name.value) {
            let message = format!("mount `{}` is there twice: give one another name", name.value);
            reader.mistake(name.at, message);
        }
        if !paths.insert(path.value) {
            let message = format!("two mounts have the path `{}`: change one", path.value);
            reader.mistake(path.at, message);
        }
        found.push(MountWant {
            name: name.value.to_owned(),
            path: path.value.to_owned(),
            writable,
        });
    }
    found
}

/// What the host grants by, in the form of a graph's name.
fn mount_name<'a>(reader: &Reader<'a>) -> Option<At<&'a str>> {
    let text = reader.text("name")?;
    let good = text.value.parse::<GraphName>().is_ok();
    if !good {
        let message = format!(
            "`{}` is not the name of a mount: use 1 to 63 of A-Z, a-z, 0-9, `-`, `_` and `.`",
            text.value
        );
        reader.mistake(text.at, message);
    }
    good.then_some(text)
}

fn mount_path<'a>(reader: &Reader<'a>) -> Option<At<&'a str>> {
    let text = reader.text("path")?;
    let parts = text.value.strip_prefix('/').map(|rest| rest.split('/'));
    let good = text.value.len() <= MAX_TEXT_LEN
        && !text.value.contains(char::is_control)
        && parts.is_some_and(|mut parts| parts.all(|part| !matches!(part, "" | "." | "..")));
    if !good {
        let message = format!(
            "`{}` is not a path in the guest: write an absolute path without `..`, \
             for instance \"/data\"",
            text.value
        );
        reader.mistake(text.at, message);
    }
    good.then_some(text)
}
