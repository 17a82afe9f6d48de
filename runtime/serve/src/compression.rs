//! Compressed bodies over REST: a request's by its `Content-Encoding`, an answer's by the
//! client's `Accept-Encoding`.
//!
//! The choice is made at each request: one without these headers meets nothing of this. Whole
//! bodies are inflated and compressed, on threads for blocking work, so that neither a bomb
//! nor a slow level holds up other requests. What a body inflates to has the limit that the
//! body itself has, and is taken from the same memory piece by piece, so that a bomb is
//! refused at the first byte too many.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::{BufMut as _, Bytes};
use flate2::Compression;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{self, HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;

use crate::body::{self, BodyLimits, BodyMemory, Held};
use crate::codec;
use crate::respond::Failure;

/// Answers below this many bytes fit one packet either way.
const MIN_SIZE: u64 = 1400;

/// Bytes that are inflated at once, between two looks at the limits.
const STEP: usize = 64 << 10;

/// Largest window of zstd, as a power of two: 8 MiB, what RFC 9659 lets senders use. A
/// window is memory that a few bytes of a client can ask for.
const ZSTD_WINDOW_LOG: u32 = 23;

/// What a zstd decoder takes beside its output: the window and its tables.
const ZSTD_MEMORY: u64 = 9 << 20;

/// What a deflate decoder takes: its window of 32 KiB and its tables.
const DEFLATE_MEMORY: u64 = 64 << 10;

/// The fastest levels that are worth it. Higher ones win a twentieth for several times the
/// work on text of numbers; deflate's first has fixed codes, which make tensors larger.
const DEFLATE_LEVEL: u32 = 2;
const ZSTD_LEVEL: i32 = 1;

/// A coding of HTTP, in the order of the server's preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Gzip,
    /// What HTTP calls deflate: the zlib format.
    Deflate,
}

/// Every coding that is taken and given.
const ALL: [Coding; 3] = [Coding::Zstd, Coding::Gzip, Coding::Deflate];

/// The same, for a client that sent something else.
pub(crate) const ACCEPTED: HeaderValue = HeaderValue::from_static("zstd, gzip, deflate");

/// How a request's body is compressed.
///
/// # Errors
/// In a way that is not known here, or in several.
pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Coding>, Failure> {
    let mut all = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(first) = all.next() else { return Ok(None) };
    let text = String::from_utf8_lossy(first.as_bytes());
    let coding = match text.trim() {
        name if name.eq_ignore_ascii_case("identity") => Some(None),
        name => Coding::parse(name).map(Some),
    };
    match (coding, all.next()) {
        (Some(coding), None) => Ok(coding),
        _ => Err(Failure::ContentEncoding(codec::clip(&text))),
    }
}

/// How the client wants its answer compressed: of the codings that it likes best, the one
/// that the server likes best. None is as it is.
pub(crate) fn wanted(headers: &HeaderMap) -> Option<Coding> {
    let mut weights = [None; ALL.len()];
    let mut others = None;
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        let Ok(text) = value.to_str() else { continue };
        for item in text.split(',') {
            let (name, weight) = weighted(item);
            if name == "*" {
                others = Some(weight);
            } else if let Some(coding) = Coding::parse(name) {
                weights[coding as usize] = Some(weight);
            }
        }
    }
    let weights = weights.map(|weight| weight.or(others).unwrap_or(0.0));
    let best = weights.into_iter().fold(0.0, f32::max);
    ALL.into_iter().find(|&coding| best > 0.0 && weights[coding as usize] >= best)
}

/// A name and its `q`. One that can't be read counts as a refusal.
fn weighted(item: &str) -> (&str, f32) {
    let (name, rest) = item.split_once(';').unwrap_or((item, ""));
    let rest = rest.trim();
    let weight = match rest.strip_prefix("q=").or_else(|| rest.strip_prefix("Q=")) {
        Some(number) => number.trim().parse().ok().filter(|q| (0.0..=1.0).contains(q)),
        None => Some(1.0),
    };
    (name.trim(), weight.unwrap_or(0.0))
}

/// Read a whole body as [`body::read`] does, and inflate it.
///
/// # Errors
/// Those of [`body::read`], which hold for what is inflated as well, or it is not in the
/// coding.
pub(crate) async fn read(
    coding: Option<Coding>,
    body: Body,
    limits: &BodyLimits,
    memory: &Arc<BodyMemory>,
) -> Result<(Bytes, Held), Failure> {
    let (body, held) = body::read(body, limits, memory).await?;
    let Some(coding) = coding else { return Ok((body, held)) };
    let limits = limits.clone();
    let work = move || inflate(coding, &body, &limits, held);
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::Server(error.to_string()))?
}

