//! What a fleet's operator writes, in files of a repository or in a cluster: `Site` and `Rollout`.
//! A field that is not known is refused, since a slip in one would move a fleet.

#![allow(
    clippy::duplicated_attributes,
    reason = "it takes the parts of several columns for attributes of one thing"
)]

mod status;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schema;
use crate::text::{Percent, Quantity, Span, number_or_text, number_or_text_schema};
pub use status::{RolloutPhase, RolloutStatus, SiteCounts, SiteStatus};

/// Models of one rollout, and of one site.
const MAX_MODELS: usize = 64;

/// Waves of one rollout.
const MAX_WAVES: usize = 64;

/// Longest name of an image with its digest.
const MAX_IMAGE: usize = 330;

/// An image by digest: what a tag stands for changes.
const IMAGE: &str = r"^[A-Za-z0-9][-A-Za-z0-9_.:/]*@sha256:[0-9a-f]{64}$";

/// Names of packages.
const MAX_PACKAGE: usize = 64;

/// Longest rule of a time zone.
const MAX_ZONE: usize = 100;

/// A minute of the day.
const TIME: &str = "^([01][0-9]|2[0-3]):[0-5][0-9]$";

/// Longest number of sites: `1000000`.
const MAX_AMOUNT: usize = 7;

/// A number, or a percentage.
const AMOUNT: &str = "^([1-9][0-9]{0,6}|[1-9][0-9]?%|100%)$";

/// What is known of a site better than the site knows it.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "wick.dev",
    version = "v1alpha1",
    kind = "Site",
    namespaced,
    category = "wick",
    status = "SiteStatus",
    derive = "PartialEq",
    doc = "A site of a fleet: what is known of it better than it knows itself.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Online", type_ = "boolean", json_path = ".status.online"),
    printcolumn(name = "Generation", type_ = "integer", json_path = ".status.generation"),
    printcolumn(name = "Serving", type_ = "integer", json_path = ".status.serving"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteSpec {
    /// Labels that rollouts select by. They win over those that the site gave when it enrolled.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::selector")]
    pub labels: BTreeMap<String, String>,
    /// The rule of its time zone as POSIX writes it, such as `CET-1CEST,M3.5.0,M10.5.0/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_ZONE))]
    pub zone: Option<String>,
    /// Memory that models may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// Disk that models may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Quantity>,
}

/// One change for many sites.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "wick.dev",
    version = "v1alpha1",
    kind = "Rollout",
    namespaced,
    category = "wick",
    status = "RolloutStatus",
    derive = "PartialEq",
    doc = "One change for many sites of a fleet. What it changes stays: another change has another name.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Wave", type_ = "integer", json_path = ".status.wave"),
    printcolumn(name = "Waves", type_ = "integer", json_path = ".status.waves"),
    printcolumn(name = "Sites", type_ = "integer", json_path = ".status.sites.total"),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.sites.done"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutSpec {
    /// Labels that a site must have; all sites where there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::selector")]
    pub select: BTreeMap<String, String>,
    /// Models that are added, or take the place of those with the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_MODELS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub models: Vec<ModelVersion>,
    /// Names of models that are taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_MODELS),
        inner(length(max = MAX_PACKAGE)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub remove: Vec<String>,
    /// Who moves after whom. The last wave takes whoever is left; without any all move at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_WAVES), extend("x-kubernetes-list-type" = "atomic"))]
    pub waves: Vec<Wave>,
    /// How many sites may be on their way or broken at once; all of them unless it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<Amount>,
    /// When sites may move, by their own clocks; at any time unless it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// How long a site that is online may take; half an hour unless it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settle: Option<Span>,
    /// How long a wave waits for a site that is offline; an hour unless it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<Span>,
    /// What happens when a gate fails.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// One version of a model.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelVersion {
    /// The package's name.
    #[schemars(length(min = 1, max = MAX_PACKAGE))]
    pub name: String,
    /// The image with its digest, which `wick push` prints.
    #[schemars(length(max = MAX_IMAGE), regex(pattern = IMAGE))]
    pub image: String,
    /// What it takes of a site's disk.
    pub disk: Quantity,
    /// What it takes of a site's memory when it is loaded.
    pub memory: Quantity,
}

/// Some sites, and what must hold before others follow.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wave {
    /// How many of those that are left, or a percentage of all; whoever is left unless it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<Amount>,
    /// Those with one label, in place of `take`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// What must hold after it.
    #[serde(default)]
    pub gate: Gate,
}

/// A label.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Its key.
    #[schemars(schema_with = "schema::qualified")]
    pub key: String,
    /// Its value.
    #[schemars(schema_with = "schema::label_value")]
    pub value: String,
}

/// What must hold after a wave before the next.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gate {
    /// The share of its sites that must get there; all of them unless it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<Percent>,
    /// The share of requests that may fail on all sites that moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Percent>,
    /// The median over those sites of their 99th percentile, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<Span>,
    /// How long all of it must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<Span>,
    /// Whether somebody must approve.
    #[serde(default)]
    pub approval: bool,
}

/// When sites may move.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The days that it begins on.
    #[schemars(length(min = 1, max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub days: Vec<Day>,
    /// When it begins, such as `22:00`.
    #[schemars(length(max = 5), regex(pattern = TIME))]
    pub from: String,
    /// When it ends; the next day where that is earlier.
    #[schemars(length(max = 5), regex(pattern = TIME))]
    pub until: String,
}

#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// What happens when a gate fails.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// All sites that moved go back.
    #[default]
    RollBack,
    /// They stay, and nobody else moves.
    Pause,
}

/// A number of sites, or a percentage of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    Count(u32),
    Percent(u8),
}

/// Text that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of sites: write for instance `5` or `10%`")]
pub struct AmountError(String);

// === impl Amount ===

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let wrong = || AmountError(text.chars().take(MAX_AMOUNT).collect());
        let digits = text.strip_suffix('%').unwrap_or(text);
        if digits.is_empty() || digits.len() > MAX_AMOUNT || digits.starts_with(['+', '0']) {
            return Err(wrong());
        }
        let number: u32 = digits.parse().map_err(|_| wrong())?;
        if digits.len() == text.len() {
            return Ok(Self::Count(number));
        }
        let percent = u8::try_from(number).ok().filter(|percent| *percent <= 100);
        percent.map(Self::Percent).ok_or_else(wrong)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_text(deserializer)
    }
}

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        number_or_text_schema(AMOUNT, MAX_AMOUNT)
    }
}
