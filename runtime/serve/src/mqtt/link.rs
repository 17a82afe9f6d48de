//! One connection to the broker: a socket, TLS, and whole MQTT 5 packets in and out.
//!
//! The packets are rumqttc's; its client is not used. It names no identifier for what it
//! publishes, so that an answer's acknowledgement can't be told from another's, and it drops
//! what it has not sent when the broker has forgotten the session.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode,
    Filter, Login, Packet, PingReq, PubAck, RetainForwardRule, Subscribe, Unsubscribe, check,
};
use rumqttc::v5::mqttbytes::{Error as PacketError, QoS};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::flow::{Broker, MAX_ANSWER_PACKET};
use super::settings::{MqttPassword, MqttSettings};

/// Time for each step of a connection: name and socket, TLS, the broker's answer.
const STEP: Duration = Duration::from_secs(10);

/// Time in which the broker must take what is written. It stores and forwards; one that takes
/// longer is not there.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a silent broker is asked whether it is there.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What properties and the topic of a request may take beside its payload.
const HEADROOM: u64 = 64 << 10;

/// Largest packet that MQTT can name.
const MAX_PACKET: u32 = 268_435_460;

/// What is read from the socket at once.
const READ: usize = 64 << 10;

/// Answers in flight that a broker takes if it says nothing.
const RECEIVE_MAXIMUM: u16 = u16::MAX;

