//! The fleet's own certificate authority, and the key that signs what sites are to have. Its keys are files in the
//! hub's folder that only its user reads, and leave it never.

mod signing;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::RwLock;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, RevokedCertParams,
    SerialNumber,
};
use time::OffsetDateTime;
use wick_fleet::enrol::HUB;
use wick_fleet::wire::Refusal;
use wick_fleet::{Moment, SiteName};
use wick_package::signature::PublicKey;

pub use self::signing::Signing;
use crate::token::{hex, random};

const DAY: Duration = Duration::from_secs(86_400);

/// How long a site's certificate holds: a site that is away for longer enrols again, and a stolen one that
/// nobody misses ends by itself.
pub const SITE_DAYS: u32 = 30;

/// How long those of hub and broker hold, which people renew.
const SERVER_DAYS: u32 = 5 * 365;

/// How long the authority's own holds: all others end with it.
const CA_DAYS: u32 = 20 * 365;

/// How long a list of revocations holds. The broker has it as a file and refuses everybody once it has ended,
/// so it doesn't.
const LIST_DAYS: u32 = 20 * 365;

/// Clocks of sites may be behind.
const BACKDATE: Duration = DAY;

/// Bytes of a serial number, so that none is ever drawn twice.
const SERIAL: usize = 16;

pub const CA_FILE: &str = "ca.crt";
pub const LIST_FILE: &str = "broker/revoked.crl";
/// What the broker needs is in a folder of its own: it need not see the fleet's keys.
pub const BROKER_CA: &str = "broker/ca.crt";
/// Of the hub at the broker; of the broker, and of the hub's own API.
pub const HUB_FILES: (&str, &str) = ("hub.crt", "hub.key");
pub const SERVER_FILES: (&str, &str) = ("broker/server.crt", "broker/server.key");
const CA_KEY: &str = "ca.key";

/// Signs certificates and messages.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
    signing: RwLock<Arc<Signing>>,
}

/// A signing request. Of what it asks for only the key and the name are taken.
#[derive(Debug)]
pub struct Request {
    pub name: String,
    pub key: PublicKey,
    public: rcgen::PublicKey,
}

/// A certificate that was made.
#[derive(Debug)]
pub struct Issued {
    pub pem: String,
    pub serial: String,
    /// In seconds since 1970.
    pub not_after: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the signing request is damaged, or not signed with its own key")]
    Request(#[source] rcgen::Error),
    #[error("its key is not ed25519: make one of that kind")]
    Kind,
    #[error("it has no common name")]
    Name,
    #[error("{}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is there: this folder is a hub's already", .0.display())]
    Exists(PathBuf),
    #[error("a certificate can't be made")]
    Make(#[from] rcgen::Error),
    #[error("the hub's signing key can't be read")]
    Key(#[from] wick_package::signature::SignatureError),
    #[error("the hub's keys are no list")]
    Ring(#[from] Refusal),
    #[error("the list of the hub's keys is damaged")]
    Keys(#[from] serde_json::Error),
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> AuthorityError + '_ {
    |source| AuthorityError::File { path: path.to_owned(), source }
}

/// Write a file that only its owner reads. It is there whole, or not at all.
fn keep(path: &Path, text: &str) -> Result<(), AuthorityError> {
    write(path, text, 0o600)
}

/// Replace a file that anybody may read. It is there whole, or as it was.
fn replace(path: &Path, text: &str) -> Result<(), AuthorityError> {
    write(path, text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let new = path.with_extension("new");
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let opened = fs::create_dir_all(folder).and_then(|()| match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => OpenOptions::new().write(true).create_new(true).mode(mode).open(&new),
    });
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    });
    written.map_err(file(path))
}

// === impl Authority ===

impl Authority {
    /// Make all keys and certificates of a new fleet. `names` are those by which sites reach broker and hub.
    ///
    /// # Errors
    /// There is one in this folder already, or it can't be written.
    pub fn init(dir: &Path, names: &[String], now: SystemTime) -> Result<Self, AuthorityError> {
        fs::create_dir_all(dir).map_err(file(dir))?;
        let path = dir.join(CA_KEY);
        if path.exists() {
            return Err(AuthorityError::Exists(path));
        }
        let key = KeyPair::generate()?;
        let mut params = params("wick fleet", now, CA_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        replace(&dir.join(CA_FILE), &certificate.pem())?;
        replace(&dir.join(BROKER_CA), &certificate.pem())?;
        Signing::init(dir)?;
        // The last: with it the folder is a hub's.
        keep(&path, &key.serialize_pem())?;
        let authority = Self::open(dir)?;
        authority.list(&[], now)?;
        authority.servers(names, now)?;
        Ok(authority)
    }

    /// # Errors
    /// The folder is no hub's, or damaged.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(file(&path))
        };
        let ca = read(CA_FILE)?;
        let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&read(CA_KEY)?)?)?;
        let signing = RwLock::new(Arc::new(Signing::open(dir)?));
        Ok(Self { dir: dir.to_owned(), issuer, ca, signing })
    }

