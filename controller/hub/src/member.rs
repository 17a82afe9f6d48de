//! Sites that belong to the fleet, and how one becomes one. Pure but for the certificates, which the authority
//! makes.

use serde::{Deserialize, Serialize};
use wick_fleet::enrol::{Claim, EnrolRequest, HUB, MAX_SKEW, Problem, RenewRequest};
use wick_fleet::plan::{Place, Zone};
use wick_fleet::{Moment, SiteName};
use wick_package::signature::PublicKey;

use crate::authority::{Issued, Request};
use crate::token::Token;

/// Labels of one site, and the longest key or value.
const MAX_LABELS: usize = 32;
const MAX_LABEL: usize = 317;

/// A site that has enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub place: Claim,
    /// PEM.
    pub key: String,
    pub enrolled: Moment,
    /// Certificates that may still hold, the newest last.
    pub certificates: Vec<Certificate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Moment>,
}

/// A certificate that a site was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub serial: String,
    /// In seconds since 1970.
    pub not_after: u64,
}

/// A request to enrol that was found good, before there is a certificate.
#[derive(Debug)]
pub struct Accepted {
    pub request: Request,
    pub member: Member,
}

fn problem(code: &str, message: impl Into<String>) -> Problem {
    Problem { code: code.to_owned(), message: message.into() }
}

/// Whether a site may enrol by this token.
///
/// # Errors
/// Why not.
pub fn enrol(
    asked: &EnrolRequest,
    token: Option<&Token>,
    member: Option<&Member>,
    now: Moment,
) -> Result<Accepted, Problem> {
    let wrong =
        || problem("token", "the token is not for this site, expired, or was used: make a new one");
    let (site, again, used) = token.and_then(|token| token.enrols(now)).ok_or_else(wrong)?;
    if site != &asked.site {
        return Err(wrong());
    }
    if asked.site.as_str() == HUB {
        return Err(problem(
            "name",
            format!("`{HUB}` is the hub's own name: give the site another"),
        ));
    }
    let request = parse(&asked.csr, &asked.site)?;
    let repeated = match used {
        // An answer that was lost: the same site asks again with the same key, and was not revoked since.
        Some(by)
            if by == request.key.id() && member.is_some_and(|member| member.revoked.is_none()) =>
        {
            true
        }
        Some(_) => return Err(wrong()),
        None => false,
    };
    if let Some(member) = member
        && member.revoked.is_none()
        && !again
        && !repeated
    {
        let message =
            format!("{} is enrolled already: make a token that permits it again", asked.site);
        return Err(problem("enrolled", message));
    }
    place(&asked.place)?;
    let certificates = match member {
        // Those of the same key hold on; those of another are revoked by whoever asked for it.
        Some(member) if member.revoked.is_none() => member.certificates.clone(),
        _ => Vec::new(),
    };
    let member = Member {
        place: asked.place.clone(),
        key: request.key.to_pem(),
        enrolled: now,
        certificates,
        revoked: None,
    };
    Ok(Accepted { request, member })
}

/// Whether a site may have its next certificate.
///
/// # Errors
/// Why not.
pub fn renew(
    asked: &RenewRequest,
    member: Option<&Member>,
    now: Moment,
) -> Result<Accepted, Problem> {
    let member = member.ok_or_else(|| problem("unknown", "no such site is enrolled: enrol it"))?;
    let key = PublicKey::from_pem(&member.key);
    let key = key.map_err(|error| problem("internal", error.to_string()))?;
    if !asked.is_by(&key) {
        return Err(problem(
            "signature",
            "it is not signed with the key that the site enrolled with",
        ));
    }
    if member.revoked.is_some() {
        return Err(problem("revoked", "the site was revoked: enrol it again with a new token"));
    }
    let seconds = now.millis() / 1000;
    if asked.at.abs_diff(seconds) > MAX_SKEW {
        let message = format!(
            "the site's clock says {} s since 1970, the hub's {seconds}: set the site's",
            asked.at
        );
        return Err(problem("clock", message));
    }
    let request = parse(&asked.csr, &asked.site)?;
    if request.key != key {
        return Err(problem("csr", "it is for another key: a new key is a new enrolment"));
    }
    Ok(Accepted { request, member: member.clone() })
}

fn parse(csr: &str, site: &SiteName) -> Result<Request, Problem> {
    let request = Request::parse(csr).map_err(|error| problem("csr", error.to_string()))?;
    if request.name != site.as_str() {
        let message = format!("its common name is `{}`, and the site is {site}", request.name);
        return Err(problem("csr", message));
    }
    Ok(request)
}

/// What a site says of itself, as the planner takes it.
///
/// # Errors
/// It says too much, or has no such time zone.
pub fn place(claim: &Claim) -> Result<Place, Problem> {
    let long = |text: &String| text.len() > MAX_LABEL;
    if claim.labels.len() > MAX_LABELS
        || claim.labels.iter().any(|(key, value)| long(key) || long(value))
    {
        return Err(problem(
            "place",
            format!("more than {MAX_LABELS} labels, or one that is too long"),
        ));
    }
    let zone = claim.zone.as_deref().map_or(Ok(Zone::utc()), str::parse);
    Ok(Place {
        labels: claim.labels.clone(),
        zone: zone.map_err(|error| problem("place", error.to_string()))?,
        memory: claim.memory,
        disk: claim.disk,
    })
}

// === impl Member ===

impl Member {
    /// Add a certificate; those that have ended are no longer worth revoking.
    pub fn add(&mut self, issued: &Issued, now: Moment) {
        self.certificates.retain(|old| old.not_after > now.millis() / 1000);
        let Issued { serial, not_after, .. } = issued;
        self.certificates.push(Certificate { serial: serial.clone(), not_after: *not_after });
    }
}
