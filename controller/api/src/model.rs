//! `Model`: what a user writes, but for the parts that have files of their own.

#![allow(
    clippy::duplicated_attributes,
    reason = "it takes the parts of several columns for attributes of one thing"
)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::placement::{DeviceClaim, Resources, Scheduling};
use crate::rollout::Rollout;
use crate::scale::Scale;
use crate::schema;
use crate::status::ModelStatus;

/// Longest name of an image: 255 bytes of name, a tag of 128, a digest of 71.
const MAX_IMAGE_LEN: usize = 512;

/// Largest envelope of signatures, as the shim reads it.
const MAX_ENVELOPE: usize = 131_072;

/// Keys that may have signed one package.
const MAX_KEYS: usize = 8;

/// Longest public key in PEM.
const MAX_KEY_LEN: usize = 1024;

/// Variables of one package.
const MAX_ENV: usize = 64;

/// Longest value of a variable; more belongs into a volume.
const MAX_VALUE_LEN: usize = 8192;

/// Destinations that a package may be granted, as the shim reads them.
const MAX_NETWORK: usize = 64;

/// Secrets for registries.
const MAX_PULL_SECRETS: usize = 8;

/// Names of variables.
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

/// Keys of a Secret or ConfigMap.
const DATA_KEY: &str = "^[-._A-Za-z0-9]+$";

/// A host and a port.
const DESTINATION: &str = r"^[^\s/,:]+:[0-9]{1,5}$";

/// An image of a registry, with a tag, a digest or both.
const IMAGE: &str = r"^[A-Za-z0-9][-A-Za-z0-9_.:/]*(@sha256:[0-9a-f]{64})?$";

/// A model package, served by pods that come and go with its requests.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "wick.dev",
    version = "v1alpha1",
    kind = "Model",
    namespaced,
    status = "ModelStatus",
    shortname = "mdl",
    category = "wick",
    derive = "PartialEq",
    doc = "A model package, served by pods that come and go with its requests.",
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
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.active.name"),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Device", type_ = "string", json_path = ".status.device"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.address.url"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.package.image", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// The package, and who must have signed it.
    pub package: PackageSource,
    /// Variables for the package, of which it sees those that it wants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_ENV),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvVar>,
    /// Where the package may send requests to, each as HOST:PORT. It may not connect elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_NETWORK),
        inner(length(max = 261), regex(pattern = DESTINATION)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub network: Vec<String>,
    /// What each pod requests and may use, resources of device plugins included.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Devices by dynamic resource allocation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub devices: Vec<DeviceClaim>,
    /// Which nodes the pods may run on.
    #[serde(default, skip_serializing_if = "Scheduling::is_empty")]
    pub scheduling: Scheduling,
    /// How many pods there are, and when.
    #[serde(default)]
    pub scale: Scale,
    /// How traffic moves to a new revision, and back.
    #[serde(default)]
    pub rollout: Rollout,
    /// Whether nodes get the image before a pod needs it.
    #[serde(default)]
    pub prefetch: Prefetch,
    /// The account that pods run as. They get no token of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::subdomain")]
    pub service_account_name: Option<String>,
    /// Secrets of the namespace with the credentials of registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_PULL_SECRETS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub image_pull_secrets: Vec<SecretName>,
}

/// The package, and who must have signed it.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PackageSource {
    /// The image, by tag or by digest. A tag is resolved once for each generation of the Model.
    #[schemars(length(min = 1, max = MAX_IMAGE_LEN), regex(pattern = IMAGE))]
    pub image: String,
    /// Who must have signed the image, beyond what the policy of each node asks.
    #[serde(default, skip_serializing_if = "Signature::is_empty")]
    pub signature: Signature,
}

/// Signatures of an image. Where there are keys or a tag, the registry is asked for what is not given.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// Public keys in PEM, one of which must have signed; without any, nodes alone decide.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_KEYS),
        inner(length(max = MAX_KEY_LEN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub keys: Vec<String>,
    /// The content of the image's `.envelope.json`, for a registry that keeps no signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_ENVELOPE))]
    pub envelope: Option<String>,
}

/// A variable: a value, or where it is.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// The variable's name.
    #[schemars(length(min = 1, max = 256), regex(pattern = VARIABLE))]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_VALUE_LEN))]
    pub value: Option<String>,
    /// Where its value is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where the value of a variable is: in one of these.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnvVarSource {
    /// A key of a Secret of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKey>,
    /// A key of a ConfigMap of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigKey>,
}

/// A key of a Secret.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SecretKey {
    /// The Secret's name.
    #[schemars(schema_with = "schema::subdomain")]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: String,
}

/// A key of a ConfigMap.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ConfigKey {
    /// The ConfigMap's name.
    #[schemars(schema_with = "schema::subdomain")]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253), regex(pattern = DATA_KEY))]
    pub key: String,
}

/// A Secret of the namespace.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct SecretName {
    /// The Secret's name.
    #[schemars(schema_with = "schema::subdomain")]
    pub name: String,
}

/// Whether nodes get the image before a pod needs it.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Prefetch {
    /// Always: the nodes that scheduling permits pull the image ahead, and keep it.
    #[serde(default)]
    pub policy: PrefetchPolicy,
}

/// When an image is pulled ahead.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrefetchPolicy {
    #[default]
    Never,
    Always,
}

// === impl Signature ===

impl Signature {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.envelope.is_none()
    }
}