    /// The key in use.
    pub fn signing(&self) -> Arc<Signing> {
        Arc::clone(&self.signing.read())
    }

    /// Use a new key from now on.
    ///
    /// # Errors
    /// It can't be written; then the old one is in use, now and after a start.
    pub fn rotate(&self) -> Result<Arc<Signing>, AuthorityError> {
        let next = Arc::new(self.signing().rotate(&self.dir)?);
        *self.signing.write() = Arc::clone(&next);
        Ok(next)
    }

    /// Remove keys that are not in use, of a change that ended in the middle. Only for whoever holds the store.
    pub fn tidy(&self) {
        self.signing().tidy(&self.dir);
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// A certificate for a site.
    ///
    /// # Errors
    /// There are no random bytes.
    pub fn issue(
        &self,
        site: &SiteName,
        request: &Request,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let mut params = params(site.as_str(), now, SITE_DAYS)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, &request.public)
    }

    /// New certificates for the hub at the broker, and for broker and API.
    ///
    /// # Errors
    /// A name is none, or a file can't be written.
    pub fn servers(&self, names: &[String], now: SystemTime) -> Result<(), AuthorityError> {
        let mut client = params(HUB, now, SERVER_DAYS)?;
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let mut server = params("wick-server", now, SERVER_DAYS)?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.subject_alt_names = CertificateParams::new(names.to_vec())?.subject_alt_names;
        for (params, (certificate, private)) in [(client, HUB_FILES), (server, SERVER_FILES)] {
            let path = self.dir.join(private);
            let key = match fs::read_to_string(&path) {
                Ok(text) => KeyPair::from_pem(&text)?,
                Err(_) => {
                    let key = KeyPair::generate()?;
                    keep(&path, &key.serialize_pem())?;
                    key
                }
            };
            replace(&self.dir.join(certificate), &self.sign(params, &key)?.pem)?;
        }
        Ok(())
    }

    /// Write the list of certificates that hold no more, by serial number and since when.
    ///
    /// # Errors
    /// It can't be written.
    pub fn list(
        &self,
        revoked: &[(String, Moment)],
        now: SystemTime,
    ) -> Result<(), AuthorityError> {
        let moment = |at: Moment| {
            OffsetDateTime::from(SystemTime::UNIX_EPOCH + Duration::from_millis(at.millis()))
        };
        let revoked = revoked.iter().map(|(serial, at)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&unhex(serial)),
            revocation_time: moment(*at),
            reason_code: None,
            invalidity_date: None,
        });
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let list = CertificateRevocationListParams {
            this_update: (now - BACKDATE).into(),
            next_update: (now + DAY * LIST_DAYS).into(),
            crl_number: SerialNumber::from(since.as_secs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        replace(&self.dir.join(LIST_FILE), &list.signed_by(&self.issuer)?.pem()?)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Issued, AuthorityError> {
        let mut serial: [u8; SERIAL] = random().map_err(file(Path::new("/dev/urandom")))?;
        // A positive number of always the same length.
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let not_after = u64::try_from(params.not_after.unix_timestamp()).unwrap_or_default();
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Issued { pem: certificate.pem(), serial: hex(&serial), not_after })
    }
}

fn params(name: &str, now: SystemTime, days: u32) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + DAY * days).into();
    Ok(params)
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

// === impl Request ===

impl Request {
    /// Read a signing request in PEM that its own key has signed.
    ///
    /// # Errors
    /// It is none, or of a key of another kind.
    pub fn parse(pem: &str) -> Result<Self, AuthorityError> {
        let parsed = CertificateSigningRequestParams::from_pem(pem);
        let CertificateSigningRequestParams { params, public_key } =
            parsed.map_err(AuthorityError::Request)?;
        if *public_key.algorithm() != PKCS_ED25519 {
            return Err(AuthorityError::Kind);
        }
        let name = match params.distinguished_name.get(&DnType::CommonName) {
            Some(DnValue::Utf8String(name)) => name.clone(),
            Some(DnValue::PrintableString(name)) => name.as_str().to_owned(),
            _ => return Err(AuthorityError::Name),
        };
        let der = BASE64_STANDARD.encode(public_key.subject_public_key_info());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
        Ok(Self { name, key: PublicKey::from_pem(&pem)?, public: public_key })
    }
}
