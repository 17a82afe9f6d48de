//! What an activator knows of Models, as plain data: on which port each is called, which pods
//! it has, and what happens while none is ready. It does not know where that comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use wick_api::Span;

/// A Model's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelName {
    pub namespace: String,
    pub name: String,
}

/// All Models that are called through activators.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "File")]
pub struct Table {
    pub models: BTreeMap<ModelName, Route>,
}

/// How one Model is called.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Its own port, by which it is known.
    pub port: u16,
    /// Whether requests wait for a pod.
    pub hold: bool,
    /// Most requests that wait.
    pub max_held: u32,
    /// How long one waits.
    #[serde(deserialize_with = "span")]
    pub hold_timeout: Duration,
    /// Whether clients are told to close their connections.
    #[serde(default)]
    pub close: bool,
    #[serde(default)]
    pub revisions: Vec<Share>,
}

/// A revision's part of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Share {
    pub name: String,
    /// Of all weights' sum. 0: none.
    pub weight: u8,
    /// How far its first pod is.
    #[serde(default)]
    pub first: First,
    #[serde(default)]
    pub pods: Vec<PodAddress>,
}

/// How far the furthest pod of a revision is on its way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum First {
    /// There is none.
    #[default]
    None,
    Made,
    /// It has a node.
    Placed,
}

/// A pod that has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct PodAddress {
    pub address: SocketAddr,
    /// Whether Kubernetes says that it is ready.
    pub ready: bool,
}

/// A table as it is written in a file, where a name is no key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    models: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(flatten)]
    name: ModelName,
    #[serde(flatten)]
    route: Route,
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Span::deserialize(deserializer).map(Span::get)
}

impl From<File> for Table {
    fn from(file: File) -> Self {
        let models = file.models.into_iter().map(|entry| (entry.name, entry.route)).collect();
        Self { models }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_durations_as_a_model_has_them() {
        let text = r#"{"models": [{"namespace": "a", "name": "m", "port": 20000, "hold": true,
            "maxHeld": 7, "holdTimeout": "1m30s",
            "revisions": [{"name": "m-1", "weight": 100,
                           "pods": [{"address": "[::1]:8080", "ready": false}]}]}]}"#;
        let table: Table = serde_json::from_str(text).unwrap();
        let (name, route) = table.models.first_key_value().unwrap();
        assert_eq!(name.to_string(), "a/m");
        assert_eq!((route.max_held, route.hold_timeout), (7, Duration::from_secs(90)));
        assert!(!route.close && !route.revisions[0].pods[0].ready);
        assert!(serde_json::from_str::<Table>(r#"{"model": []}"#).is_err());
    }
}