/// The link's own packets, apart from those of answers.
const SUBSCRIBE: u16 = MAX_ANSWER_PACKET + 1;
const UNSUBSCRIBE: u16 = MAX_ANSWER_PACKET + 2;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that the broker has accepted.
pub struct Link {
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: BytesMut,
    max_packet: u32,
    broker: Broker,
    /// As the broker wants it.
    pub keep_alive: Duration,
}

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("it can't be reached: {0}")]
    Reach(io::Error),
    #[error("no answer within {STEP:?}")]
    Silent,
    #[error("TLS: {0}")]
    Tls(String),
    #[error(
        "user `{user}` is refused ({code:?}): check --mqtt-username and the password \
         (--mqtt-password-file or WICK_MQTT_PASSWORD), or the certificate"
    )]
    Login { user: String, code: ConnectReturnCode },
    #[error("the connection is refused: {0:?}")]
    Refused(ConnectReturnCode),
    #[error("the broker lacks what wick needs: {0}")]
    Lacks(&'static str),
    #[error("subscriptions are refused ({0}): let this user read the topics of requests")]
    Subscriptions(String),
    #[error("another client has this one's name: give each node its own with --mqtt-client-id")]
    TakenOver,
    #[error("the broker ends the connection: {0}")]
    Ended(String),
    #[error("the connection broke off")]
    Broken(#[source] io::Error),
    #[error("the broker sent what is no MQTT 5: {0}")]
    Protocol(String),
    #[error(transparent)]
    Overrun(#[from] super::flow::Overrun),
}

// === impl Link ===

impl Link {
    /// Connect, and be accepted.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn connect(settings: &MqttSettings) -> Result<Self, LinkError> {
        let url = &settings.broker;
        let connecting = TcpStream::connect((url.host.as_str(), url.port));
        let socket = step(connecting).await?.map_err(LinkError::Reach)?;
        // Without it, small answers wait for the acknowledgement of the last.
        socket.set_nodelay(true).map_err(LinkError::Reach)?;
        let stream: Box<dyn Stream> = if url.tls {
            let config = tls(settings)?;
            let name = ServerName::try_from(url.host.clone());
            let name = name.map_err(|error| LinkError::Tls(error.to_string()))?;
            let handshake = TlsConnector::from(Arc::new(config)).connect(name, socket);
            let done = step(handshake).await?;
            Box::new(done.map_err(|error| LinkError::Tls(error.to_string()))?)
        } else {
            Box::new(socket)
        };
        let max_packet = settings.max_body.saturating_add(HEADROOM);
        let max_packet = u32::try_from(max_packet).unwrap_or(MAX_PACKET).min(MAX_PACKET);
        let broker = Broker { session: false, receive_maximum: 0, packet: MAX_PACKET as usize };
        let (input, output) = (BytesMut::new(), BytesMut::new());
        let keep_alive = KEEP_ALIVE;
        let mut link = Self { stream, input, output, max_packet, broker, keep_alive };
        let login = login(settings)?;
        let user = login.as_ref().map(|login| login.username.clone());
        link.put(&Packet::Connect(connect(settings, max_packet), None, login))?;
        link.flush().await?;
        match step(link.read()).await?? {
            Packet::ConnAck(ack) => link.accepted(&ack, user)?,
            other => return Err(LinkError::Protocol(format!("not CONNACK, but {other:?}"))),
        }
        Ok(link)
    }

    /// What the broker takes.
    pub fn broker(&self) -> Broker {
        self.broker
    }

    /// The next packet. Dropped before its end, it loses nothing.
    ///
    /// # Errors
    /// The connection is over, or the broker sends nonsense.
    pub async fn read(&mut self) -> Result<Packet, LinkError> {
        loop {
            match check(self.input.iter(), Some(self.max_packet)) {
                Ok(_) => {
                    let packet = Packet::read(&mut self.input, Some(self.max_packet));
                    return packet.map_err(|error| LinkError::Protocol(error.to_string()));
                }
                Err(PacketError::InsufficientBytes(_)) => {}
                Err(error) => return Err(LinkError::Protocol(error.to_string())),
            }
            self.input.reserve(READ);
            let read = self.stream.read_buf(&mut self.input).await;
            if read.map_err(LinkError::Broken)? == 0 {
                return Err(LinkError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Add a packet to what [`Link::flush`] sends.
    ///
    /// # Errors
    /// It can't be written, which those of this crate always can.
    pub fn put(&mut self, packet: &Packet) -> Result<(), LinkError> {
        let written = packet.write(&mut self.output, None);
        written.map(drop).map_err(|error| LinkError::Protocol(error.to_string()))
    }

    /// # Errors
    /// The connection is over, or the broker takes too long.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        if self.output.is_empty() {
            return Ok(());
        }
        let write = async {
            self.stream.write_all_buf(&mut self.output).await?;
            self.stream.flush().await
        };
        let written = tokio::time::timeout(WRITE_TIMEOUT, write).await;
        written.map_err(|_| LinkError::Silent)?.map_err(LinkError::Broken)
    }

    /// Acknowledge a request.
    ///
    /// # Errors
    /// See [`Link::put`].
    pub fn acknowledge(&mut self, packet: u16) -> Result<(), LinkError> {
        self.put(&Packet::PubAck(PubAck::new(packet, None)))
    }

    /// # Errors
    /// See [`Link::put`].
    pub fn subscribe(&mut self, filters: &[String]) -> Result<(), LinkError> {
        let filters = filters.iter().map(|path| Filter {
            path: path.clone(),
            qos: QoS::AtLeastOnce,
            retain_forward_rule: RetainForwardRule::Never,
            ..Filter::default()
        });
        let mut subscribe = Subscribe::new_many(filters, None);
        subscribe.pkid = SUBSCRIBE;
        self.put(&Packet::Subscribe(subscribe))
    }

    /// # Errors
    /// See [`Link::put`].
    pub fn unsubscribe(&mut self, filters: &[String]) -> Result<(), LinkError> {
        let filters = filters.to_vec();
        self.put(&Packet::Unsubscribe(Unsubscribe { pkid: UNSUBSCRIBE, filters, properties: None }))
    }

    /// # Errors
    /// See [`Link::put`].
    pub fn ping(&mut self) -> Result<(), LinkError> {
        self.put(&Packet::PingReq(PingReq))
    }

    /// Say goodbye. The session is kept.
    pub async fn disconnect(mut self) {
        let goodbye = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
        // The broker notices a lost connection as well.
        let _ = self.put(&Packet::Disconnect(goodbye));
        let _ = self.flush().await;
        let _ = tokio::time::timeout(STEP, self.stream.shutdown()).await;
    }

    fn accepted(&mut self, ack: &ConnAck, user: Option<String>) -> Result<(), LinkError> {
        match (ack.code, user) {
            (ConnectReturnCode::Success, _) => {}
            (
                code @ (ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized),
                user,
            ) => {
                let user = user.unwrap_or_else(|| "(none)".to_owned());
                return Err(LinkError::Login { user, code });
            }
            (code, _) => return Err(LinkError::Refused(code)),
        }
        let properties = ack.properties.as_ref();
        if properties.and_then(|has| has.shared_subscription_available) == Some(0) {
            return Err(LinkError::Lacks("shared subscriptions"));
        }
        if properties.and_then(|has| has.max_qos) == Some(0) {
            return Err(LinkError::Lacks("QoS 1"));
        }
        let receive_maximum = properties.and_then(|has| has.receive_max);
        let packet = properties.and_then(|has| has.max_packet_size);
        self.broker = Broker {
            session: ack.session_present,
            receive_maximum: receive_maximum.unwrap_or(RECEIVE_MAXIMUM).max(1).into(),
            packet: packet.unwrap_or(MAX_PACKET) as usize,
        };
        if let Some(seconds) = properties.and_then(|has| has.server_keep_alive)
            && seconds > 0
        {
            self.keep_alive = KEEP_ALIVE.min(Duration::from_secs(seconds.into()));
        }
        Ok(())
    }
}

async fn step<T>(future: impl Future<Output = T>) -> Result<T, LinkError> {
    tokio::time::timeout(STEP, future).await.map_err(|_| LinkError::Silent)
}

fn connect(settings: &MqttSettings, max_packet: u32) -> Connect {
    let expiry = u32::try_from(settings.session_expiry.as_secs()).unwrap_or(u32::MAX);
    let properties = ConnectProperties {
        session_expiry_interval: Some(expiry),
        receive_maximum: Some(settings.in_flight.max(1)),
        max_packet_size: Some(max_packet),
        ..ConnectProperties::default()
    };
    Connect {
        // The broker gives up after one and a half of it.
        keep_alive: u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX),
        client_id: settings.client_id.clone(),
        clean_start: false,
        properties: Some(properties),
    }
}

fn login(settings: &MqttSettings) -> Result<Option<Login>, LinkError> {
    let Some(login) = &settings.login else { return Ok(None) };
    let password = match &login.password {
        MqttPassword::None => String::new(),
        MqttPassword::Text(text) => text.clone(),
        MqttPassword::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let text = format!("read the password in {}: {error}", path.display());
                LinkError::Reach(io::Error::new(error.kind(), text))
            })?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    Ok(Some(Login { username: login.username.clone(), password }))
}

fn tls(settings: &MqttSettings) -> Result<ClientConfig, LinkError> {
    let failed = |what: &dyn std::fmt::Display, error: &dyn std::fmt::Display| {
        LinkError::Tls(format!("{what}: {error}"))
    };
    let ca = settings.tls.ca.as_ref();
    let ca = ca.ok_or_else(|| LinkError::Tls("mqtts:// needs --mqtt-ca".to_owned()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| failed(&ca.display(), &error))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&"versions", &error))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &settings.tls.client else {
        return Ok(config.with_no_client_auth());
    };
    let private = PrivateKeyDer::from_pem_file(key);
    let private = private.map_err(|error| failed(&key.display(), &error))?;
    let config = config.with_client_auth_cert(certificates(certificate)?, private);
    config.map_err(|error| failed(&certificate.display(), &error))
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let failed =
        |error: &dyn std::fmt::Display| LinkError::Tls(format!("{}: {error}", path.display()));
    let read = CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
    let read = read.collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
    if read.is_empty() {
        return Err(failed(&"it has no certificate"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A connection on which the broker has sent these bytes, and ended it.
    fn link(bytes: &[u8]) -> Link {
        Link {
            stream: Box::new(tokio::io::join(io::Cursor::new(bytes.to_vec()), Vec::new())),
            input: BytesMut::new(),
            output: BytesMut::new(),
            max_packet: 1000,
            broker: Broker { session: false, receive_maximum: 1, packet: 1000 },
            keep_alive: KEEP_ALIVE,
        }
    }

    /// Packets until there are no more, and why not.
    fn read_all(bytes: &[u8]) -> (usize, LinkError) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut link = link(bytes);
        let mut packets = 0;
        loop {
            match runtime.block_on(link.read()) {
                Ok(_) => packets += 1,
                Err(error) => return (packets, error),
            }
        }
    }

    #[test]
    fn packets_are_read_whole_and_in_order() {
        // PINGRESP twice, then a half PUBACK.
        let (packets, error) = read_all(&[0xd0, 0, 0xd0, 0, 0x40, 2, 0]);
        assert_eq!(packets, 2);
        assert!(matches!(error, LinkError::Broken(_)), "{error}");
    }

    #[test]
    fn a_packet_past_the_limit_is_refused_before_it_is_read() {
        let (_, error) = read_all(&[0x30, 0xff, 0xff, 0x03]);
        assert!(matches!(error, LinkError::Protocol(_)), "{error}");
    }

    #[test]
    fn a_packet_that_contradicts_itself_is_no_reason_to_wait() {
        // A PUBLISH whose properties end in the middle of a length.
        let (_, error) = read_all(&[0x30, 4, 0, 1, b't', 0x80, 0xd0, 0]);
        assert!(matches!(error, LinkError::Protocol(_)), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_broker_panic(
            packets in proptest::collection::vec(
                (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 1..5,
            ),
        ) {
            let mut bytes = Vec::new();
            for (kind, rest) in packets {
                bytes.push(kind);
                bytes.push(u8::try_from(rest.len()).unwrap());
                bytes.extend(rest);
            }
            let (_, error) = read_all(&bytes);
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
