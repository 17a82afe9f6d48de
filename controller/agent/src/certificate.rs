//! The site's certificate: the request for it, and when it is renewed.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use std::time::Duration;
use wick_fleet::SiteName;

use crate::keep::SiteFile;

/// How often it is looked whether it is time: clocks are set, and machines sleep.
pub const LOOK: Duration = Duration::from_secs(600);

/// Pauses after a renewal that failed, the first and the longest.
const FIRST: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(3600);

/// When a certificate is to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Now,
    /// Not before this many seconds since 1970.
    At(u64),
}

/// A request to sign this key for this site, in PEM.
///
/// # Errors
/// The key is damaged.
pub fn request(site: &SiteName, key: &str) -> Result<String, rcgen::Error> {
    let key = KeyPair::from_pem(key)?;
    let mut params = CertificateParams::new(Vec::new())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, site.as_str());
    params.distinguished_name = name;
    params.serialize_request(&key)?.pem()
}

// === impl Renewal ===

impl Renewal {
    /// At two thirds of its life.
    pub fn of(site: &SiteFile, now: u64) -> Self {
        let life = site.not_after.saturating_sub(site.obtained);
        let due = site.obtained + life / 3 * 2;
        if now >= due { Self::Now } else { Self::At(due) }
    }
}

/// The pause after so many failures. `luck` is from 0 up to 1.
pub fn pause(failures: u32, luck: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MOST);
    doubled.mul_f64(0.5 + luck / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        let site = |obtained, not_after| SiteFile {
            site: "a".parse().unwrap(),
            hub: String::new(),
            hub_ca: None,
            broker: String::new(),
            certificate: String::new(),
            ca: String::new(),
            obtained,
            not_after,
            memory: 0,
            disk: 0,
            token: String::new(),
        };
        assert_eq!(Renewal::of(&site(1000, 1300), 1199), Renewal::At(1200));
        assert_eq!(Renewal::of(&site(1000, 1300), 1200), Renewal::Now);
        // The clock was past its end when it was got, or is.
        assert_eq!(Renewal::of(&site(5000, 1300), 5000), Renewal::Now);
        assert_eq!(Renewal::of(&site(1000, 1300), 9_000_000), Renewal::Now);
        assert_eq!(Renewal::of(&site(1000, 1300), 10), Renewal::At(1200));
    }

    #[test]
    fn pauses_grow_to_an_hour() {
        assert_eq!(pause(1, 1.0), FIRST);
        assert_eq!(pause(100, 0.0), MOST / 2);
    }
}
