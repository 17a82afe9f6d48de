//! What somebody wrote, from the files of a repository: sites and rollouts. Pure: text in, a policy or every
//! mistake with its file and line out.

mod lines;
mod rollout;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wick_api::fleet::{RolloutSpec, SiteSpec};
use wick_fleet::plan::{Place, Policy, Rollout, Zone};
use wick_fleet::{RolloutName, SiteName};

/// Where sites are, and where rollouts.
pub const SITES: &str = "sites/";
pub const ROLLOUTS: &str = "rollouts/";

/// What every object says of itself.
pub const API_VERSION: &str = "wick.dev/v1alpha1";

/// Most mistakes that are told at once; the next are found when these are gone.
const MAX_MISTAKES: usize = 50;

/// Rollouts of one policy: with more, old ones should go.
const MAX_ROLLOUTS: usize = 1000;

/// One file of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub path: String,
    pub text: String,
}

/// What all files say together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Documents {
    pub sites: BTreeMap<SiteName, Override>,
    pub policy: Policy,
}

/// What is known of a site better than it knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Override {
    pub labels: BTreeMap<String, String>,
    pub zone: Option<Zone>,
    pub memory: Option<u64>,
    pub disk: Option<u64>,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    pub file: String,
    /// Counted from one; none where it is about the whole file.
    pub line: Option<u64>,
    /// Such as `spec.models[0].image`.
    pub field: String,
    pub what: String,
}

/// What is wrong with an object's field.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    field: String,
    what: String,
}

/// An object as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Object<S> {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: S,
}

/// Of it only the name means something here; labels and annotations are for people and tools.
#[derive(Deserialize)]
struct Metadata {
    name: String,
}

/// Files in the order of their paths, so that the same files make the same policy.
#[derive(Default)]
struct Reader {
    documents: Documents,
    mistakes: Vec<Mistake>,
}

/// The policy of these files.
///
/// # Errors
/// Every mistake in them, up to a bound.
pub fn read(files: &[File]) -> Result<Documents, Vec<Mistake>> {
    let mut sorted: Vec<_> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut reader = Reader::default();
    for file in sorted {
        if file.path.starts_with(SITES) {
            reader.objects(file, "Site", Reader::site);
        } else if file.path.starts_with(ROLLOUTS) {
            reader.objects(file, "Rollout", Reader::rollout);
        }
    }
    match reader.mistakes.is_empty() {
        true => Ok(reader.documents),
        false => Err(reader.mistakes),
    }
}

/// What must not change in a rollout that has begun.
pub fn changed(before: &Policy, after: &Policy) -> Option<RolloutName> {
    let same = |a: &Rollout, b: &Rollout| {
        a.models == b.models && a.remove == b.remove && a.select == b.select
    };
    let of = |name: &RolloutName| before.rollouts.iter().find(|old| old.name == *name);
    let new = after.rollouts.iter().find(|new| of(&new.name).is_some_and(|old| !same(old, new)));
    new.map(|rollout| rollout.name.clone())
}

// === impl Reader ===

impl Reader {
    fn objects<S: DeserializeOwned>(
        &mut self,
        file: &File,
        kind: &str,
        add: impl Fn(&mut Self, &str, &S) -> Result<(), Wrong>,
    ) {
        let objects: Vec<Object<S>> = match serde_saphyr::from_multiple(&file.text) {
            Ok(objects) => objects,
            Err(error) => {
                let line = error.location().map(|location| location.line());
                let what = error.without_snippet().to_string();
                return self.mistake(file, line, String::new(), what);
            }
        };
        for (number, object) in objects.iter().enumerate() {
            let wrong = |field: &str, what: String| Wrong { field: field.to_owned(), what };
            let added = if object.api_version != API_VERSION {
                Err(wrong("apiVersion", format!("must be {API_VERSION}")))
            } else if object.kind != kind {
                let kinds = format!("must be {kind} in this folder, and is `{}`", object.kind);
                Err(wrong("kind", kinds))
            } else {
                add(self, &object.metadata.name, &object.spec)
            };
            if let Err(Wrong { field, what }) = added {
                let line = lines::find(&file.text, number, &field);
                self.mistake(file, line, field, what);
            }
        }
    }

    fn site(&mut self, name: &str, spec: &SiteSpec) -> Result<(), Wrong> {
        let name: SiteName = name.parse().map_err(|error| Wrong::new("metadata.name", &error))?;
        let zone = spec.zone.as_deref().map(str::parse).transpose();
        let bytes = |field: &str, amount: &Option<wick_api::Quantity>| {
            amount.as_ref().map(|amount| rollout::bytes(field, amount)).transpose()
        };
        let site = Override {
            labels: spec.labels.clone(),
            zone: zone.map_err(|error| Wrong::new("spec.zone", &error))?,
            memory: bytes("spec.memory", &spec.memory)?,
            disk: bytes("spec.disk", &spec.disk)?,
        };
        match self.documents.sites.insert(name, site) {
            None => Ok(()),
            Some(_) => Err(Wrong::new("metadata.name", &"another Site has this name")),
        }
    }

    fn rollout(&mut self, name: &str, spec: &RolloutSpec) -> Result<(), Wrong> {
        let name = name.parse().map_err(|error| Wrong::new("metadata.name", &error))?;
        let rollouts = &mut self.documents.policy.rollouts;
        if rollouts.iter().any(|other| other.name == name) {
            return Err(Wrong::new("metadata.name", &"another Rollout has this name"));
        }
        if rollouts.len() >= MAX_ROLLOUTS {
            let what = format!("there are more than {MAX_ROLLOUTS}: delete some that are finished");
            return Err(Wrong::new("metadata.name", &what));
        }
        rollouts.push(rollout::rollout(name, spec)?);
        Ok(())
    }

    fn mistake(&mut self, file: &File, line: Option<u64>, field: String, what: String) {
        if self.mistakes.len() < MAX_MISTAKES {
            self.mistakes.push(Mistake { file: file.path.clone(), line, field, what });
        }
    }
}

// === impl Override ===

impl Override {
    /// A place as the site gave it, with what is known better.
    pub fn apply(&self, place: &mut Place) {
        place.labels.extend(self.labels.clone());
        place.zone = self.zone.clone().unwrap_or_else(|| place.zone.clone());
        place.memory = self.memory.unwrap_or(place.memory);
        place.disk = self.disk.unwrap_or(place.disk);
    }
}

// === impl Wrong ===

impl Wrong {
    fn new(field: &str, what: &impl fmt::Display) -> Self {
        Self { field: field.to_owned(), what: what.to_string() }
    }
}

// === impl Mistake ===

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.what)
    }
}

#[cfg(test)]
mod tests;
