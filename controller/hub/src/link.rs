//! The hub at the broker: hears all sites, and says what each is to have. It begins anew with each connection: what
//! matters is retained, and what was not sent is still to be said.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Subscribe};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Request};
use rumqttc::{TlsConfiguration, Transport};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use wick_fleet::wire::{Channel, MAX_MESSAGE};

use crate::authority::{CA_FILE, HUB_FILES};
use crate::hub::Input;
use crate::shared::Shared;

/// How often a silent broker is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Messages that the client holds before they are sent. The rest waits in the outbox, where a newer one takes the
/// place of an older one.
const HELD: usize = 16;

/// Messages that the broker has not confirmed yet: more than mosquitto takes by itself. The client keeps room for
/// as many as there may be.
const UNCONFIRMED: u16 = 128;

/// What topic and properties may take beside a message.
const HEADROOM: u32 = 4 << 10;

/// First and longest pause before the next try, and how long a connection must last to have been a good one.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

/// The ports that IANA lists for MQTT, without and with TLS.
const PORTS: (u16, u16) = (1883, 8883);

/// The hub's name at the broker. A second hub with it ends the first one's connection.
const CLIENT: &str = "wick-hub";

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no broker: write mqtts://HOST:PORT, or mqtt://HOST:PORT without TLS")]
pub struct BrokerError(String);

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{}", .path.display())]
    File { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("the certificates in the hub's folder can't be used")]
    Tls(#[from] rustls::Error),
}

/// What is heard from the broker.
#[derive(Debug)]
pub enum Heard {
    Connected,
    Lost(String),
    Message { topic: String, payload: bytes::Bytes },
}

/// Be at the broker until the hub ends.
///
/// # Errors
/// The hub's certificates can't be used.
pub async fn follow(
    broker: &Broker,
    shared: Arc<Shared>,
    inputs: mpsc::Sender<Input>,
) -> Result<(), LinkError> {
    let mut options = MqttOptions::new(CLIENT, broker.host.clone(), broker.port);
    let most = u32::try_from(MAX_MESSAGE).unwrap_or(u32::MAX).saturating_add(HEADROOM);
    options.set_keep_alive(KEEP_ALIVE).set_clean_start(true).set_max_packet_size(Some(most));
    options.set_outgoing_inflight_upper_limit(UNCONFIRMED);
    if broker.tls {
        let config = tls(shared.authority.dir())?;
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(config))));
    }
    let (client, events) = AsyncClient::new(options, HELD);
    tokio::select! {
        () = listen(events, &inputs) => {}
        () = publish(&client, &shared) => {}
    }
    Ok(())
}

/// Hand over what is heard. It never waits for the client, which only goes on while this listens.
async fn listen(mut events: EventLoop, inputs: &mpsc::Sender<Input>) {
    let (mut failures, mut since) = (0_u32, Instant::now());
    loop {
        let heard = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                since = Instant::now();
                let filters = [Channel::Observed, Channel::Presence, Channel::Telemetry];
                let filters =
                    filters.map(|channel| Filter::new(channel.filter(), QoS::AtLeastOnce));
                // Before whatever the client holds already.
                events.pending.push_front(Request::Subscribe(Subscribe::new_many(filters, None)));
                Heard::Connected
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                Heard::Message { topic, payload: publish.payload }
            }
            Ok(_) => continue,
            Err(error) => {
                failures = if since.elapsed() > LONGEST { 1 } else { failures.saturating_add(1) };
                if inputs.send(Input::Link(Heard::Lost(why(&error)))).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause(failures, fastrand::f64())).await;
                continue;
            }
        };
        if inputs.send(Input::Link(heard)).await.is_err() {
            return;
        }
    }
}

async fn publish(client: &AsyncClient, shared: &Shared) {
    loop {
        let site = shared.outbox.next().await;
        let Some((topic, bytes)) = shared.message(&site) else { continue };
        let said =
            client.publish(topic, QoS::AtLeastOnce, Channel::Desired.is_retained(), bytes).await;
        if said.is_err() {
            return;
        }
        shared.counts.published();
    }
}

/// Doubled with each failure, and spread over the second half, so that many don't come back at once.
fn pause(failures: u32, random: f64) -> Duration {
    let full = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST);
    (full / 2).saturating_add((full / 2).mul_f64(random))
}

fn why(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refuses the hub ({code:?}): check its certificate and the ACL")
        }
        other => other.to_string(),
    }
}

fn tls(dir: &Path) -> Result<ClientConfig, LinkError> {
    let bad = |path: &Path| {
        let path = path.to_owned();
        |source| LinkError::File { path, source }
    };
    let mut roots = RootCertStore::empty();
    let ca = dir.join(CA_FILE);
    roots.add(CertificateDer::from_pem_file(&ca).map_err(bad(&ca))?)?;
    let (certificate, key) = (dir.join(HUB_FILES.0), dir.join(HUB_FILES.1));
    let chain = vec![CertificateDer::from_pem_file(&certificate).map_err(bad(&certificate))?];
    let key = PrivateKeyDer::from_pem_file(&key).map_err(bad(&key))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(config.with_client_auth_cert(chain, key)?)
}

// === impl Broker ===

impl FromStr for Broker {
    type Err = BrokerError;

    fn from_str(text: &str) -> Result<Self, BrokerError> {
        let bad = || BrokerError(text.chars().take(80).collect());
        let url: http::Uri = text.parse().map_err(|_| bad())?;
        let tls = match url.scheme_str() {
            Some("mqtt") => false,
            Some("mqtts") => true,
            _ => return Err(bad()),
        };
        let authority = url.authority().ok_or_else(bad)?;
        let plain = !authority.as_str().contains('@')
            && matches!(url.path(), "" | "/")
            && url.query().is_none();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if !plain || host.is_empty() {
            return Err(bad());
        }
        let port = authority.port_u16().unwrap_or(if tls { PORTS.1 } else { PORTS.0 });
        Ok(Self { host, port, tls })
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_a_url_without_a_path() {
        let shown = |text: &str| text.parse::<Broker>().map(|broker| broker.to_string()).ok();
        assert_eq!(shown("mqtts://b").as_deref(), Some("mqtts://b:8883"));
        assert_eq!(shown("mqtt://[::1]:1884/").as_deref(), Some("mqtt://[::1]:1884"));
        for wrong in ["b:1883", "http://b", "mqtt://b/x", "mqtt://u@b", "mqtt://", "mqtt://b?x"] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_spread() {
        assert_eq!(pause(1, 0.0), FIRST / 2);
        assert!(pause(9, 0.99) > pause(9, 0.0));
        assert!(pause(u32::MAX, 1.0) <= LONGEST);
    }
}
