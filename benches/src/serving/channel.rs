//! A gRPC connection of the load generator: HTTP/2 frames out, frames back, one call at a
//! time. A general client takes as much of the processor as the servers that are measured
//! on the same cores, and would hide what they differ in.
//!
//! It speaks as much of RFC 9113 as a unary call over a connection of its own needs; what
//! else a server may say is an error.

use anyhow::{Context as _, bail, ensure};
use loona_hpack::Decoder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const METHOD: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Window of a stream and of the connection: no answer here waits for an update of it.
const WINDOW: u32 = 8 << 20;

/// What the protocol gives before anything is said of windows, and the largest frame.
const FIRST_WINDOW: i64 = 65_535;
const FRAME: usize = 16_384;

/// Bytes of a frame before its payload.
const HEAD: usize = 9;

/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// Flags of frames.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

/// Settings.
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// A connection, and the call that is on its way.
pub struct Channel {
    stream: TcpStream,
    decoder: Decoder<'static>,
    /// The same for each call.
    headers: Vec<u8>,
    /// Frames that go with the next write.
    out: Vec<u8>,
    buffer: Vec<u8>,
    call: u32,
    /// Bytes that may be sent now, and in a new stream.
    window: i64,
    stream_window: i64,
    /// Bytes that came since the server was told that they were taken.
    taken: usize,
}

/// What a call came to.
#[derive(Default)]
pub struct Answer {
    pub status: Option<String>,
    pub grpc_status: Option<String>,
    pub grpc_message: Option<String>,
    pub body: Vec<u8>,
    done: bool,
}

// === impl Channel ===

impl Channel {
    pub fn open(stream: TcpStream, authority: &str) -> Self {
        let mut out = PREFACE.to_vec();
        let mut settings = Vec::new();
        for (name, value) in [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, WINDOW)] {
            settings.extend(name.to_be_bytes());
            settings.extend(u32::to_be_bytes(value));
        }
        frame(&mut out, SETTINGS, 0, 0, &settings);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        Self {
            stream,
            decoder: Decoder::new(),
            headers: headers(authority),
            out,
            buffer: Vec::with_capacity(64 << 10),
            call: 1,
            window: FIRST_WINDOW,
            stream_window: FIRST_WINDOW,
            taken: 0,
        }
    }

    /// Call once, with the body of a request.
    pub async fn ask(&mut self, body: &[u8]) -> anyhow::Result<Answer> {
        let (size, mut answer) = (i64::try_from(body.len())?, Answer::default());
        ensure!(size <= self.stream_window, "a request of {size} bytes is more than a window");
        while self.window < size {
            self.flush().await?;
            self.read(&mut answer).await?;
        }
        self.window -= size;
        frame(&mut self.out, HEADERS, END_HEADERS, self.call, &self.headers);
        let mut pieces = body.chunks(FRAME).peekable();
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { END_STREAM } else { 0 };
            frame(&mut self.out, DATA, flags, self.call, piece);
        }
        self.flush().await?;
        while !answer.done {
            self.read(&mut answer).await?;
        }
        self.call += 2;
        Ok(answer)
    }

    async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Read something, and take all whole frames of it.
    async fn read(&mut self, answer: &mut Answer) -> anyhow::Result<()> {
        let got = self.stream.read_buf(&mut self.buffer).await?;
        ensure!(got > 0, "the connection was closed");
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[..];
        while let Some((head, after)) = rest.split_first_chunk::<HEAD>() {
            let [a, b, c, kind, flags, id @ ..] = *head;
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some((payload, after)) = after.split_at_checked(len) else { break };
            self.take(kind, flags, u32::from_be_bytes(id), payload, answer)?;
            rest = after;
        }
        let used = buffer.len() - rest.len();
        self.buffer = buffer;
        self.buffer.drain(..used);
        Ok(())
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        answer: &mut Answer,
    ) -> anyhow::Result<()> {
        let word = |at: usize| -> anyhow::Result<u32> {
            let bytes = payload.get(at..at + 4).context("a frame is too short")?;
            Ok(u32::from_be_bytes(bytes.try_into()?))
        };
        match kind {
            DATA | HEADERS => {
                let other = flags & (PADDED | WITH_PRIORITY) != 0 || id != self.call;
                ensure!(!other, "a frame of type {kind} with flags {flags:#x} of stream {id}");
                answer.done = flags & END_STREAM != 0;
                if kind == DATA {
                    answer.body.extend_from_slice(payload);
                    self.taken(payload.len());
                } else {
                    ensure!(flags & END_HEADERS != 0, "headers of several frames");
                    self.fields(payload, answer)?;
                }
            }
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        let size = u32::from_be_bytes(setting[2..].try_into()?);
                        self.stream_window = size.into();
                    }
                }
                frame(&mut self.out, SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 => frame(&mut self.out, PING, ACK, 0, payload),
            WINDOW_UPDATE if id == 0 => self.window += i64::from(word(0)?),
            PRIORITY | SETTINGS | PING | WINDOW_UPDATE => {}
            _ => bail!("a frame of type {kind} ended the call: {:?}", payload.escape_ascii()),
        }
        Ok(())
    }

    /// Give the connection's window back, rarely.
    fn taken(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.taken > WINDOW as usize / 4 {
            // Far below the 31 bits of the frame.
            frame(&mut self.out, WINDOW_UPDATE, 0, 0, &(self.taken as u32).to_be_bytes());
            self.taken = 0;
        }
    }

    fn fields(&mut self, block: &[u8], answer: &mut Answer) -> anyhow::Result<()> {
        let fields = self.decoder.decode(block);
        let fields = fields.map_err(|error| anyhow::anyhow!("bad headers: {error:?}"))?;
        for (name, value) in fields {
            let place = match &name[..] {
                b":status" => &mut answer.status,
                b"grpc-status" => &mut answer.grpc_status,
                b"grpc-message" => &mut answer.grpc_message,
                _ => continue,
            };
            *place = Some(String::from_utf8_lossy(&value).into_owned());
        }
        Ok(())
    }
}

fn frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    // A payload is at most a frame's, which takes three bytes.
    let [_, len @ ..] = (payload.len() as u32).to_be_bytes();
    to.extend(len);
    to.extend([kind, flags]);
    to.extend(stream.to_be_bytes());
    to.extend_from_slice(payload);
}

/// The headers of a call by RFC 7541, none of which enters a table: so the bytes are the same
/// each time. The first byte of each says where its name is in the static table.
fn headers(authority: &str) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` are whole entries of that table.
    let mut block = vec![0x83, 0x86];
    let mut field = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        // All values here are shorter than the 127 bytes that one byte says.
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    field(&[0x04], METHOD);
    field(&[0x01], authority);
    field(&[0x0f, 0x10], "application/grpc");
    field(b"\x00\x02te", "trailers");
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_are_what_a_decoder_reads() {
        let fields = Decoder::new().decode(&headers("127.0.0.1:1")).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields: Vec<_> = fields.iter().map(|(a, b)| (text(a), text(b))).collect();
        let want = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", METHOD),
            (":authority", "127.0.0.1:1"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        assert_eq!(fields, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
