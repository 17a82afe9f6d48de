//! TLS with the site's own certificate, a clock that is wrong, and two machines with one name.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519};
use wick_agent::{Home, SiteFile};
use wick_fleet::enrol::Enrolled;
use wick_fleet::wire::KeyRing;
use wick_package::signature::PrivateKey;

use crate::rig::{self, Broker, Hub, PATIENCE, PLENTY, Rig};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "fleet");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The broker's certificate, that ended in this year.
    fn broker(&self, dir: &Path, until: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(dir.join("ca.pem"), &self.pem).unwrap();
        fs::write(dir.join("broker.pem"), certificate.pem()).unwrap();
        fs::write(dir.join("broker.key"), key.serialize_pem()).unwrap();
    }
}

fn secured(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "allow_anonymous true\nacl_file {dir}/acl\n\
         listener {port} 127.0.0.1\ncafile {dir}/ca.pem\ncertfile {dir}/broker.pem\n\
         keyfile {dir}/broker.key\nrequire_certificate true\nuse_identity_as_username true\n"
    )
}

/// A site with a certificate for its own key.
fn enrol(dir: &Path, authority: &Authority, site: &str, port: u16, ring: KeyRing) -> PrivateKey {
    let home = Home::open(dir.join(site)).unwrap();
    let (key, pem) = home.own_key().unwrap();
    let own = KeyPair::from_pem(&pem).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::CommonName, site);
    let certificate = params.signed_by(&own, &authority.issuer).unwrap().pem();
    let file = SiteFile {
        site: site.parse().unwrap(),
        hub: "https://127.0.0.1:1".to_owned(),
        hub_ca: None,
        broker: format!("mqtts://localhost:{port}"),
        certificate: certificate.clone(),
        ca: authority.pem.clone(),
        obtained: 0,
        not_after: 4_000_000_000_000,
        memory: PLENTY,
        disk: PLENTY,
        token: String::new(),
    };
    let (broker, not_after) = (file.broker.clone(), file.not_after);
    let ca = authority.pem.clone();
    home.join(&file, &Enrolled { certificate, ca, ring, broker, not_after }).unwrap();
    key
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn a_site_is_known_by_its_certificate_and_says_when_the_clock_is_wrong() {
    let mut rig = Rig::new();
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.broker(dir.path(), 2100);
    let mut acl = "topic readwrite wick/v1/#\npattern read wick/v1/%u/desired\n".to_owned();
    for channel in ["observed", "presence", "telemetry"] {
        acl += &format!("pattern write wick/v1/%u/{channel}\n");
    }
    fs::write(dir.path().join("acl"), acl).unwrap();
    let port = rig::free_port();
    // The hub by the plain listener, sites by the other.
    rig.broker.end();
    rig.broker = Broker::start(dir.path(), &secured(dir.path(), port));
    rig.hub = Hub::start(rig.broker.port, PrivateKey::from_seed(&[9; 32]));
    let key = enrol(dir.path(), &authority, "plant-1", port, rig.hub.ring());
    rig.know("plant-1", &key);
    let home = dir.path().join("plant-1");
    let site = rig::start(home.clone(), rig::converge(PLENTY, PLENTY)).await;
    rig.hub.tell("plant-1", 1, &[rig.model(1.0).await]).await;
    rig.hub.until_converged("plant-1", 1).await;
    // For a clock that is years ahead, a certificate that is good now has ended. Here it has ended.
    rig.broker.end();
    authority.broker(dir.path(), 2021);
    rig.broker.again();
    let begun = std::time::Instant::now();
    loop {
        let error = site.status().await.link.error.unwrap_or_default();
        if error.contains("set the clock") && error.contains("by this site's clock it is 20") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(site.value().await, Ok(1.0));
    site.stop().await;
    // After a restart too.
    let site = rig::start(home, rig::converge(PLENTY, PLENTY)).await;
    site.until_value(1.0).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn two_machines_with_one_name_say_so() {
    let rig = Rig::new();
    let first = rig.enrol("plant-1").root().to_owned();
    let second = rig.dir.path().join("copy");
    fs::create_dir(&second).unwrap();
    for file in ["site.json", "kept.json", "key.pem"] {
        fs::copy(first.join(file), second.join(file)).unwrap();
    }
    let one = rig.start("plant-1").await;
    let other = rig.start("copy").await;
    let begun = std::time::Instant::now();
    loop {
        let errors = [one.status().await.link.error, other.status().await.link.error];
        let told = |error: &Option<String>| {
            error.as_ref().is_some_and(|error| error.contains("two machines"))
        };
        if errors.iter().any(told) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{errors:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    one.stop().await;
    other.stop().await;
}
