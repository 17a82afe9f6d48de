//! A revision: what of a Model decides how its pods run, with the image by digest. Its name is a
//! hash of that, so it is the same whenever and by whichever version of the operator it is
//! computed; what only says how many pods there are, or how traffic moves, makes no new one.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use wick_api::{DeviceClaim, EnvVar, ModelSpec, Resources, Scheduling, SecretName};
use wick_package::{Digest, Reference, ReferenceError};

/// Letters of a hash: no vowels, so that no words come of it, and nothing that looks alike.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Letters of a name's hash: among a thousand revisions, two alike in one of half a million cases.
const HASH_LEN: usize = 8;

/// The name of a revision and of its Deployment: the Model's, and a hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RevisionName(String);

/// What decides how pods run. Fields are left out when they are empty, so a field that a later
/// version adds changes no hash of those that don't use it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// The image by digest.
    pub image: String,
    /// The envelope of signatures that the spec gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<String>,
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceClaim>,
    #[serde(default, skip_serializing_if = "Scheduling::is_empty")]
    pub scheduling: Scheduling,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<SecretName>,
}

/// A revision of a Model.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    pub name: RevisionName,
    pub template: Template,
    /// The envelope that the registry had, where the spec gives none. It says nothing about how
    /// pods run, so it is no part of the name.
    pub found: Option<String>,
}

// === impl Revision ===

impl Revision {
    /// The revision that a spec asks for, its image being the one with this digest.
    pub fn new(model: &str, spec: &ModelSpec, digest: Digest) -> Result<Self, ReferenceError> {
        let image: Reference = spec.package.image.parse()?;
        // By digest alone: a tag that has moved on would only mislead who reads it.
        let image = format!("{}@{digest}", image.name());
        let template = Template {
            image,
            envelope: spec.package.signature.envelope.clone(),
            env: spec.env.clone(),
            network: spec.network.clone(),
            resources: spec.resources.clone(),
            devices: spec.devices.clone(),
            scheduling: spec.scheduling.clone(),
            service_account_name: spec.service_account_name.clone(),
            image_pull_secrets: spec.image_pull_secrets.clone(),
        };
        Ok(Self { name: RevisionName::of(model, &template), template, found: None })
    }

    /// The envelope that its pods carry.
    pub fn envelope(&self) -> Option<&str> {
        self.template.envelope.as_deref().or(self.found.as_deref())
    }

    pub fn digest(&self) -> &str {
        self.template.image.rsplit_once('@').map_or("", |(_, digest)| digest)
    }
}

// === impl RevisionName ===

impl RevisionName {
    fn of(model: &str, template: &Template) -> Self {
        let value = serde_json::to_value(template).expect("a template is plain data");
        let mut text = String::new();
        canonical(&value, &mut text);
        let hash = Sha256::digest(text.as_bytes());
        let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
        let hash: String = hash.iter().take(HASH_LEN).map(letter).collect();
        Self(format!("{model}-{hash}"))
    }

    /// A name that was made before, as a status has it.
    pub fn known(name: &str) -> Self {
        Self(name.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash alone.
    pub fn hash(&self) -> &str {
        self.0.rsplit_once('-').map_or(&self.0, |(_, hash)| hash)
    }
}

impl fmt::Display for RevisionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// JSON with sorted keys and without spaces, whatever order the values' maps keep.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            text.push('{');
            for key in keys {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(&map[key], text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for item in list {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wick_api::Model;

    use super::*;

    fn model(change: impl Fn(&mut Value)) -> Model {
        let mut value = json!({
            "apiVersion": "wick.dev/v1alpha1",
            "kind": "Model",
            "metadata": {"name": "filetype"},
            "spec": {
                "package": {"image": "registry.example/vision/filetype:1.2.0"},
                "resources": {"limits": {"memory": "256Mi", "cpu": "1"}},
                "env": [{"name": "MODE", "value": "fast"}],
                "scheduling": {"tolerations": [{"key": "npu", "operator": "Exists"}]},
            },
        });
        change(&mut value);
        wick_api::parse(value).unwrap()
    }

    fn name(change: impl Fn(&mut Value), digest: char) -> String {
        let digest: Digest = format!("sha256:{}", digest.to_string().repeat(64)).parse().unwrap();
        let model = model(change);
        Revision::new("filetype", &model.spec, digest).unwrap().name.to_string()
    }

    /// If this fails, every pod of every cluster would be replaced by an update of the operator.
    #[test]
    fn the_name_is_the_same_in_every_version() {
        assert_eq!(name(|_| {}, 'a'), "filetype-hb2gqjtv");
    }

    #[test]
    fn what_changes_how_pods_run_changes_the_name_and_nothing_else_does() {
        let same = name(|_| {}, 'a');
        let harmless: [fn(&mut Value); 4] = [
            |m| m["spec"]["scale"] = json!({"maxReplicas": 3, "idleTimeout": "5m"}),
            |m| m["spec"]["rollout"] = json!({"steps": []}),
            |m| m["spec"]["package"]["image"] = "registry.example/vision/filetype:1.3.0".into(),
            |m| m["spec"]["prefetch"] = json!({"policy": "Always"}),
        ];
        for change in harmless {
            assert_eq!(name(change, 'a'), same);
        }
        let changes: [fn(&mut Value); 8] = [
            |m| m["spec"]["package"]["image"] = "other.example/vision/filetype:1.2.0".into(),
            |m| m["spec"]["package"]["signature"] = json!({"envelope": "{}"}),
            |m| m["spec"]["env"][0]["value"] = "slow".into(),
            |m| m["spec"]["network"] = json!(["db:1"]),
            |m| m["spec"]["resources"]["limits"]["cpu"] = "2".into(),
            |m| m["spec"]["devices"] = json!([{"name": "npu", "resourceClaimName": "npu"}]),
            |m| m["spec"]["serviceAccountName"] = "models".into(),
            |m| m["spec"]["imagePullSecrets"] = json!([{"name": "registry"}]),
        ];
        let mut names: Vec<String> = changes.into_iter().map(|change| name(change, 'a')).collect();
        names.extend([same, name(|_| {}, 'b')]);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 10);
    }

    #[test]
    fn a_template_survives_its_stored_form() {
        let digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let revision = Revision::new("filetype", &model(|_| {}).spec, digest).unwrap();
        let stored = serde_json::to_string(&revision.template).unwrap();
        let read: Template = serde_json::from_str(&stored).unwrap();
        assert_eq!(RevisionName::of("filetype", &read), revision.name);
        assert_eq!(
            revision.template.image,
            format!("registry.example/vision/filetype@{}", revision.digest())
        );
    }

    #[test]
    fn what_the_registry_had_is_no_part_of_the_name() {
        let digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let mut revision = Revision::new("filetype", &model(|_| {}).spec, digest).unwrap();
        assert_eq!(revision.envelope(), None);
        revision.found = Some("{}".to_owned());
        assert_eq!(revision.envelope(), Some("{}"));
        assert_eq!(RevisionName::of("filetype", &revision.template), revision.name);
    }
}
