//! Which digest a tag stands for. A registry is asked beside the turns, so that one which is slow
//! or away keeps no model from being scaled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use parking_lot::Mutex;
use serde_json::Value;
use wick_api::Model;
use wick_package::{Digest, Reference};
use wick_registry::{Credentials, Registry, Settings};

use super::queue::{Key, Queue};
use crate::revision::Revision;
use crate::time::Moment;
use crate::turn::Unknown;

/// How long a registry may take to say which digest a tag stands for.
const ANSWER: Duration = Duration::from_secs(30);

/// How long to wait before a registry is asked again, at first and at most.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_MOST: Duration = Duration::from_secs(300);

/// What is known of the image of one generation.
#[derive(Debug, Clone)]
struct Entry {
    uid: String,
    generation: i64,
    failures: u32,
    answer: Answer,
}

#[derive(Debug, Clone)]
enum Answer {
    Asking,
    Digest(Digest),
    Failed { why: String, again: Moment },
}

/// Asks registries, once for each generation of a Model.
pub struct Resolver {
    client: Client,
    settings: Settings,
    queue: Queue,
    known: Arc<Mutex<BTreeMap<Key, Entry>>>,
}

// === impl Resolver ===

impl Resolver {
    pub fn new(client: Client, settings: Settings, queue: Queue) -> Self {
        Self { client, settings, queue, known: Arc::default() }
    }

    /// The revision that a Model asks for. What is not known is asked for, and the Model gets a
    /// turn when it is. `Some` moment: when to look again.
    pub fn wanted(&self, key: &Key, model: &Model, now: Moment) -> Result<Revision, Unknown> {
        let wrong = |error: &dyn std::fmt::Display| Unknown::Unresolved(error.to_string());
        let image: Reference = model.spec.package.image.parse().map_err(|error| wrong(&error))?;
        let digest = match image.digest() {
            Some(digest) => digest,
            None => match recorded(model) {
                Some(digest) => digest,
                None => self.asked(key, model, image, now)?,
            },
        };
        Revision::new(&key.name, &model.spec, digest).map_err(|error| wrong(&error))
    }

    pub fn forget(&self, key: &Key) {
        self.known.lock().remove(key);
    }

    /// When the registry is asked again, if it could not say.
    pub fn again(&self, key: &Key) -> Option<Moment> {
        match self.known.lock().get(key).map(|entry| &entry.answer) {
            Some(Answer::Failed { again, .. }) => Some(*again),
            _ => None,
        }
    }

    fn asked(
        &self,
        key: &Key,
        model: &Model,
        image: Reference,
        now: Moment,
    ) -> Result<Digest, Unknown> {
        let uid = model.metadata.uid.clone().unwrap_or_default();
        let generation = model.metadata.generation.unwrap_or_default();
        let mut known = self.known.lock();
        let failures = match known.get(key) {
            Some(entry) if entry.uid == uid && entry.generation == generation => {
                match &entry.answer {
                    Answer::Asking => return Err(Unknown::Asking),
                    Answer::Digest(digest) => return Ok(*digest),
                    Answer::Failed { why, again } if now < *again => {
                        return Err(Unknown::Unresolved(why.clone()));
                    }
                    Answer::Failed { .. } => entry.failures,
                }
            }
            _ => 0,
        };
        let entry = Entry { uid, generation, failures, answer: Answer::Asking };
        known.insert(key.clone(), entry.clone());
        drop(known);
        self.ask(key.clone(), model, image, entry);
        Err(Unknown::Asking)
    }

    /// Asks in the background. The number of such questions is that of Models without an answer.
    fn ask(&self, key: Key, model: &Model, image: Reference, asking: Entry) {
        let (client, queue, known) =
            (self.client.clone(), self.queue.clone(), Arc::clone(&self.known));
        let mut settings = self.settings.clone();
        let secrets: Vec<String> =
            model.spec.image_pull_secrets.iter().map(|secret| secret.name.clone()).collect();
        tokio::spawn(async move {
            let question = async {
                let given = credentials(&client, &key.namespace, &secrets, &image).await;
                settings.credentials = given.unwrap_or(settings.credentials);
                let registry = Registry::new(settings).map_err(|error| chain(&error))?;
                registry.digest(&image).await.map_err(|error| chain(&error))
            };
            let answer = match tokio::time::timeout(ANSWER, question).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("{image}: no answer within {} s", ANSWER.as_secs())),
            };
            let now = super::now();
            if let Some(entry) = known.lock().get_mut(&key)
                && (&entry.uid, entry.generation) == (&asking.uid, asking.generation)
            {
                match answer {
                    Ok(digest) => entry.answer = Answer::Digest(digest),
                    Err(why) => {
                        entry.failures = asking.failures.saturating_add(1);
                        let wait = AGAIN * 2_u32.saturating_pow(asking.failures.min(16));
                        let again = now + wait.min(AGAIN_MOST);
                        entry.answer = Answer::Failed { why, again };
                    }
                }
            }
            queue.add(key).await;
        });
    }
}

/// What this generation's tag stood for when somebody asked.
fn recorded(model: &Model) -> Option<Digest> {
    let resolved = &model.status.as_ref()?.resolved;
    let generation = model.metadata.generation?;
    let one = resolved.iter().find(|one| one.generation == generation)?;
    one.image.rsplit_once('@')?.1.parse().ok()
}

/// Who the Model's pull secrets are at the image's registry.
async fn credentials(
    client: &Client,
    namespace: &str,
    secrets: &[String],
    image: &Reference,
) -> Option<Credentials> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let registry = image.registry().to_owned();
    for name in secrets {
        let secret = match api.get(name).await {
            Ok(secret) => secret,
            Err(error) => {
                tracing::warn!(namespace, secret = name, %error, "cannot read a pull secret");
                continue;
            }
        };
        let data = secret.data.unwrap_or_default();
        let config = data.get(".dockerconfigjson").map(|bytes| bytes.0.as_slice());
        if let Some((user, password)) = config.and_then(|config| account(config, &registry)) {
            return Some(Credentials::Given { registry, user, password });
        }
    }
    None
}

/// The account for a registry in a file as Docker writes it.
fn account(config: &[u8], registry: &str) -> Option<(String, String)> {
    let config: Value = serde_json::from_slice(config).ok()?;
    let auths = config.get("auths")?.as_object()?;
    let (_, auth) = auths.iter().find(|(name, _)| {
        let name = name.trim_start_matches("https://").trim_start_matches("http://");
        let host = name.split('/').next().unwrap_or(name);
        host == registry || (registry == "docker.io" && host == "index.docker.io")
    })?;
    if let (Some(user), Some(password)) = (auth["username"].as_str(), auth["password"].as_str()) {
        return Some((user.to_owned(), password.to_owned()));
    }
    let both = BASE64_STANDARD.decode(auth["auth"].as_str()?).ok()?;
    let both = String::from_utf8(both).ok()?;
    let (user, password) = both.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// An error with all of its reasons.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_in_every_form_that_docker_writes() {
        let config = br#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOmtleQ=="},
            "registry.example:5000": {"username": "me", "password": "secret"},
            "broken.example": {"auth": "!"}
        }}"#;
        let account = |registry| account(config, registry);
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(account("registry.example:5000"), pair("me", "secret"));
        assert_eq!(account("docker.io"), pair("hub", "key"));
        assert_eq!(account("broken.example"), None);
        assert_eq!(account("registry.example"), None);
        assert_eq!(super::account(b"no json", "a"), None);
    }
}
