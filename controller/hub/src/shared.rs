//! What the hub's loop decides over, which the API shows and the link says. Only the loop changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use wick_fleet::plan::{Inventory, Plan, Problem};
use wick_fleet::wire::{self, Channel, Desired, Topic};
use wick_fleet::{Moment, SiteName};
use wick_package::signature::PublicKey;

use crate::authority::Authority;
use crate::heard::Heard;
use crate::link::Broker;
use crate::member::{self, Member};
use crate::policy::{Documents, File, Mistake};
use crate::store::{Change, Store, StoreError, Table};

/// Where the policy is in the store.
pub const POLICY: &str = "policy";

/// Where it is that a plan was made.
pub const MADE: &str = "made";

/// Everything of one hub.
pub struct Shared {
    pub state: RwLock<State>,
    pub store: Store,
    pub authority: Authority,
    /// The broker as sites are told of it.
    pub told_broker: Broker,
    pub outbox: Outbox,
    pub counts: Counts,
    /// The hash of the token that whoever runs the hub has given it in a file, in force while that is so.
    pub admin: Option<String>,
    /// Somebody says that there is a new policy.
    pub pull: Arc<Notify>,
}

/// What is decided over.
#[derive(Default)]
pub struct State {
    pub plan: Plan,
    /// None before there was ever one: without a policy nothing is decided.
    pub documents: Option<Documents>,
    pub source: SourceState,
    pub members: BTreeMap<SiteName, Member>,
    pub inventory: Inventory,
    pub heard: Heard,
    pub link: LinkState,
    /// Why the last plan was not published.
    pub problems: Vec<Problem>,
}

/// Where the policy comes from, and how that goes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SourceState {
    pub url: String,
    pub reference: String,
    /// The commit that is in force; of a cluster a digest of all that was read.
    pub commit: Option<String>,
    /// The one that was looked at last, whether it is in force or not.
    pub tried: Option<String>,
    /// When it was last looked at.
    pub looked: Option<Moment>,
    /// Why the newest commit is not in force, or can't be had.
    pub error: Option<String>,
    /// The first of the two, which stays when the newest can be had again.
    #[serde(skip)]
    pub refused: Option<String>,
    pub mistakes: Vec<Mistake>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct LinkState {
    pub connected: bool,
    /// Everything that the broker keeps was heard since.
    pub caught_up: bool,
    pub since: Moment,
    pub error: Option<String>,
}

/// A policy as it is kept: the last one that was good.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptPolicy {
    pub commit: String,
    pub files: Vec<File>,
}

/// Sites to which something is to be said. Each is there once, however often it changed.
#[derive(Default)]
pub struct Outbox {
    sites: Mutex<BTreeSet<SiteName>>,
    added: Notify,
}

/// What is counted, for metrics.
#[derive(Default)]
pub struct Counts {
    pub published: AtomicU64,
    pub heard: AtomicU64,
    pub plans: AtomicU64,
}

// === impl Shared ===

impl Shared {
    /// What the store has.
    ///
    /// # Errors
    /// It can't be read, or a policy in it is of another version.
    pub fn load(
        store: Store,
        authority: Authority,
        told_broker: Broker,
    ) -> Result<Self, StoreError> {
        let mut state = State::default();
        for (name, member) in store.all::<Member>(Table::Members, "")? {
            if let Ok(name) = name.parse() {
                state.members.insert(name, member);
            }
        }
        state.plan.made = store.get(Table::Meta, MADE)?.unwrap_or_default();
        for (name, target) in store.all(Table::Targets, "")? {
            if let Ok(name) = name.parse() {
                state.plan.sites.insert(name, target);
            }
        }
        for (name, progress) in store.all(Table::Rollouts, "")? {
            if let Ok(name) = name.parse() {
                state.plan.rollouts.insert(name, progress);
            }
        }
        if let Some(kept) = store.get::<KeptPolicy>(Table::Meta, POLICY)? {
            match crate::policy::read(&kept.files) {
                Ok(documents) => {
                    state.documents = Some(documents);
                    state.source.commit = Some(kept.commit);
                }
                // Of an older hub: the repository is read again, and until then nothing is decided.
                Err(mistakes) => state.source.mistakes = mistakes,
            }
        }
        for (site, member) in &state.members {
            if let (None, Ok(key)) = (member.revoked, PublicKey::from_pem(&member.key)) {
                state.heard.know(site, &key);
            }
        }
        state.take_inventory();
        Ok(Self {
            state: RwLock::new(state),
            store,
            authority,
            told_broker,
            outbox: Outbox::default(),
            counts: Counts::default(),
            admin: None,
            pull: Arc::default(),
        })
    }

