//! Who of several operators acts: the one whose name is in the Lease, for as long as it renews it.
//! What to do is decided from the Lease alone; how old it is, is counted from when it was last
//! *seen* to change, so clocks of different machines need not agree.
//!
//! Who ends gives the Lease away. One that could not (it was killed, or its account was gone before
//! it was) leaves its pod's name there: when no such pod is there any more, nobody needs to wait.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};

use super::Settings;
use crate::time::Moment;

/// How long a Lease holds without being renewed.
const HOLDS: Duration = Duration::from_secs(15);

/// How often it is renewed.
const PERIOD: Duration = Duration::from_secs(2);

/// How often it is looked at by those that wait: an update of the operator takes no longer.
const LOOKS: Duration = Duration::from_millis(500);

/// Of a Lease: that its holder is the pod of this name, in the same namespace.
const POD: &str = "wick.dev/pod";

/// How long giving it away may take, and how often that is tried.
const GIVES: Duration = Duration::from_secs(5);
const MAX_GIVES: u32 = 3;

/// How long its holder goes on without having been able to renew it: less than it holds, so that
/// two never act at once.
const RENEWS: Duration = Duration::from_secs(10);

/// What is known of a Lease.
#[derive(Debug, Default)]
struct Watched {
    /// Its holder and its number of renewals, and since when they are so.
    seen: Option<(String, String, Moment)>,
}

/// What to do with a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is ours: renew it.
    Renew,
    /// It is nobody's, or nobody renews it, or its holder is no more.
    Take,
    /// It is somebody's.
    Wait,
}

/// Takes part in the election.
pub struct Election {
    api: Api<Lease>,
    pods: Api<Pod>,
    name: String,
    identity: String,
    /// Whether the identity is the name of this process's pod.
    is_pod: bool,
    watched: Watched,
}

// === impl Watched ===

impl Watched {
    /// `gone`: the holder was a pod, and there is no such pod.
    fn step(&mut self, lease: &LeaseSpec, identity: &str, gone: bool, now: Moment) -> Step {
        let holder = lease.holder_identity.clone().unwrap_or_default();
        let renewed = lease.renew_time.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
        if holder == identity {
            return Step::Renew;
        }
        if holder.is_empty() || gone {
            return Step::Take;
        }
        match &self.seen {
            Some((who, when, since)) if *who == holder && *when == renewed => {
                if now.since(*since) >= HOLDS { Step::Take } else { Step::Wait }
            }
            _ => {
                self.seen = Some((holder, renewed, now));
                Step::Wait
            }
        }
    }
}

// === impl Election ===

impl Election {
    pub fn new(client: Client, name: &str, settings: &Settings) -> Self {
        Self {
            api: Api::namespaced(client.clone(), &settings.namespace),
            pods: Api::namespaced(client, &settings.namespace),
            name: name.to_owned(),
            identity: settings.identity.clone(),
            is_pod: settings.is_pod,
            watched: Watched::default(),
        }
    }

    /// Returns when the Lease is ours.
    pub async fn won(&mut self) {
        let mut told = false;
        loop {
            match self.turn().await {
                Ok(true) => return,
                Ok(false) if !told => {
                    tracing::info!(lease = self.name, "another operator acts; this one waits");
                    told = true;
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "cannot read or write the Lease"),
            }
            tokio::time::sleep(LOOKS).await;
        }
    }

    /// Renews the Lease for as long as that can be done, and returns when it is lost.
    pub async fn lost(&mut self) {
        let mut renewed = crate::shell::now();
        loop {
            tokio::time::sleep(PERIOD).await;
            match self.turn().await {
                Ok(true) => renewed = crate::shell::now(),
                Ok(false) => return,
                Err(error) => tracing::warn!(%error, "cannot renew the Lease"),
            }
            if crate::shell::now().since(renewed) >= RENEWS {
                return;
            }
        }
    }

