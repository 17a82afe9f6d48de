//! What the host decides about the MQTT front. Reads no file and opens no connection.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::topics::{Group, Prefix};

/// The ports that IANA lists for MQTT, without and with TLS.
const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;

/// Requests in flight of one node by default: enough to fill batches and to hide a broker's
/// round trip, and few enough that a node that dies leaves little for others to wait for.
pub const DEFAULT_IN_FLIGHT: u16 = 64;

/// Most requests in flight. They are searched through for each answer.
pub const MAX_IN_FLIGHT: u16 = 1024;

/// How long a broker keeps a node's session by default: longer than a restart of either
/// takes. Until it ends, a broker may go on to hand a dead node its share of requests.
pub const DEFAULT_SESSION_EXPIRY: Duration = Duration::from_secs(300);

/// Settings of the MQTT front.
#[derive(Debug, Clone)]
pub struct MqttSettings {
    pub broker: BrokerUrl,
    pub login: Option<MqttLogin>,
    pub tls: MqttTls,
    /// What the broker knows the node's session by: stable, and no other client's.
    pub client_id: String,
    pub group: Group,
    pub prefix: Prefix,
    /// Requests that the broker may hand over without their acknowledgement.
    pub in_flight: u16,
    pub session_expiry: Duration,
    /// Most bytes of a request.
    pub max_body: u64,
    /// Most bytes of all requests that are computed together.
    pub max_body_memory: u64,
    /// Time that requests have to finish when the server shuts down.
    pub drain: Duration,
}

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    pub host: String,
    pub port: u16,
    pub tls: bool,
}

/// A user and where the password is: it is read for each connection, so that it can change.
#[derive(Clone)]
pub struct MqttLogin {
    pub username: String,
    pub password: MqttPassword,
}

/// A password's source.
#[derive(Clone)]
pub enum MqttPassword {
    None,
    Text(String),
    /// Without the line end at its end.
    File(PathBuf),
}

/// PEM files for TLS, read for each connection, so that they can be renewed.
#[derive(Debug, Clone, Default)]
pub struct MqttTls {
    /// Whom the broker's certificate must be signed by.
    pub ca: Option<PathBuf>,
    /// The node's certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A URL that names no broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is no broker's URL: {why}")]
pub struct BadBrokerUrl {
    url: String,
    why: &'static str,
}

// === impl BrokerUrl ===

impl FromStr for BrokerUrl {
    type Err = BadBrokerUrl;

    fn from_str(text: &str) -> Result<Self, BadBrokerUrl> {
        // A URL with a password in it must not get into an error, and so into a log.
        let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        let bad = |why| BadBrokerUrl { url: shown.to_owned(), why };
        let url: http::Uri =
            text.parse().map_err(|_| bad("write mqtt://HOST:PORT or mqtts://HOST:PORT"))?;
        let tls = match url.scheme_str() {
            Some("mqtt") => false,
            Some("mqtts") => true,
            _ => return Err(bad("it begins with mqtt:// or, with TLS, mqtts://")),
        };
        let authority = url.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("user and password have flags of their own"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(bad("nothing follows the port"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = match authority.port_u16() {
            _ if authority.as_str() == authority.host() => [PORT, TLS_PORT][usize::from(tls)],
            Some(port) if port > 0 => port,
            _ => return Err(bad("the port is a number from 1 to 65535")),
        };
        if host.is_empty() {
            return Err(bad("it has no host"));
        }
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        let host = &self.host;
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{}", self.port),
            false => write!(f, "{scheme}://{host}:{}", self.port),
        }
    }
}

// === impl MqttLogin ===

impl fmt::Debug for MqttLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttLogin").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_broker() {
        let cases = [
            ("mqtt://broker", "mqtt://broker:1883"),
            ("mqtts://broker/", "mqtts://broker:8883"),
            ("mqtt://127.0.0.1:1884", "mqtt://127.0.0.1:1884"),
            ("mqtt://[::1]:1884", "mqtt://[::1]:1884"),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<BrokerUrl>().unwrap().to_string(), want);
        }
    }

    #[test]
    fn what_is_no_broker_is_refused_and_shows_no_password() {
        let texts = ["", "broker", "broker:1883", "http://broker", "mqtt://", "mqtt://b:0"];
        let more = ["mqtt://b:70000", "mqtt://b/topic", "mqtt://b?x=1"];
        for text in texts.iter().chain(&more) {
            assert!(text.parse::<BrokerUrl>().is_err(), "{text}");
        }
        let error = "mqtt://user:secret@broker".parse::<BrokerUrl>().unwrap_err().to_string();
        assert!(error.contains("flags") && !error.contains("secret"), "{error}");
    }
}