fn inflate(
    coding: Coding,
    body: &[u8],
    limits: &BodyLimits,
    compressed: Held,
) -> Result<(Bytes, Held), Failure> {
    let broken =
        |error: io::Error| Failure::Compressed { coding: coding.name(), detail: error.to_string() };
    let mut own = compressed.another();
    let mut held = compressed.another();
    if !own.grow(coding.memory()) {
        return Err(Failure::OutOfBodyMemory);
    }
    let mut decoder = coding.decoder(body).map_err(broken)?;
    let (mut out, pad) = body::start(declared_size(coding, body), limits.align_at);
    let mut step = vec![0; STEP];
    let mut total = 0_u64;
    loop {
        let read = decoder.read(&mut step).map_err(broken)?;
        if read == 0 {
            break;
        }
        total += read as u64;
        if total > limits.max {
            return Err(Failure::TooLarge { limit: limits.max, whose: limits.whose.clone() });
        }
        if !held.grow(read as u64) {
            return Err(Failure::OutOfBodyMemory);
        }
        out.put_slice(&step[..read]);
    }
    if let rest @ 1.. = decoder.rest() {
        let detail = format!("{rest} bytes follow its end");
        return Err(Failure::Compressed { coding: coding.name(), detail });
    }
    Ok((out.freeze().slice(pad..), held))
}

/// The size that a body says it inflates to, which is a hint for the first allocation and
/// nothing more.
fn declared_size(coding: Coding, body: &[u8]) -> Option<u64> {
    match coding {
        // The last four bytes, modulo 2^32.
        Coding::Gzip => body.last_chunk().map(|size| u32::from_le_bytes(*size).into()),
        Coding::Zstd => zstd::zstd_safe::get_frame_content_size(body).ok().flatten(),
        Coding::Deflate => None,
    }
}

/// Compress an answer of known size, if it is large enough and becomes smaller.
pub(crate) async fn compressed(response: Response, coding: Coding) -> Response {
    let size = http_body::Body::size_hint(response.body()).exact();
    let Some(size) = size.filter(|&size| size >= MIN_SIZE) else { return response };
    let (mut head, body) = response.into_parts();
    // The pieces of an answer are in memory: they are taken, not waited for.
    let pieces = match pieces(body).await {
        Ok(pieces) => pieces,
        Err(error) => return Failure::Server(error.to_string()).into_response(),
    };
    let work = move || {
        let small = compress(coding, &pieces).ok();
        (small.filter(|small| (small.len() as u64) < size), pieces)
    };
    let (small, pieces) = match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => return Failure::Server(error.to_string()).into_response(),
    };
    let headers = &mut head.headers;
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let Some(small) = small else {
        return Response::from_parts(head, Body::new(body::Pieces::new(pieces)));
    };
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(small))
}

/// Compress what the server says of itself: a layer for answers that are few and all JSON.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let wanted = wanted(request.headers());
    let response = next.run(request).await;
    match wanted {
        None => response,
        Some(coding) => compressed(response, coding).await,
    }
}

async fn pieces(mut body: Body) -> Result<Vec<Bytes>, axum::Error> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        all.extend(frame?.into_data());
    }
    Ok(all)
}

fn compress(coding: Coding, pieces: &[Bytes]) -> io::Result<Vec<u8>> {
    let size: usize = pieces.iter().map(Bytes::len).sum();
    let out = Vec::with_capacity(size / 2);
    macro_rules! write {
        ($encoder:expr) => {{
            let mut encoder = $encoder;
            for piece in pieces {
                encoder.write_all(piece)?;
            }
            encoder.finish()
        }};
    }
    match coding {
        Coding::Gzip => write!(GzEncoder::new(out, Compression::new(DEFLATE_LEVEL))),
        Coding::Deflate => write!(ZlibEncoder::new(out, Compression::new(DEFLATE_LEVEL))),
        Coding::Zstd => {
            let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
            encoder.set_pledged_src_size(Some(size as u64))?;
            write!(encoder)
        }
    }
}

/// One of the decoders over the whole body.
enum Decoder<'a> {
    Gzip(MultiGzDecoder<&'a [u8]>),
    Deflate(ZlibDecoder<&'a [u8]>),
    Zstd(zstd::Decoder<'static, &'a [u8]>),
}

// === impl Coding, Decoder ===

impl Coding {
    fn parse(name: &str) -> Option<Self> {
        let known = |coding: &Self| name.eq_ignore_ascii_case(coding.name());
        // RFC 9110 wants `x-gzip` taken for `gzip`.
        let old = name.eq_ignore_ascii_case("x-gzip").then_some(Self::Gzip);
        ALL.into_iter().find(known).or(old)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Bytes that its decoder takes beside what it reads and writes.
    fn memory(self) -> u64 {
        match self {
            Self::Zstd => ZSTD_MEMORY,
            Self::Gzip | Self::Deflate => DEFLATE_MEMORY,
        }
    }

    fn decoder(self, body: &[u8]) -> io::Result<Decoder<'_>> {
        Ok(match self {
            Self::Gzip => Decoder::Gzip(MultiGzDecoder::new(body)),
            Self::Deflate => Decoder::Deflate(ZlibDecoder::new(body)),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(body)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Decoder::Zstd(decoder)
            }
        })
    }
}

impl Decoder<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(into),
            Self::Deflate(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }

    /// Bytes of the body that were not looked at: gzip and zstd read all members and frames,
    /// and fail at what is none.
    fn rest(&self) -> usize {
        match self {
            Self::Deflate(decoder) => decoder.get_ref().len(),
            Self::Gzip(_) | Self::Zstd(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests;
