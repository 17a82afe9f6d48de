//! Certificates of a cluster, and the files by which clients use them. Elliptic keys, since
//! they are made in milliseconds; valid for a year, which no cluster of tests outlives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::instance::{Index, NODE, Place};
use crate::tools;

const DAYS: &str = "365";

/// Who gets a certificate.
struct Subject<'a> {
    file: &'a str,
    name: &'a str,
    group: &'a str,
    /// Names and addresses that it serves, in openssl's syntax.
    serves: String,
}

/// Make every key, certificate and kubeconfig.
pub fn make(place: &Place, index: Index) -> anyhow::Result<()> {
    let pki = Pki { folder: place.path("pki") };
    fs::create_dir_all(&pki.folder).with_context(|| format!("create {}", pki.folder.display()))?;
    pki.authority()?;
    // Signs the tokens of service accounts.
    pki.key("accounts")?;
    for subject in subjects(index) {
        pki.certificate(&subject)?;
    }
    for user in ["admin", "kubelet"] {
        let path = place.path("conf").join(format!("{user}.conf"));
        fs::write(&path, kubeconfig(&pki.folder, index, user))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn subjects(index: Index) -> [Subject<'static>; 3] {
    let node = index.node_ip();
    [
        Subject {
            file: "apiserver",
            name: "kube-apiserver",
            group: "wick",
            serves: format!(
                "IP:127.0.0.1,IP:{node},IP:{},DNS:localhost,DNS:kubernetes,\
                 DNS:kubernetes.default,DNS:kubernetes.default.svc,\
                 DNS:kubernetes.default.svc.cluster.local",
                index.api_service_ip()
            ),
        },
        Subject {
            file: "admin",
            name: "admin",
            group: "system:masters",
            serves: "DNS:admin".to_owned(),
        },
        Subject {
            file: "kubelet",
            name: "system:node:node",
            group: "system:nodes",
            serves: format!("DNS:{NODE},IP:127.0.0.1,IP:{node}"),
        },
    ]
}

/// A client's configuration that names files, so it stays small and readable.
fn kubeconfig(pki: &Path, index: Index, user: &str) -> String {
    let pki = pki.display();
    let server = index.api_url();
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: wick\n\
         clusters:\n- name: wick\n  cluster:\n    server: {server}\n    \
         certificate-authority: {pki}/ca.crt\n\
         users:\n- name: {user}\n  user:\n    client-certificate: {pki}/{user}.crt\n    \
         client-key: {pki}/{user}.key\n\
         contexts:\n- name: wick\n  context:\n    cluster: wick\n    user: {user}\n"
    )
}

/// The folder of keys and certificates, made by openssl.
struct Pki {
    folder: PathBuf,
}

// === impl Pki ===

impl Pki {
    fn authority(&self) -> anyhow::Result<()> {
        self.key("ca")?;
        self.openssl(&[
            "req", "-x509", "-new", "-key", "ca.key", "-out", "ca.crt", "-subj", "/CN=wick",
            "-days", DAYS,
        ])
    }

    fn key(&self, file: &str) -> anyhow::Result<()> {
        let out = format!("{file}.key");
        self.openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &out])
    }

    fn certificate(&self, subject: &Subject<'_>) -> anyhow::Result<()> {
        let Subject { file, name, group, serves } = subject;
        self.key(file)?;
        let (key, request) = (format!("{file}.key"), format!("{file}.csr"));
        let subject = format!("/O={group}/CN={name}");
        self.openssl(&["req", "-new", "-key", &key, "-out", &request, "-subj", &subject])?;
        let extensions = format!("{file}.ext");
        let text = format!("subjectAltName={serves}\nextendedKeyUsage=serverAuth,clientAuth\n");
        fs::write(self.folder.join(&extensions), text)?;
        let out = format!("{file}.crt");
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            &out,
            "-days",
            DAYS,
            "-extfile",
            &extensions,
        ])
    }

    fn openssl(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut openssl = Command::new("openssl");
        tools::output(openssl.args(args).current_dir(&self.folder)).map(drop)
    }
}
