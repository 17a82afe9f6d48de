//! HTTP/2 frames that no client sends in good faith, written by hand. The connection may go on
//! or end; the server does, and answers the next client.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wick_serve::ServeSettings;

use crate::connections::{Running, post};
use crate::support::{Fixture, four, settings};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET http / ` with the authority `h`, in HPACK's table of constants.
const REQUEST: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'h'];

/// `:method: POST` and `/v2/models/m/infer`, without a body yet.
fn post_headers() -> Vec<u8> {
    let path = b"/v2/models/m/infer";
    let mut block = vec![0x83, 0x86, 0x44, path.len() as u8];
    block.extend_from_slice(path);
    block.extend_from_slice(&[0x41, 1, b'h']);
    block
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What became of a connection.
#[derive(Debug, Default)]
struct End {
    /// The error code of the server's last words.
    goaway: Option<u32>,
    closed: bool,
}

/// Send the preface and frames, reading all the while, until all is sent and a ping answered
/// or the server has closed.
async fn flood(server: &Running, frames: impl Iterator<Item = Vec<u8>>) -> End {
    let (mut read, mut write) = server.connect().await.into_split();
    let send = async {
        let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let _ = write.write_all(&begin).await;
        let mut batch = Vec::new();
        for frame in frames {
            batch.extend_from_slice(&frame);
            if batch.len() > 64 << 10 {
                if write.write_all(&batch).await.is_err() {
                    return write;
                }
                batch.clear();
            }
        }
        batch.extend_from_slice(&frame(PING, 0, 0, b"the last"));
        let _ = write.write_all(&batch).await;
        write
    };
    let receive = async {
        let mut end = End::default();
        loop {
            let mut head = [0; 9];
            if read.read_exact(&mut head).await.is_err() {
                return End { closed: true, ..end };
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if read.read_exact(&mut payload).await.is_err() {
                return End { closed: true, ..end };
            }
            match head[3] {
                GOAWAY => end.goaway = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
                PING if payload == b"the last" => return end,
                _ => {}
            }
        }
    };
    let both = async { tokio::join!(send, receive).1 };
    let end = tokio::time::timeout(Duration::from_secs(20), both).await;
    end.expect("neither answered nor closed")
}

async fn next_is_answered(server: &Running) {
    let next = server.exchange(&post(&four([1.0; 4]), "Connection: close\r\n")).await;
    assert!(next.starts_with("HTTP/1.1 200 OK"), "{next}");
}

/// Identifiers of a client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_do_not_pile_up() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    for (flags, block) in
        [(END_HEADERS | END_STREAM, REQUEST.to_vec()), (END_HEADERS, post_headers())]
    {
        let resets = streams(20_000).map(|stream| {
            let open = frame(HEADERS, flags, stream, &block);
            [open, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        });
        let end = flood(&server, resets).await;
        // ENHANCE_YOUR_CALM.
        assert!(end.closed && end.goaway.is_none_or(|code| code == 11), "{end:?}");
        next_is_answered(&server).await;
    }
    let live = fixture.repository.peek("m", None).unwrap();
    crate::connections::until("no request is left", || live.gate.load() == (0, 0)).await;
    server.stop().await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_one_by_one() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, ServeSettings { max_streams: 4, ..settings() }).await;
    let block = post_headers();
    let open = streams(8).map(|stream| frame(HEADERS, END_HEADERS, stream, &block));
    let end = flood(&server, open).await;
    assert!(!end.closed, "{end:?}");
    let many = streams(4000).map(|stream| frame(HEADERS, END_HEADERS, stream, &block));
    let end = flood(&server, many).await;
    assert!(end.closed && end.goaway == Some(11), "{end:?}");
    next_is_answered(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn headers_that_go_on_and_on_end_the_connection() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    let piece = [&[0, 1, b'x', 0x7f, 0x81, 0x7e][..], &[b'a'; 16_000]].concat();
    for more in [piece.clone(), Vec::new()] {
        let start = frame(HEADERS, END_STREAM, 1, REQUEST);
        let rest = (0..50_000).map(|_| frame(CONTINUATION, 0, 1, &more));
        let end = flood(&server, std::iter::once(start).chain(rest)).await;
        assert!(end.closed, "{end:?}");
        next_is_answered(&server).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn pings_and_settings_are_answered_one_by_one_and_hold_nobody_up() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    let settings_frame = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]);
    let table =
        [frame(PING, 0, 0, &[1; 8]), settings_frame, frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])];
    for one in table {
        let end = flood(&server, (0..50_000).map(|_| one.clone())).await;
        assert!(end.goaway.is_none_or(|code| code == 11), "{end:?}");
        next_is_answered(&server).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn answers_to_pings_that_nobody_reads_end_the_connection() {
    let fixture = Fixture::adding(1.0, "").await;
    let settings = ServeSettings {
        max_connections: 1,
        write_timeout: Duration::from_millis(300),
        ..settings()
    };
    let server = Running::start(&fixture, settings).await;
    let mut deaf = server.connect().await;
    deaf.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let pings = frame(PING, 0, 0, &[1; 8]).repeat(10_000);
    let send = async { while deaf.write_all(&pings).await.is_ok() {} };
    // The only place is free again when the server has given the connection up.
    tokio::time::timeout(Duration::from_secs(20), send).await.expect("pings are taken for ever");
    next_is_answered(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn headers_that_stop_in_the_middle_end_with_their_time() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, ServeSettings { max_connections: 1, ..settings() }).await;
    let half = frame(HEADERS, END_STREAM, 1, REQUEST);
    let mut silent = server.connect().await;
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &half].concat();
    silent.write_all(&begin).await.unwrap();
    // The only place is free again when the server has given the connection up.
    next_is_answered(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_the_connection() {
    let fixture = Fixture::adding(1.0, "").await;
    let server = Running::start(&fixture, settings()).await;
    let table = [
        ("headers on stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, REQUEST)),
        ("headers on the server's stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, REQUEST)),
        (
            "an index past the table",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0x7f]),
        ),
        ("a table of 1 GiB", frame(HEADERS, END_HEADERS, 1, &[0x3f, 0xe1, 0xff, 0xff, 0xff, 3])),
        ("a frame of 1 MiB", frame(0, 0, 1, &vec![0; 1 << 20])),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, REQUEST)),
        ("a ping of 9 bytes", frame(PING, 0, 0, &[0; 9])),
        ("a window of 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a window past its limit", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
    ];
    for (what, bytes) in table {
        let end = flood(&server, std::iter::once(bytes)).await;
        assert!(end.closed && end.goaway.is_none_or(|code| code != 0), "{what}: {end:?}");
        next_is_answered(&server).await;
    }
    server.stop().await;
}
