//! `wick token`, and the flags of `wick run` about clients.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

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
