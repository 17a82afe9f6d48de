//! `wick token`, and the flags of `wick run` about clients.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;

use crate::support::{Sandbox, str, text};

/// The status of an answer on a connection of its own.
fn status(url: &str, token: Option<&str>) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    let token = token.map_or_else(String::new, |it| format!("Authorization: Bearer {it}\r\n"));
    let head = "GET /v2/models/plus-one HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    stream.write_all(format!("{head}{token}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_new_token_opens_what_its_entry_says() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let output = sandbox.run(&["token", "cam\"era", "--model", "plus-*", "--model", "a\\b"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let token = String::from_utf8(output.stderr).unwrap().trim().to_owned();
    let other = sandbox.json(&["token", "other", "--model", "elsewhere", "--control"]);
    let other_token = other["token"].as_str().unwrap();
    assert!(token.starts_with("wick_") && token.len() == 69 && other_token != token);

    let entry = String::from_utf8(output.stdout).unwrap();
    assert!(!entry.contains(&token) && other["entry"].as_str().unwrap().contains("control"));
    let tokens = sandbox.path("tokens.toml");
    fs::write(&tokens, entry + other["entry"].as_str().unwrap()).unwrap();
    let server = sandbox.serve(&[str(&package), "--tokens", str(&tokens)]);
    assert_eq!(status(server.url(), Some(&token)), "200");
    assert_eq!(status(server.url(), Some(other_token)), "403");
    assert_eq!(status(server.url(), None), "401");

    let infer = ["infer", server.url(), "plus-one", "-i", "x=[1, 2, 3, 4]"];
    let answer = sandbox.json(&[&infer[..], &["--token", &token]].concat());
    assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0, 4.0, 5.0]));
    let refused = sandbox.run(&infer);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("WICK_TOKEN"), "{}", text(&refused));
}

#[test]
fn a_server_with_mutual_tls_answers_its_clients() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(sandbox.path("ca.crt"), authority.pem()).unwrap();
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &*authority).unwrap();
        fs::write(sandbox.path(&format!("{name}.crt")), cert.pem()).unwrap();
        fs::write(sandbox.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let tls = ["--tls-cert", "server.crt", "--tls-key", "server.key", "--tls-client-ca", "ca.crt"];
    let server = sandbox.serve(&[&[str(&package)][..], &tls].concat());
    assert!(server.url().starts_with("https://"));

    let infer = ["infer", server.url(), "-i", "x=[1, 2, 3, 4]", "--cacert", "ca.crt"];
    let own = ["--cert", "client.crt", "--key", "client.key"];
    let answer = sandbox.json(&[&infer[..], &own].concat());
    assert_eq!(answer["outputs"][0]["data"], json!([2.0, 3.0, 4.0, 5.0]));
    let stranger = sandbox.run(&infer);
    assert_eq!(stranger.status.code(), Some(69), "{}", text(&stranger));
    let untrusted = sandbox.run(&infer[..4]);
    assert_eq!(untrusted.status.code(), Some(64), "{}", text(&untrusted));
    assert!(text(&untrusted).contains("--cacert"), "{}", text(&untrusted));
}

#[test]
fn flags_about_clients_are_checked_before_anything_is_served() {
    let sandbox = Sandbox::new();
    let package = sandbox.package("plus-one");
    let bad = sandbox.path("bad.toml");
    fs::write(&bad, "[[token]]\nname = \"a\"\n").unwrap();
    let table: [(&[&str], i32, &str); 6] = [
        (&["--tls-cert", "a.crt"], 64, "--tls-key"),
        (&["--tls-cert", "a.crt", "--tls-key", "a.key"], 66, "a.crt"),
        (&["--tokens", "none.toml"], 66, "none.toml"),
        (&["--tokens", str(&bad)], 65, "sha256"),
        (&["--cors-origin", "app.example"], 64, "https://app.example"),
        (&["--max-peer-connections", "0"], 64, "from 1 up"),
    ];
    for (flags, code, want) in table {
        let output = sandbox.run(&[&["run", str(&package), "--check-config"], flags].concat());
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {}", text(&output));
        assert!(text(&output).contains(want), "{flags:?}: {}", text(&output));
    }
}
