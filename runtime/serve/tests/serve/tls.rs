//! TLS with certificates of an authority made for the test: both versions of HTTP, clients'
//! certificates, renewal, and clients that do not speak it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wick_serve::{ServeSettings, Tls, TlsFiles};

use crate::connections::Running;
use crate::support::{Fixture, four, settings};

/// Signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Identity {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &*self.0).unwrap();
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this authority.
    fn client(&self, identity: Option<&Identity>, protocol: &[u8]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut client = match identity {
            None => client.with_no_client_auth(),
            Some(identity) => {
                let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                client.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        client.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(client).into()
    }
}

impl Identity {
    fn write(&self, folder: &Path) -> TlsFiles {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("tls.crt"), &self.cert).unwrap();
        fs::write(folder.join("tls.key"), &self.key).unwrap();
        files(folder)
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

fn files(folder: &Path) -> TlsFiles {
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| folder.join(name));
    TlsFiles { cert, key, client_ca: None }
}

fn with(files: TlsFiles) -> ServeSettings {
    ServeSettings { tls: Some(Tls::open(files).unwrap()), ..settings() }
}

async fn connect(server: &Running, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    client.connect(name, server.connect().await).await
}

/// The first line of an answer over HTTP/1.1, if there is one.
async fn ask(server: &Running, client: &TlsConnector) -> std::io::Result<String> {
    let mut stream = connect(server, client).await?;
    let request = "GET /v2/health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn both_versions_of_http_are_served_over_tls() {
    let fixture = Fixture::adding(1.0, "").await;
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let server = Running::start(&fixture, with(authority.issue().write(dir.path()))).await;
    let client = authority.client(None, b"http/1.1");
    assert_eq!(ask(&server, &client).await.unwrap(), "HTTP/1.1 200 OK");

    let stream = connect(&server, &authority.client(None, b"h2")).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut http, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let request = Request::post("https://localhost/v2/models/m/infer");
    let request = request.body(Full::new(Bytes::from(four([1.0; 4])))).unwrap();
    let answer = http.send_request(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"[2.0,2.0,2.0,2.0]}]}"), "{body:?}");
    drop(http);
    assert_eq!(server.stop().await.cut_off, 0);
}

#[tokio::test]
async fn whoever_does_not_speak_tls_is_disconnected_and_the_next_one_served() {
    let fixture = Fixture::adding(1.0, "").await;
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let settings = with(authority.issue().write(dir.path()));
    let settings = ServeSettings { max_connections: 1, ..settings };
    let server = Running::start(&fixture, settings).await;
    // Plain HTTP, garbage, half a handshake that goes on saying nothing, and silence.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let plain = b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n";
    for bytes in [&plain[..], &[0xff; 100], &hello, &[]] {
        let mut stream = server.connect().await;
        stream.write_all(bytes).await.unwrap();
        let client = authority.client(None, b"http/1.1");
        let next = tokio::time::timeout(Duration::from_secs(10), ask(&server, &client)).await;
        assert_eq!(next.expect("the place is held").unwrap(), "HTTP/1.1 200 OK");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn with_an_authority_for_clients_only_its_clients_are_served() {
    let fixture = Fixture::adding(1.0, "").await;
    let (dir, authority, other) = (TempDir::new().unwrap(), Authority::new(), Authority::new());
    let client_ca = dir.path().join("ca.crt");
    fs::write(&client_ca, authority.0.pem()).unwrap();
    let files = authority.issue().write(dir.path());
    let server =
        Running::start(&fixture, with(TlsFiles { client_ca: Some(client_ca), ..files })).await;
    let (known, stranger) = (authority.issue(), other.issue());
    for (identity, served) in [(None, false), (Some(&stranger), false), (Some(&known), true)] {
        let answer = ask(&server, &authority.client(identity, b"http/1.1")).await;
        assert_eq!(answer.is_ok_and(|line| line == "HTTP/1.1 200 OK"), served);
    }
    server.stop().await;
}

/// The certificate that a new connection sees.
async fn shown(server: &Running, client: &TlsConnector) -> CertificateDer<'static> {
    let stream = connect(server, client).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// As the kubelet does: a folder beside the old one, and a link swapped.
fn swap(volume: &Path, name: &str, identity: &Identity) {
    identity.write(&volume.join(name));
    let new = volume.join("..data_tmp");
    symlink(name, &new).unwrap();
    fs::rename(new, volume.join("..data")).unwrap();
}

async fn shows(server: &Running, client: &TlsConnector, identity: &Identity) {
    let seen = async {
        while shown(server, client).await != identity.der() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("not taken");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let fixture = Fixture::adding(1.0, "").await;
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let [first, second, third] = [(); 3].map(|()| authority.issue());
    swap(dir.path(), "..1", &first);
    for name in ["tls.crt", "tls.key"] {
        symlink(PathBuf::from("..data").join(name), dir.path().join(name)).unwrap();
    }
    // Renewal takes seconds, and a connection is to be open all the while.
    let header_timeout = Duration::from_secs(60);
    let settings = ServeSettings { header_timeout, ..with(files(dir.path())) };
    let server = Running::start(&fixture, settings).await;
    let client = authority.client(None, b"http/1.1");
    assert_eq!(shown(&server, &client).await, first.der());
    let mut old = connect(&server, &client).await.unwrap();

    swap(dir.path(), "..2", &second);
    shows(&server, &client, &second).await;
    // A connection from before goes on.
    old.write_all(b"GET /v2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    old.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");

    // A key that is another certificate's.
    let broken = Identity { cert: third.cert.clone(), key: first.key.clone() };
    swap(dir.path(), "..3", &broken);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(shown(&server, &client).await, second.der());
    swap(dir.path(), "..4", &third);
    shows(&server, &client, &third).await;
    server.stop().await;
}

#[test]
fn files_that_are_no_certificate_and_key_are_named() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let (one, other) = (authority.issue(), authority.issue());
    let check = |cert: &str, key: &str, want: &str| {
        let identity = Identity { cert: cert.to_owned(), key: key.to_owned() };
        let error = Tls::open(identity.write(dir.path())).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    };
    check("", &one.key, "certificate file holds no certificate");
    check(&one.key, &one.key, "certificate file holds no certificate");
    check(&one.cert, "", "key file holds no private key");
    check(&one.cert, &other.key, "do not go together");
    check("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", &one.key, "not PEM");
    let files = TlsFiles { client_ca: Some(dir.path().join("none")), ..one.write(dir.path()) };
    assert!(Tls::open(files).unwrap_err().to_string().contains("none"));
}
