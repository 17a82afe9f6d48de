//! Flags of the MQTT front become its settings. The password has no flag: flags are seen by
//! every user of the machine.

use std::path::PathBuf;
use std::time::Duration;

use wick_serve::ServeSettings;
use wick_serve::mqtt::{
    BrokerUrl, DEFAULT_IN_FLIGHT, DEFAULT_SESSION_EXPIRY, Group, MAX_IN_FLIGHT, MqttLogin,
    MqttPassword, MqttSettings, MqttTls, Prefix,
};

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::quantity;

/// Where Linux tells the machine's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// A password for those who have no file for it.
const PASSWORD: &str = "WICK_MQTT_PASSWORD";

/// Flags of the MQTT front.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "MQTT")]
pub struct MqttArgs {
    /// Also answer requests that come over this broker: mqtt://HOST:PORT, or mqtts:// with TLS
    #[arg(long = "mqtt", value_name = "URL", env = "WICK_MQTT")]
    url: Option<BrokerUrl>,
    /// The user's name at the broker; the password is in --mqtt-password-file or WICK_MQTT_PASSWORD
    #[arg(long = "mqtt-username", value_name = "NAME", requires = "url")]
    username: Option<String>,
    /// A file that holds the password and nothing else
    #[arg(long = "mqtt-password-file", value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// PEM file of who signs the broker's certificate
    #[arg(long = "mqtt-ca", value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// PEM file of this node's certificate
    #[arg(long = "mqtt-cert", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file of the certificate's key
    #[arg(long = "mqtt-key", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// This node's name at the broker, which no other may have [default: wick-HOSTNAME]
    #[arg(long = "mqtt-client-id", value_name = "NAME", requires = "url")]
    client_id: Option<String>,
    /// Nodes of one group share the requests
    #[arg(long = "mqtt-group", value_name = "NAME", default_value = "wick")]
    group: Group,
    /// What the topics of requests begin with: PREFIX/MODEL
    #[arg(long = "mqtt-prefix", value_name = "TOPIC", default_value = "wick/v1/infer")]
    prefix: Prefix,
    /// Requests that the broker may hand over before the first is answered
    #[arg(long = "mqtt-in-flight", value_name = "NUMBER", default_value_t = DEFAULT_IN_FLIGHT,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_IN_FLIGHT)))]
    in_flight: u16,
    /// How long the broker keeps this node's requests while it is away [default: 5m]
    #[arg(long = "mqtt-session-expiry", value_name = "TIME", value_parser = quantity::duration)]
    session_expiry: Option<Duration>,
}

// === impl MqttArgs ===

impl MqttArgs {
    /// The front's settings, if there is to be one.
    ///
    /// # Errors
    /// Flags contradict each other, or a file is not there.
    pub fn settings(
        &self,
        serve: &ServeSettings,
        env: impl Fn(&str) -> Option<String>,
    ) -> Outcome<Option<MqttSettings>> {
        let Some(broker) = self.url.clone() else { return Ok(None) };
        if broker.tls && self.ca.is_none() {
            return Err(Failure::usage("mqtts:// needs --mqtt-ca").help(
                "name the CA that signs the broker's certificate; the system's are in \
                 /etc/ssl/certs/ca-certificates.crt on Debian",
            ));
        }
        if !broker.tls && (self.ca.is_some() || self.cert.is_some()) {
            return Err(Failure::usage("--mqtt-ca and --mqtt-cert are for mqtts://"));
        }
        for file in [&self.password_file, &self.ca, &self.cert, &self.key].into_iter().flatten() {
            if !file.is_file() {
                let text = format!("{} is not a file", file.display());
                return Err(Failure::new(Exit::NotFound, "not-found", text));
            }
        }
        let password = match (self.password_file.clone(), env(PASSWORD)) {
            (Some(path), _) => MqttPassword::File(path),
            (None, Some(text)) => MqttPassword::Text(text),
            (None, None) => MqttPassword::None,
        };
        let username = self.username.clone();
        Ok(Some(MqttSettings {
            broker,
            login: username.map(|username| MqttLogin { username, password }),
            tls: MqttTls { ca: self.ca.clone(), client: self.cert.clone().zip(self.key.clone()) },
            client_id: self.client_id()?,
            group: self.group.clone(),
            prefix: self.prefix.clone(),
            in_flight: self.in_flight,
            session_expiry: self.session_expiry.unwrap_or(DEFAULT_SESSION_EXPIRY),
            max_body: serve.max_body,
            max_body_memory: serve.max_body_memory,
            drain: serve.drain,
        }))
    }

    fn client_id(&self) -> Outcome<String> {
        if let Some(id) = self.client_id.as_ref().filter(|id| !id.is_empty()) {
            return Ok(id.clone());
        }
        let name = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
        match name.trim() {
            "" => Err(Failure::usage("this machine has no name: give --mqtt-client-id")),
            name => Ok(format!("wick-{name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        mqtt: MqttArgs,
    }

    fn settings(flags: &[&str]) -> Result<Option<MqttSettings>, String> {
        let line = Line::try_parse_from([&["wick"], flags].concat());
        let line = line.map_err(|error| error.to_string())?;
        let env = |name: &str| (name == PASSWORD).then(|| "secret".to_owned());
        line.mqtt.settings(&ServeSettings::default(), env).map_err(|failure| failure.to_line())
    }

    #[test]
    fn without_a_broker_there_is_no_front() {
        assert!(settings(&[]).unwrap().is_none());
        assert!(settings(&["--mqtt-client-id", "a"]).is_err());
    }

    #[test]
    fn a_client_id_is_stable_and_a_password_comes_from_the_environment() {
        let found = settings(&["--mqtt", "mqtt://b", "--mqtt-username", "u"]).unwrap().unwrap();
        assert!(found.client_id.starts_with("wick-") && found.client_id.len() > 5);
        let password = found.login.unwrap().password;
        assert!(matches!(password, MqttPassword::Text(text) if text == "secret"));
    }

    #[test]
    fn tls_flags_and_the_url_must_agree() {
        let cases: [&[&str]; 6] = [
            &["--mqtt", "mqtts://b"],
            &["--mqtt", "mqtt://b", "--mqtt-ca", "/dev/null"],
            &["--mqtt", "mqtts://b", "--mqtt-ca", "/nothing/here"],
            &["--mqtt", "mqtts://b", "--mqtt-ca", "/dev/null", "--mqtt-cert", "/dev/null"],
            &["--mqtt", "http://b"],
            &["--mqtt", "mqtt://b", "--mqtt-in-flight", "0"],
        ];
        for flags in cases {
            assert!(settings(flags).is_err(), "{flags:?}");
        }
    }
}
