//! Sites and tokens come and go: each change is one transaction.

use std::time::SystemTime;

use wick_fleet::enrol::{EnrolRequest, Enrolled, Problem, RenewRequest};
use wick_fleet::{Moment, SiteName};

use crate::ask::{Rotated, problem};
use crate::authority::AuthorityError;
use crate::hub::now;
use crate::member::{self, Accepted, Certificate, Member};
use crate::record::Asked;
use crate::shared::Shared;
use crate::store::{Change, StoreError, Table};
use crate::token::{Grant, Role, Token, hash};

/// Whose the token of the file is, in the audit.
const ADMIN: &str = "admin-token-file";

/// Sites of one hub; plans are measured up to here.
const MAX_SITES: usize = 100_000;

/// Tokens that hold at once: one for each site that may enrol today, and some for people.
const MAX_TOKENS: u64 = 200_000;

/// How many new ones there are until those that have ended are taken away.
const SWEEP: u64 = 1024;

fn internal(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "a request can't be answered");
    problem("internal", "the hub can't do it now: look at its log")
}

fn asked(who: String, what: &str, about: &str) -> Asked {
    Asked { at: now(), who, what: what.to_owned(), about: about.to_owned() }
}

// === impl Shared ===

impl Shared {
    pub(crate) fn enrol(&self, request: &EnrolRequest) -> Result<Enrolled, Problem> {
        let (now, site) = (now(), &request.site);
        let hash = hash(&request.token);
        let token: Option<Token> =
            self.store.get(Table::Tokens, &hash).map_err(|error| internal(&error))?;
        let old = self.state.read().members.get(site).cloned();
        if old.is_none() && self.state.read().members.len() >= MAX_SITES {
            return Err(problem("busy", format!("the hub has {MAX_SITES} sites: use another")));
        }
        let accepted = member::enrol(request, token.as_ref(), old.as_ref(), now)?;
        let mut change = Change::default();
        let key = accepted.request.key.clone();
        if let Some(mut token) = token
            && let Grant::Enrol { used, .. } = &mut token.grant
        {
            *used = Some(key.id().to_string());
            change.put(Table::Tokens, hash, &token);
        }
        // A site that comes with another key: what the old one holds ends.
        let mut revokes = Vec::new();
        if let Some(old) = &old
            && old.key != key.to_pem()
        {
            revokes.clone_from(&old.certificates);
        }
        let mut accepted = accepted;
        if !revokes.is_empty() {
            accepted.member.certificates.clear();
        }
        change.log(Table::Audit, &asked(format!("site {site}"), "enrol", &key.id().to_string()));
        let enrolled = self.issue(site, accepted, change, &revokes)?;
        {
            let mut state = self.state.write();
            // It may count its reports from the beginning.
            state.heard.forget(site);
            state.heard.know(site, &key);
        }
        // It may have retained messages from before, and the hub something for it.
        self.outbox.add([site.clone()]);
        tracing::info!(%site, key = %key.id(), "a site has enrolled");
        Ok(enrolled)
    }

    pub(crate) fn renew(&self, request: &RenewRequest) -> Result<Enrolled, Problem> {
        let member = self.state.read().members.get(&request.site).cloned();
        let accepted = member::renew(request, member.as_ref(), now())?;
        self.issue(&request.site, accepted, Change::default(), &[])
    }

    fn issue(
        &self,
        site: &SiteName,
        accepted: Accepted,
        mut change: Change,
        revokes: &[Certificate],
    ) -> Result<Enrolled, Problem> {
        let Accepted { request, mut member } = accepted;
        let issued = self.authority.issue(site, &request, SystemTime::now());
        let issued = issued.map_err(|error| internal(&error))?;
        member.add(&issued, now());
        change.put(Table::Members, site.as_str(), &member);
        self.keep(site, member, change, revokes)?;
        Ok(Enrolled {
            certificate: issued.pem,
            ca: self.authority.ca().to_owned(),
            ring: self.authority.signing().ring.clone(),
            broker: self.told_broker.to_string(),
            not_after: issued.not_after,
        })
    }

    fn keep(
        &self,
        site: &SiteName,
        member: Member,
        mut change: Change,
        revokes: &[Certificate],
    ) -> Result<(), Problem> {
        for certificate in revokes {
            change.put(
                Table::Revoked,
                certificate.serial.as_str(),
                &(now(), certificate.not_after),
            );
        }
        self.commit(&change).map_err(|error| internal(&error))?;
        {
            let mut state = self.state.write();
            state.members.insert(site.clone(), member);
            state.take_place(site);
        }
        if !revokes.is_empty() {
            self.write_list().map_err(|error| internal(&error))?;
        }
        Ok(())
    }

