//! A `wasi:http` guest. `/echo` streams the request's body back, `/slow` sends its
//! head and then waits for an hour, `/fetch?URL` asks another host, `/panic` panics,
//! `/silent` ends without an answer, `/count` says how many requests this instance has had.

#![cfg(target_family = "wasm")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler::{self, OutgoingRequest};
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::OutputStream;

/// Bytes of one write that wasi takes at once.
const WRITE: u64 = 4096;

/// Requests of this instance.
static REQUESTS: AtomicU32 = AtomicU32::new(0);

struct Web;

wasip2::http::proxy::export!(Web);

impl Guest for Web {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/echo" => echo(&request, out),
            "/slow" => respond(out, 200, |body| {
                let _ = body.blocking_write_and_flush(b"wait");
                std::thread::sleep(Duration::from_secs(3600));
            }),
            "/fetch" => {
                let answer = fetch(query);
                respond(out, 200, |body| drop(body.blocking_write_and_flush(answer.as_bytes())));
            }
            "/count" => respond(out, 200, |body| {
                drop(body.blocking_write_and_flush(count.to_string().as_bytes()));
            }),
            "/panic" => panic!("no luck on the web"),
            "/silent" => {}
            _ => respond(out, 404, |_| ()),
        }
    }
}

fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    respond(out, 200, |answer| {
        let Ok(body) = request.consume() else { return };
        let Ok(stream) = body.stream() else { return };
        while let Ok(bytes) = stream.blocking_read(WRITE) {
            if answer.blocking_write_and_flush(&bytes).is_err() {
                return;
            }
        }
    });
}

fn respond(out: ResponseOutparam, status: u16, write: impl FnOnce(&OutputStream)) {
    let response = OutgoingResponse::new(Fields::new());
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        write(&stream);
    }
    let _ = OutgoingBody::finish(body, None);
}

fn fetch(authority: &str) -> String {
    let request = OutgoingRequest::new(Fields::new());
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some("/"));
    let sent = match outgoing_handler::handle(request, None) {
        Ok(sent) => sent,
        Err(code) => return format!("refused: {code:?}"),
    };
    sent.subscribe().block();
    match sent.get() {
        Some(Ok(Ok(response))) => format!("status {}", response.status()),
        Some(Ok(Err(code))) => format!("refused: {code:?}"),
        _ => "nothing came".into(),
    }
}
