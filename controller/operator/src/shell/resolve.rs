//! Which digest a tag stands for, and who has signed it. A registry is asked beside the turns, so
//! that one which is slow or away keeps no model from being scaled.
//!
//! It is asked where there is a tag to resolve, and where the spec has keys. An image by digest
//! without keys needs no registry: the kubelet may have it from elsewhere.

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
use crate::signature::{Keys, Unsigned};
use crate::time::Moment;
use crate::turn::{Stored, Unknown};

/// How long a registry may take to say what an image is, and who has signed it.
const ANSWER: Duration = Duration::from_secs(30);

/// How long it may take to say who has signed an image of which nobody asks that.
const SIGNATURES: Duration = Duration::from_secs(10);

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
    Found(Found),
    Failed { why: Unknown, again: Moment },
}

/// What a registry has said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    digest: Digest,
    envelope: Option<String>,
}

/// What it is asked.
#[derive(Debug)]
struct Question {
    image: Reference,
    /// Where it is known already, only signatures are asked for.
    digest: Option<Digest>,
    /// Whether signatures are of interest: the spec may have an envelope.
    signatures: bool,
    keys: Keys,
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

    /// The revision that a Model asks for, of which some are `stored`. What is not known is asked
    /// for, and the Model gets a turn when it is.
    pub fn wanted(
        &self,
        key: &Key,
        model: &Model,
        stored: &[Stored],
        now: Moment,
    ) -> Result<Revision, Unknown> {
        let wrong = |error: &dyn std::fmt::Display| Unknown::Unresolved(error.to_string());
        let unsigned = |error: Unsigned| Unknown::Unsigned(error.to_string());
        let image: Reference = model.spec.package.image.parse().map_err(|error| wrong(&error))?;
        let signature = &model.spec.package.signature;
        let keys = Keys::parse(&signature.keys).map_err(unsigned)?;
        let digest = image.digest().or_else(|| recorded(model));
        if let Some(digest) = digest {
            let revision = Revision::new(&key.name, &model.spec, digest);
            let mut revision = revision.map_err(|error| wrong(&error))?;
            // As its pods have it: another would replace them.
            let said = || self.said(key, model).filter(|found| found.digest == digest);
            let before = kept(stored, &revision, digest).or_else(said);
            // Whoever wrote the digest need not reach the registry, and one that was resolved by
            // an operator that died before it stored the revision is asked for its signatures.
            let complete = image.digest().is_some() || before.is_some();
            revision.found = before.and_then(|found| found.envelope);
            let signed = keys.check(&image, digest, revision.envelope());
            if signature.envelope.is_some() || (complete && signed.is_ok()) {
                return signed.map(|()| revision).map_err(unsigned);
            }
        }
        let signatures = signature.envelope.is_none();
        let question = Question { image, digest, signatures, keys };
        let (question, Found { digest, envelope }) = self.asked(key, model, question, now)?;
        let revision = Revision::new(&key.name, &model.spec, digest);
        let mut revision = revision.map_err(|error| wrong(&error))?;
        revision.found = envelope;
        let Question { image, keys, .. } = &question;
        keys.check(image, digest, revision.envelope()).map_err(unsigned)?;
        Ok(revision)
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

    /// What a registry has said for this generation.
    fn said(&self, key: &Key, model: &Model) -> Option<Found> {
        let known = self.known.lock();
        match &known.get(key).filter(|entry| entry.is_of(model))?.answer {
            Answer::Found(found) => Some(found.clone()),
            Answer::Asking | Answer::Failed { .. } => None,
        }
    }

    fn asked(
        &self,
        key: &Key,
        model: &Model,
        question: Question,
        now: Moment,
    ) -> Result<(Question, Found), Unknown> {
        let mut known = self.known.lock();
        let before = known.get(key).filter(|entry| entry.is_of(model));
        let failures = match before.map(|entry| (&entry.answer, entry.failures)) {
            Some((Answer::Asking, _)) => return Err(Unknown::Asking),
            Some((Answer::Found(found), _)) => return Ok((question, found.clone())),
            Some((Answer::Failed { why, again }, _)) if now < *again => return Err(why.clone()),
            Some((Answer::Failed { .. }, failures)) => failures,
            None => 0,
        };
        let uid = model.metadata.uid.clone().unwrap_or_default();
        let generation = model.metadata.generation.unwrap_or_default();
        let entry = Entry { uid, generation, failures, answer: Answer::Asking };
        known.insert(key.clone(), entry.clone());
        drop(known);
        self.ask(key.clone(), model, question, entry);
        Err(Unknown::Asking)
    }

    /// Asks in the background. The number of such questions is that of Models without an answer.
    fn ask(&self, key: Key, model: &Model, question: Question, asking: Entry) {
        let (client, queue, known) =
            (self.client.clone(), self.queue.clone(), Arc::clone(&self.known));
        let mut settings = self.settings.clone();
        let secrets: Vec<String> =
            model.spec.image_pull_secrets.iter().map(|secret| secret.name.clone()).collect();
        tokio::spawn(async move {
            let asked = async {
                let given = credentials(&client, &key.namespace, &secrets, &question.image).await;
                settings.credentials = given.unwrap_or(settings.credentials);
                question.answer(settings).await
            };
            let answer = tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| {
                let (image, seconds) = (&question.image, ANSWER.as_secs());
                Err(Unknown::Unresolved(format!("{image}: no answer within {seconds} s")))
            });
            let now = super::now();
            if let Some(entry) = known.lock().get_mut(&key)
                && (&entry.uid, entry.generation) == (&asking.uid, asking.generation)
            {
                match answer {
                    Ok(found) => entry.answer = Answer::Found(found),
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

// === impl Entry ===

impl Entry {
    fn is_of(&self, model: &Model) -> bool {
        model.metadata.uid.as_deref().unwrap_or_default() == self.uid
            && model.metadata.generation.unwrap_or_default() == self.generation
    }
}

// === impl Question ===

impl Question {
    async fn answer(&self, settings: Settings) -> Result<Found, Unknown> {
        let unresolved = |error: &dyn std::error::Error| Unknown::Unresolved(chain(error));
        let registry = Registry::new(settings).map_err(|error| unresolved(&error))?;
        let digest = match self.digest {
            Some(digest) => digest,
            None => registry.digest(&self.image).await.map_err(|error| unresolved(&error))?,
        };
        let envelope = match (self.signatures, self.keys.is_empty()) {
            (false, _) => None,
            (true, false) => self.envelope(&registry, digest).await.map_err(Unknown::Unsigned)?,
            (true, true) => self.envelope_if_any(&registry, digest).await,
        };
        if self.signatures {
            let signed = self.keys.check(&self.image, digest, envelope.as_deref());
            signed.map_err(|error| Unknown::Unsigned(error.to_string()))?;
        }
        Ok(Found { digest, envelope })
    }

    async fn envelope(
        &self,
        registry: &Registry,
        digest: Digest,
    ) -> Result<Option<String>, String> {
        let beside = registry.beside(&self.image, digest).await;
        let beside =
            beside.map_err(|error| format!("cannot look for signatures: {}", chain(&error)))?;
        self.keys.gather(digest, &beside).map_err(|error| error.to_string())
    }

    /// Signatures that a node's policy may want. Nobody waits for them long: the image may be on
    /// nodes that want none.
    async fn envelope_if_any(&self, registry: &Registry, digest: Digest) -> Option<String> {
        let image = self.image.to_string();
        match tokio::time::timeout(SIGNATURES, self.envelope(registry, digest)).await {
            Ok(Ok(envelope)) => envelope,
            Ok(Err(why)) => {
                tracing::warn!(image, why, "pods carry no signatures");
                None
            }
            Err(_) => {
                tracing::warn!(image, "pods carry no signatures: no answer");
                None
            }
        }
    }
}

/// What a registry had said of a revision that is stored.
fn kept(stored: &[Stored], revision: &Revision, digest: Digest) -> Option<Found> {
    let mut stored = stored.iter().map(|stored| &stored.revision);
    let envelope = stored.find(|one| one.name == revision.name)?.found.clone();
    Some(Found { digest, envelope })
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
mod tests;
