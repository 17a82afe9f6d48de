//! Licences, sources and bans of everything that is compiled in, from the lists of
//! `deny.toml`: what cargo-deny checks, without building it.

use std::fs;

use anyhow::Context as _;
use serde::Deserialize;

use super::{Problem, licences};
use crate::house::{House, Metadata};

#[derive(Deserialize)]
struct Deny {
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

/// Check all packages that cargo resolved.
pub fn check(house: &House, all: &Metadata, problems: &mut Vec<Problem>) -> anyhow::Result<()> {
    let text = fs::read_to_string(house.root.join("deny.toml")).context("read deny.toml")?;
    let deny: Deny = toml::from_str(&text).context("read deny.toml")?;
    for package in &all.packages {
        let Some(source) = &package.source else {
            continue;
        };
        let place = format!("Cargo.lock: {} {}", package.name, package.version);
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        if !deny.sources.allow_registry.iter().any(|allowed| allowed == registry) {
            problems.push(Problem::new(&place, format!("comes from {source}")));
        }
        let licence = package.license.as_deref().unwrap_or_default();
        if !licences::allowed(licence, &deny.licenses.allow) {
            let what = format!("has the licence `{licence}`, which deny.toml does not allow");
            problems.push(Problem::new(&place, what));
        }
        if let Some(ban) = deny.bans.deny.iter().find(|ban| ban.name == package.name) {
            problems.push(Problem::new(&place, format!("is banned: {}", ban.reason)));
        }
    }
    Ok(())
}
