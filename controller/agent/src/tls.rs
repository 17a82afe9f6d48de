//! Encryption to the broker and to the hub, and in plain words why it failed. A wrong clock makes
//! certificates seem to be of another time: that is said, since nobody guesses it.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::keep::SiteFile;

/// Certificates or keys that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} can't be used: {why}")]
pub struct TlsError {
    what: &'static str,
    why: String,
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(read) if read.is_empty() => Err(TlsError { what, why: "it is no PEM".to_owned() }),
        read => read.map_err(|error| TlsError { what, why: error.to_string() }),
    }
}

fn trusting(
    roots: RootCertStore,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError { what: "TLS", why: error.to_string() })?;
    Ok(builder.with_root_certificates(roots))
}

fn trust(roots: &mut RootCertStore, pem: &str, what: &'static str) -> Result<(), TlsError> {
    for certificate in certificates(pem, what)? {
        let added = roots.add(certificate);
        added.map_err(|error| TlsError { what, why: error.to_string() })?;
    }
    Ok(())
}

/// To the broker: it is signed by the fleet's own authority, and so is the site.
///
/// # Errors
/// A certificate or the key is damaged.
pub fn broker(site: &SiteFile, key: &str) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    trust(&mut roots, &site.ca, "the fleet's authority")?;
    let what = "the site's key";
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
    let key = key.map_err(|error| TlsError { what, why: error.to_string() })?;
    let chain = certificates(&site.certificate, "the site's certificate")?;
    let config = trusting(roots)?.with_client_auth_cert(chain, key);
    config.map_err(|error| TlsError { what: "the site's certificate", why: error.to_string() })
}

/// To the hub: it is signed by an authority that the system knows, or by one of these.
///
/// # Errors
/// A certificate is damaged.
pub fn hub<'a>(own: impl IntoIterator<Item = &'a str>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // Where the system has none, only what is named is trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for pem in own {
        trust(&mut roots, pem, "the hub's authority")?;
    }
    Ok(trusting(roots)?.with_no_client_auth())
}

/// What rustls says below other errors.
pub fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = io.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Why a connection failed and what to do, where it is about certificates. `now` and `not_after` are in
/// seconds since 1970 by the site's clock.
pub fn explain(error: &rustls::Error, now: u64, not_after: u64) -> Option<String> {
    use CertificateError as Bad;
    let clock = format!("by this site's clock it is {}", date(now));
    let ended = now > not_after;
    Some(match error {
        rustls::Error::InvalidCertificate(
            Bad::Expired
            | Bad::ExpiredContext { .. }
            | Bad::NotValidYet
            | Bad::NotValidYetContext { .. },
        ) => format!(
            "the other side's certificate is not for this time ({clock}): set the clock, or renew \
             that certificate"
        ),
        rustls::Error::InvalidCertificate(bad) => {
            format!("the other side's certificate is not trusted: {bad}")
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => format!(
            "this site's certificate ended at {} ({clock}): enrol it again with a new token",
            date(not_after)
        ),
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown,
        ) => {
            let hint = if ended {
                format!(", which ended at {} ({clock})", date(not_after))
            } else {
                String::new()
            };
            format!(
                "the broker refuses this site's certificate{hint}: it was revoked, or the fleet has a new authority; enrol it again with a new token"
            )
        }
        _ => return None,
    })
}

/// Seconds since 1970 by the system's clock.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// A day for people.
pub fn date(unix: u64) -> String {
    // Days since 1 March of the year 0: leap days are the last of their year then.
    let days = unix / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (unix % 86_400 / 3600, unix % 3600 / 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59 UTC");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn a_wrong_clock_is_named() {
        let error = rustls::Error::InvalidCertificate(CertificateError::NotValidYet);
        let text = explain(&error, 951_782_400, 1_735_689_599).unwrap();
        assert!(text.contains("2000-02-29") && text.contains("set the clock"), "{text}");
        let wrapped = std::io::Error::other(error.clone());
        assert_eq!(cause(&wrapped), Some(&error));
    }
}
