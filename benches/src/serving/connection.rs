//! One connection of the load generator, the same for all servers: prebuilt bytes out,
//! status and body back.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http::Answer;

use super::channel::Channel;
use super::message;
use super::question::Protocol;

/// Longest wait for one answer: a server that hangs must not hang the benchmark.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where and what to ask.
#[derive(Clone)]
pub struct Target {
    pub addr: SocketAddr,
    pub protocol: Protocol,
    pub request: Bytes,
}

/// An open connection to a target.
pub struct Connection {
    target: Target,
    wire: Wire,
}

enum Wire {
    Http { stream: TcpStream, buffer: Vec<u8> },
    Grpc(Channel),
}

/// What came back. A gRPC status is told as the HTTP status that stands for it.
pub struct Reply {
    pub status: u16,
    pub json_len: Option<usize>,
    pub body: Bytes,
}

// === impl Connection ===

impl Connection {
    pub async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.addr).await.context("connect")?;
        stream.set_nodelay(true)?;
        let wire = match target.protocol {
            Protocol::Json | Protocol::Binary => {
                Wire::Http { stream, buffer: Vec::with_capacity(64 << 10) }
            }
            Protocol::Grpc => Wire::Grpc(Channel::open(stream, &target.addr.to_string())),
        };
        Ok(Self { target: target.clone(), wire })
    }

    /// Send the request and read the whole answer.
    pub async fn ask(&mut self) -> anyhow::Result<Reply> {
        let asked = async {
            match &mut self.wire {
                Wire::Http { stream, buffer } => {
                    ask_http(stream, buffer, &self.target.request).await
                }
                Wire::Grpc(channel) => ask_grpc(channel, &self.target.request).await,
            }
        };
        tokio::time::timeout(TIMEOUT, asked).await.context("no answer in time")?
    }
}

async fn ask_http(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    request: &[u8],
) -> anyhow::Result<Reply> {
    stream.write_all(request).await?;
    buffer.clear();
    loop {
        if let Some(answer) = Answer::parse(buffer)? {
            let Answer { status, json_len, body } = answer;
            return Ok(Reply { status, json_len, body: body.into() });
        }
        ensure!(stream.read_buf(buffer).await? > 0, "the connection was closed");
    }
}

async fn ask_grpc(channel: &mut Channel, request: &[u8]) -> anyhow::Result<Reply> {
    let answer = channel.ask(request).await?;
    let http = answer.status.context("the answer has no HTTP status")?;
    ensure!(http == "200", "the gRPC call got HTTP status {http}");
    let code = answer.grpc_status.context("the gRPC answer has no status")?;
    let status = match code.as_str() {
        "0" => return Ok(Reply { status: 200, json_len: None, body: answer.body.into() }),
        "8" => 429,
        "14" => 503,
        _ => 500,
    };
    let words = answer.grpc_message.unwrap_or_default();
    let body = format!("gRPC status {code}: {words}").into();
    Ok(Reply { status, json_len: None, body })
}

// === impl Reply ===

impl Reply {
    /// Any answer but a right one is an error.
    pub fn right(&self) -> anyhow::Result<()> {
        if self.status == 200 {
            return Ok(());
        }
        let text: String = String::from_utf8_lossy(&self.body).chars().take(500).collect();
        bail!("status {}: {text}", self.status)
    }

    /// The values of the first output.
    pub fn values(&self, protocol: Protocol) -> anyhow::Result<Vec<f32>> {
        self.right()?;
        match protocol {
            Protocol::Grpc => message::first_output(&self.body),
            Protocol::Binary => {
                let at = self.json_len.context("the answer has no binary tensors")?;
                Ok(message::floats(self.body.get(at..).context("the answer is cut off")?))
            }
            Protocol::Json => {
                let answer: Value = serde_json::from_slice(&self.body)?;
                let mut values = Vec::new();
                flatten(&answer["outputs"][0]["data"], &mut values)?;
                Ok(values)
            }
        }
    }
}

/// JSON tensors may be nested.
fn flatten(data: &Value, to: &mut Vec<f32>) -> anyhow::Result<()> {
    if let Some(items) = data.as_array() {
        return items.iter().try_for_each(|item| flatten(item, to));
    }
    to.push(data.as_f64().context("an element is no number")? as f32);
    Ok(())
}