    /// What is to be said to a site now: what it is to have, or nothing any more if it was revoked.
    pub fn message(&self, site: &SiteName) -> Option<(String, Vec<u8>)> {
        let topic = Topic::new(site.clone(), Channel::Desired);
        let state = self.state.read();
        let member = state.members.get(site)?;
        if member.revoked.is_some() {
            return Some((topic.to_string(), Vec::new()));
        }
        let target = state.plan.sites.get(site).filter(|target| target.generation.0 > 0)?;
        let desired = Desired { models: target.models.clone(), rollout: target.rollout.clone() };
        let generation = target.generation;
        drop(state);
        let signing = self.authority.signing();
        match wire::seal(&topic, generation, &desired, &signing.key, &signing.changes) {
            Ok(bytes) => Some((topic.to_string(), bytes)),
            Err(error) => {
                tracing::error!(%site, %error, "what the site is to have can't be said");
                None
            }
        }
    }

    /// Say everything again: the broker may have forgotten it.
    pub fn repeat(&self) {
        let state = self.state.read();
        self.outbox.add(state.members.keys().cloned());
    }

    /// Write a change, off the threads that others wait for.
    ///
    /// # Errors
    /// Nothing of it was written.
    pub fn commit(&self, change: &Change) -> Result<(), StoreError> {
        tokio::task::block_in_place(|| self.store.commit(change))
    }
}

// === impl SourceState ===

impl SourceState {
    /// The newest is not taken.
    pub fn refuse(&mut self, error: String, mistakes: Vec<Mistake>) {
        self.refused = Some(error.clone());
        self.error = Some(error);
        self.mistakes = mistakes;
    }

    /// The newest is in force.
    pub fn adopt(&mut self, commit: String) {
        self.commit = Some(commit);
        self.refused = None;
        self.error = None;
        self.mistakes.clear();
    }
}

// === impl State ===

impl State {
    /// Who may get something: sites that enrolled and were not revoked, with what the policy knows better.
    pub fn take_inventory(&mut self) {
        let names: Vec<_> = self.members.keys().cloned().collect();
        names.iter().for_each(|name| self.take_place(name));
    }

    /// The same for one site.
    pub fn take_place(&mut self, name: &SiteName) {
        let member = self.members.get(name).filter(|member| member.revoked.is_none());
        let place = member.and_then(|member| member::place(&member.place).ok());
        let Some(mut place) = place else {
            self.inventory.remove(name);
            return;
        };
        let better = self.documents.as_ref().and_then(|documents| documents.sites.get(name));
        if let Some(better) = better {
            better.apply(&mut place);
        }
        self.inventory.insert(name.clone(), place);
    }
}

// === impl Outbox ===

impl Outbox {
    pub fn add(&self, sites: impl IntoIterator<Item = SiteName>) {
        self.sites.lock().extend(sites);
        self.added.notify_one();
    }

    /// The next site, as soon as there is one.
    pub async fn next(&self) -> SiteName {
        loop {
            if let Some(site) = self.sites.lock().pop_first() {
                return site;
            }
            self.added.notified().await;
        }
    }
}

// === impl Counts ===

impl Counts {
    pub fn published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
    }
}
