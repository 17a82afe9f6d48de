//! Request smuggling: requests whose end is doubtful, over raw sockets. Whatever the answer is,
//! bytes that a proxy in front may take for a body are never answered as a request, and the next
//! client is served.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::connections::{Running, post};
use crate::support::{Fixture, four, settings};

/// What must never be answered.
const SMUGGLED: &str = "GET /v2/models/smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// Send bytes and read until the server closes; it may close while bytes are sent.
async fn exchange(server: &Running, bytes: &[u8]) -> String {
    let (mut read, mut write) = server.connect().await.into_split();
    let send = async {
        // A reset is an answer, too.
        let _ = write.write_all(bytes).await;
        write
    };
    let receive = async {
        let mut answer = Vec::new();
        let _ = read.read_to_end(&mut answer).await;
        answer
    };
    let both = async { tokio::join!(send, receive) };
    let both = tokio::time::timeout(std::time::Duration::from_secs(20), both).await;
    let (_, answer) = both.expect("the server keeps the connection open");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The statuses of the answers in a text.
fn statuses(text: &str) -> Vec<&str> {
    let answers = text.match_indices("HTTP/1.1 ");
    answers.map(|(at, start)| &text[at + start.len()..][..3]).collect()
}

async fn check(server: &Running, what: &str, bytes: &[u8], want: &[&str]) {
    let text = exchange(server, bytes).await;
    assert_eq!(statuses(&text), want, "{what}: {text}");
    assert!(!text.contains("smuggled"), "{what}: {text}");
    let next = server.exchange(&post(&four([1.0; 4]), "Connection: close\r\n")).await;
    assert!(next.starts_with("HTTP/1.1 200 OK"), "after {what}: {next}");
}

/// A request with these lines of headers and this after them.
fn with(headers: &str, rest: &str) -> Vec<u8> {
    format!("POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\n{headers}\r\n{rest}").into_bytes()
}

#[tokio::test]
async fn a_body_with_two_lengths_hides_no_request() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    let empty_chunks = format!("0\r\n\r\n{SMUGGLED}");
    let length = empty_chunks.len();
    let table = [
        (
            "length, then chunked",
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        ),
        (
            "chunked, then length",
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        ),
        (
            "chunked between lengths",
            format!(
                "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n"
            ),
        ),
    ];
    for (what, headers) in table {
        // The chunks are the body, which is empty and no JSON; then the connection ends.
        check(&server, what, &with(&headers, &empty_chunks), &["400"]).await;
    }
    let table = [
        "Content-Length: 0\r\nContent-Length: 47\r\n",
        "Content-Length: 47\r\nContent-Length: 0\r\n",
        "Content-Length: 0, 47\r\n",
        "Content-Length: 47, 47\r\n",
    ];
    for headers in table {
        check(&server, headers, &with(headers, SMUGGLED), &["400"]).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_length_is_digits_and_a_header_is_on_one_line() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    for length in ["+47", "-1", "0x2f", "4 7", "47,", "", "1e1", "٤٧", "99999999999999999999"] {
        let headers = format!("Content-Length: {length}\r\n");
        check(&server, &headers, &with(&headers, SMUGGLED), &["400"]).await;
    }
    let table = [
        "Content-Length : 0\r\n",
        "Content-Length\t: 0\r\n",
        " Content-Length: 0\r\n",
        "X: a\r\n Content-Length: 0\r\n",
        "Content-Length\r\n",
        "Content-Length\0: 0\r\n",
        "X: a\rContent-Length: 0\r\n",
        "X: a\0b\r\n",
    ];
    for headers in table {
        check(&server, headers, &with(headers, SMUGGLED), &["400"]).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_transfer_coding_that_is_not_chunked_alone_ends_the_connection() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    let rest = format!("0\r\n\r\n{SMUGGLED}");
    let table = [
        ("Transfer-Encoding: xchunked\r\n", "400"),
        ("Transfer-Encoding: identity\r\n", "400"),
        ("Transfer-Encoding: chunked, identity\r\n", "400"),
        ("Transfer-Encoding: \"chunked\"\r\n", "400"),
        ("Transfer-Encoding: \x0bchunked\r\n", "400"),
        ("Transfer-Encoding:\r\n chunked\r\n", "400"),
        ("Transfer-Encoding : chunked\r\n", "400"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "400"),
        ("Transfer-Encoding: gzip, chunked\r\n", "501"),
        ("Transfer-Encoding: chunked, chunked\r\n", "501"),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "501"),
        ("Transfer-Encoding: ,chunked\r\n", "501"),
    ];
    for (headers, want) in table {
        check(&server, headers, &with(headers, &rest), &[want]).await;
    }
    let old =
        format!("POST /v2/models/m/infer HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
    check(&server, "chunked in HTTP/1.0", old.as_bytes(), &["400"]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_chunk_that_is_not_well_formed_ends_the_connection() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let table = [
        "0x0\r\n\r\n",
        "+0\r\n\r\n",
        "-0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "g\r\n\r\n",
        "10000000000000000\r\n\r\n",
        "fffffffffffffffff\r\n\r\n",
        "1\r\n{0\r\n\r\n",
        "1\n{\r\n0\r\n\r\n",
        "0;a\nb\r\n\r\n",
    ];
    for chunks in table {
        let bytes = with(chunked, &format!("{chunks}{SMUGGLED}"));
        check(&server, chunks, &bytes, &["400"]).await;
    }
    // What follows the last chunk is a trailer, however it looks.
    let trailer = with(chunked, &format!("0\r\n{}\r\n", SMUGGLED.replacen("\r\n", ": x\r\n", 1)));
    let text = exchange(&server, &trailer).await;
    assert!(!text.contains("smuggled") && statuses(&text) == ["400"], "{text}");
    // Extensions are read over, up to a bound.
    let body = four([1.0; 4]);
    let chunk = |extension: &str| format!("{:x}{extension}\r\n{body}\r\n0\r\n\r\n", body.len());
    let close = format!("{chunked}Connection: close\r\n");
    check(&server, "an extension", &with(&close, &chunk(";a=\"b\"")), &["200"]).await;
    let long = chunk(&format!(";{}", "a".repeat(64 << 10)));
    check(&server, "a long extension", &with(&close, &long), &["400"]).await;
    server.stop().await;
}

#[tokio::test]
async fn what_follows_a_refused_body_is_no_request() {
    let fixture = Fixture::adding(1.0, "request = \"1KiB\"").await;
    let server = Running::start(&fixture, settings()).await;
    let filling = " ".repeat(17 << 20);
    let table = [
        ("/v2/models/unknown/infer", "404"),
        ("/v2/models/m/infer", "413"),
        ("/v2/repository/models/m/load", "403"),
    ];
    for (path, want) in table {
        // The server stops reading in the middle of this body, just before the request in it.
        let length = filling.len() + SMUGGLED.len() + 1000;
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        let bytes = [request.as_str(), &filling, SMUGGLED, SMUGGLED].concat();
        let text = exchange(&server, bytes.as_bytes()).await;
        assert!(statuses(&text).len() <= 1 && !text.contains("smuggled"), "{path}: {text}");
        // A body that is refused and still read leaves the connection for the next request.
        let small = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n");
        let close = "GET /v2/health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let bytes = [small.as_str(), &" ".repeat(2000), close].concat();
        check(&server, path, bytes.as_bytes(), &[want, "200"]).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_bare_line_feed_begins_no_second_request() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    // RFC 9112 (2.2) lets a server take a line feed for a line's end. What matters is that
    // the headers after it count.
    let length = SMUGGLED.len();
    let bytes = format!(
        "POST /v2/models/m/infer HTTP/1.1\nHost: h\nContent-Length: {length}\n\
         Connection: close\n\n{SMUGGLED}"
    );
    check(&server, "line feeds", bytes.as_bytes(), &["400"]).await;
    for line in ["GET  /v2 HTTP/1.1", "GET /v2\tHTTP/1.1", "GET /v2 HTTP/1.1 ", "GET /v2 HTTP/2.0"]
    {
        let bytes = format!("{line}\r\nHost: h\r\n\r\n{SMUGGLED}");
        check(&server, line, bytes.as_bytes(), &["400"]).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn headers_and_addresses_past_their_limits_are_refused() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    let many = (0..101).map(|n| format!("X-{n}: a\r\n")).collect::<String>();
    check(&server, "101 headers", &with(&many, ""), &["431"]).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(65_535));
    check(&server, "a long address", long.as_bytes(), &["414"]).await;
    server.stop().await;
}