    /// Gives the Lease away, so that the next one need not wait.
    pub async fn release(&mut self) {
        match tokio::time::timeout(GIVES, self.give()).await {
            Ok(Ok(())) => tracing::info!(lease = self.name, "the Lease is given away"),
            Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be given away"),
            Err(_) => tracing::warn!("the Lease cannot be given away: no answer"),
        }
    }

    async fn give(&self) -> Result<(), kube::Error> {
        for _ in 0..MAX_GIVES {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
            let Some(spec) = &mut lease.spec else { return Ok(()) };
            if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            let given = self.api.replace(&self.name, &PostParams::default(), &lease).await;
            // A renewal was still under way.
            if written(given)?.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the Lease is ours now.
    async fn turn(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = self.lease(ObjectMeta::default(), LeaseSpec::default());
            return Ok(written(self.api.create(&PostParams::default(), &lease).await)?.is_some());
        };
        let spec = lease.spec.take().unwrap_or_default();
        let gone = self.is_gone(&lease.metadata, &spec).await;
        let step = self.watched.step(&spec, &self.identity, gone, crate::shell::now());
        if step == Step::Wait {
            return Ok(false);
        }
        // With its version: if somebody was faster, this is refused.
        let lease = self.lease(lease.metadata, spec);
        let replaced = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        Ok(written(replaced)?.is_some())
    }

    /// Whether another holds the Lease that was a pod, and is no more. Kubernetes forgets a pod
    /// when its containers have ended, or when somebody vouches for that.
    async fn is_gone(&self, metadata: &ObjectMeta, spec: &LeaseSpec) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let pod = metadata.annotations.as_ref().and_then(|all| all.get(POD));
        if holder.is_empty() || holder == self.identity || pod.is_none_or(|pod| pod != holder) {
            return false;
        }
        // If that can't be asked, the Lease runs out.
        matches!(self.pods.get_metadata_opt(holder).await, Ok(None))
    }

    fn lease(&self, mut metadata: ObjectMeta, old: LeaseSpec) -> Lease {
        let now = MicroTime(Timestamp::now());
        let ours = old.holder_identity.as_deref() == Some(self.identity.as_str());
        let transitions = old.lease_transitions.unwrap_or(0) + i32::from(!ours);
        metadata.name = Some(self.name.clone());
        let annotations = metadata.annotations.get_or_insert_default();
        match self.is_pod {
            true => annotations.insert(POD.to_owned(), self.identity.clone()),
            false => annotations.remove(POD),
        };
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(HOLDS.as_secs()).ok(),
                acquire_time: if ours { old.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Nothing where somebody else was faster.
fn written(result: Result<Lease, kube::Error>) -> Result<Option<Lease>, kube::Error> {
    match result {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_when_nobody_renews_it_and_whatever_its_clock_says() {
        let mut watched = Watched::default();
        let at = |second: u64| Moment::from_millis(second * 1000);
        let mut step =
            |holder, renewed, now| watched.step(&spec(holder, renewed), "me", false, at(now));
        assert_eq!(step("", 0, 0), Step::Take);
        assert_eq!(step("me", 0, 0), Step::Renew);
        // Its clock is a year ahead.
        let year = 31_536_000;
        assert_eq!(step("you", year, 0), Step::Wait);
        assert_eq!(step("you", year + 2, 2), Step::Wait);
        assert_eq!(step("you", year + 2, 16), Step::Wait);
        assert_eq!(step("you", year + 2, 17), Step::Take);
        // It was renewed after all.
        assert_eq!(step("you", year + 4, 18), Step::Wait);
    }

    #[test]
    fn nobody_waits_for_a_pod_that_is_no_more() {
        let mut watched = Watched::default();
        let mut step = |gone| watched.step(&spec("you", 0), "me", gone, Moment::from_millis(0));
        assert_eq!(step(false), Step::Wait);
        assert_eq!(step(true), Step::Take);
    }
}
