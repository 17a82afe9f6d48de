//! The Model of a version, and what the operator says of it.

use serde_json::json;
use wick_api::{ConditionType, Model as Resource, Status};
use wick_fleet::{Model, SiteName};
use wick_package::Digest;

/// Owns the fields that the agent applies.
pub(super) const MANAGER: &str = "wick-agent";

/// On every Model of an agent's: the site's name.
pub(super) const SITE: &str = "wick.dev/site";

/// What the operator says of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It has the traffic, or gets it with its next request.
    Active,
    /// It is on its way, or nothing is known yet.
    Pending,
    /// The operator has gone back.
    Left,
    /// There is no such Model, or it is another version's.
    Gone,
}

/// The Model of a version. It gets the traffic as soon as it is ready: the waves and gates are the fleet's, and
/// with steps of its own a site with few requests would be late.
pub(super) fn resource(model: &Model, site: &SiteName) -> serde_json::Value {
    let repository = model.image.parse::<wick_package::ImageRef>();
    let repository = repository.map_or_else(|_| model.image.clone(), |image| image.name());
    json!({
        "apiVersion": "wick.dev/v1alpha1",
        "kind": "Model",
        "metadata": {
            "name": model.name,
            "labels": { SITE: site, "app.kubernetes.io/managed-by": MANAGER },
        },
        "spec": {
            "package": { "image": format!("{repository}@{}", model.digest) },
            "rollout": { "steps": [] },
        },
    })
}

/// The digest that an image is pinned to.
fn digest_of(image: &str) -> Option<Digest> {
    image.rsplit_once('@').and_then(|(_, digest)| digest.parse().ok())
}

pub(super) fn spec_digest(resource: &Resource) -> Option<Digest> {
    digest_of(&resource.spec.package.image)
}

pub(super) fn active_digest(resource: &Resource) -> Option<Digest> {
    let active = resource.status.as_ref()?.active.as_ref()?;
    digest_of(&active.image)
}

pub(super) fn judge(resource: Option<&Resource>, digest: Digest) -> Seen {
    let Some(resource) = resource.filter(|resource| spec_digest(resource) == Some(digest)) else {
        return Seen::Gone;
    };
    let Some(status) = &resource.status else { return Seen::Pending };
    if status.observed_generation != resource.metadata.generation {
        return Seen::Pending;
    }
    let ready = |condition: &&wick_api::Condition| {
        condition.type_ == ConditionType::Ready.as_str() && condition.status == Status::True
    };
    if active_digest(resource) == Some(digest) && status.conditions.iter().any(|c| ready(&c)) {
        return Seen::Active;
    }
    let rejected = status.rollout.as_ref().is_some_and(|rollout| rollout.rejected.is_some());
    let candidate = status.candidate.is_some() || active_digest(resource) == Some(digest);
    if rejected && !candidate { Seen::Left } else { Seen::Pending }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn model(digest: Digest) -> Model {
        Model {
            name: "filetype".parse().unwrap(),
            image: "registry.example/team/filetype:1.2.0".to_owned(),
            digest,
            bytes: 1,
            memory: 1,
        }
    }

    #[track_caller]
    fn check(status: Value, want: Seen) {
        let (new, old) = (Digest::of(b"new"), Digest::of(b"old"));
        let mut value = resource(&model(new), &"plant-3".parse().unwrap());
        value["metadata"]["generation"] = 3.into();
        let text = status.to_string().replace("NEW", &new.to_string());
        let text = text.replace("OLD", &old.to_string());
        value["status"] = serde_json::from_str(&text).unwrap();
        let resource: Resource = serde_json::from_value(value).unwrap();
        assert_eq!(judge(Some(&resource), new), want);
        assert_eq!(judge(Some(&resource), old), Seen::Gone);
        assert_eq!(judge(None, new), Seen::Gone);
    }

    fn revision(digest: &str) -> Value {
        json!({"name": "r", "image": format!("registry.example/team/filetype@{digest}"),
               "weight": 100, "replicas": 1, "readyReplicas": 1})
    }

    fn ready(status: &str) -> Value {
        json!([{"type": "Ready", "status": status, "reason": "Serving", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    }

    #[test]
    fn a_version_is_active_when_the_operator_says_so_of_this_generation() {
        check(Value::Null, Seen::Pending);
        let active = json!({"observedGeneration": 3, "active": revision("NEW"),
                            "conditions": ready("True")});
        check(active.clone(), Seen::Active);
        let mut stale = active.clone();
        stale["observedGeneration"] = 2.into();
        check(stale, Seen::Pending);
        let mut starting = active;
        starting["conditions"] = ready("False");
        check(starting, Seen::Pending);
        check(
            json!({"observedGeneration": 3, "active": revision("OLD"),
                   "candidate": revision("NEW"), "conditions": ready("True")}),
            Seen::Pending,
        );
    }

    #[test]
    fn what_the_operator_has_left_is_known_by_its_own_word() {
        check(
            json!({"observedGeneration": 3, "active": revision("OLD"), "conditions": ready("True"),
                   "rollout": {"phase": "Idle", "rejected": {"name": "r2", "reason": "NeverReady"}}}),
            Seen::Left,
        );
    }

    #[test]
    fn a_model_is_pinned_to_its_digest_whatever_tag_the_hub_names() {
        let digest = Digest::of(b"new");
        let value = resource(&model(digest), &"plant-3".parse().unwrap());
        let image = format!("registry.example/team/filetype@{digest}");
        assert_eq!(value["spec"]["package"]["image"], image);
        assert_eq!(value["metadata"]["labels"]["wick.dev/site"], "plant-3");
        wick_api::parse(value).unwrap();
    }
}