    /// Write the file of certificates that hold no more, without those that have ended.
    ///
    /// # Errors
    /// The store can't be read, or the file not be written.
    pub fn write_list(&self) -> Result<(), ListError> {
        let seconds = now().millis() / 1000;
        let rows: Vec<(String, (Moment, u64))> = self.store.all(Table::Revoked, "")?;
        let hold = rows.into_iter().filter(|(_, (_, not_after))| *not_after > seconds);
        let list: Vec<_> = hold.map(|(serial, (at, _))| (serial, at)).collect();
        Ok(self.authority.list(&list, SystemTime::now())?)
    }

    pub(crate) fn revoke(&self, who: String, site: &SiteName) -> Result<(), Problem> {
        let member = self.state.read().members.get(site).cloned();
        let unknown = || problem("unknown", format!("no site {site} is enrolled"));
        let mut member = member.ok_or_else(unknown)?;
        member.revoked = Some(now());
        let revokes = std::mem::take(&mut member.certificates);
        let mut change = Change::default();
        // By none of the tokens that were made for it may it come back.
        let tokens =
            self.store.all::<Token>(Table::Tokens, "").map_err(|error| internal(&error))?;
        for (hash, token) in tokens {
            if matches!(&token.grant, Grant::Enrol { site: other, .. } if other == site) {
                change.delete(Table::Tokens, hash);
            }
        }
        change.put(Table::Members, site.as_str(), &member);
        change.log(Table::Audit, &asked(who, "revoke", site.as_str()));
        self.keep(site, member, change, &revokes)?;
        self.state.write().heard.forget(site);
        // What it was to have is taken off the broker.
        self.outbox.add([site.clone()]);
        tracing::warn!(%site, "a site is revoked");
        Ok(())
    }

    /// Sign with a new key from now on, and say everything again by it.
    pub(crate) fn rotate(&self, who: String) -> Result<Rotated, Problem> {
        let next = self.authority.signing().ring.serial() + 1;
        let mut change = Change::default();
        change.log(Table::Audit, &asked(who, "rotate-key", &next.to_string()));
        self.commit(&change).map_err(|error| internal(&error))?;
        let rotated = tokio::task::block_in_place(|| self.authority.rotate());
        let signing = rotated.map_err(|error| internal(&error))?;
        let (serial, key) = (signing.ring.serial(), signing.key.public().id().to_string());
        tracing::warn!(serial, key, "the hub signs with a new key");
        self.repeat();
        Ok(Rotated { serial, key })
    }

    pub(crate) fn make_token(&self, who: String, hash: &str, token: &Token) -> Result<(), Problem> {
        let failed = |error: StoreError| internal(&error);
        let mut change = Change::default();
        let mut held = self.store.count(Table::Tokens).map_err(failed)?;
        if held >= MAX_TOKENS || held % SWEEP == SWEEP - 1 {
            let rows: Vec<(String, Token)> = self.store.all(Table::Tokens, "").map_err(failed)?;
            let now = now();
            for (hash, _) in rows.iter().filter(|(_, token)| token.expires <= now) {
                change.delete(Table::Tokens, hash.as_str());
                held -= 1;
            }
        }
        if held >= MAX_TOKENS {
            return Err(problem("busy", format!("there are {MAX_TOKENS} tokens: take some back")));
        }
        let what = match &token.grant {
            Grant::Role(role) => format!("token for {}", role.as_str()),
            Grant::Enrol { .. } => "token to enrol".to_owned(),
        };
        change.put(Table::Tokens, hash, token);
        change.log(Table::Audit, &asked(who, &what, &token.name));
        self.commit(&change).map_err(failed)
    }

    pub(crate) fn drop_token(&self, who: String, name: &str) -> Result<usize, Problem> {
        let failed = |error: StoreError| internal(&error);
        let rows: Vec<(String, Token)> = self.store.all(Table::Tokens, "").map_err(failed)?;
        let mut change = Change::default();
        let dropped = rows.iter().filter(|(_, token)| token.name == name);
        let dropped = dropped.map(|(hash, _)| change.delete(Table::Tokens, hash.as_str())).count();
        if dropped == 0 {
            return Err(problem("unknown", format!("there is no token of {name}")));
        }
        change.log(Table::Audit, &asked(who, "take back token", name));
        self.commit(&change).map_err(failed)?;
        Ok(dropped)
    }

    /// What a token is good for.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn token(&self, text: &str) -> Result<Option<Token>, StoreError> {
        let hash = hash(text);
        if self.admin.as_ref() == Some(&hash) {
            let grant = Grant::Role(Role::Admin);
            let expires = Moment::from_millis(u64::MAX);
            return Ok(Some(Token { name: ADMIN.to_owned(), expires, grant }));
        }
        self.store.get(Table::Tokens, &hash)
    }
}

/// Why the list of revocations was not written.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Write(#[from] AuthorityError),
}
