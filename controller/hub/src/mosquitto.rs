//! The files that make mosquitto the broker of a fleet: each site is known by its certificate, and reaches its own
//! topics alone. Pure.

use std::path::Path;

use wick_fleet::enrol::HUB;
use wick_fleet::wire::{Channel, MAX_MESSAGE};

use crate::authority::{BROKER_CA, LIST_FILE, SERVER_FILES};

/// What topic and properties may take beside a message.
const HEADROOM: usize = 4 << 10;

/// Messages that wait for a site that is away: what is retained is enough.
const QUEUED: usize = 100;

/// `mosquitto.conf`. Everything of a fleet that the broker must not forget is said again when it does.
pub fn config(dir: &Path, acl: &Path, port: u16) -> String {
    let file = |name: &str| dir.join(name).display().to_string();
    let (ca, list) = (file(BROKER_CA), file(LIST_FILE));
    let (certificate, key) = (file(SERVER_FILES.0), file(SERVER_FILES.1));
    let (acl, most) = (acl.display(), MAX_MESSAGE + HEADROOM);
    format!(
        "# Written by `wick hub mosquitto`. Send SIGHUP after a revocation: the list is read again.\n\
         per_listener_settings false\n\
         listener {port}\n\
         cafile {ca}\n\
         certfile {certificate}\n\
         keyfile {key}\n\
         crlfile {list}\n\
         require_certificate true\n\
         use_identity_as_username true\n\
         allow_anonymous false\n\
         acl_file {acl}\n\
         max_packet_size {most}\n\
         max_queued_messages {QUEUED}\n\
         persistence true\n"
    )
}

/// The list of who may read and write what.
pub fn acl() -> String {
    let channel = |channel: Channel| channel.as_str();
    let topic = |name: &str| format!("wick/v1/%u/{name}");
    let mut text =
        format!("# Written by `wick hub mosquitto`.\nuser {HUB}\ntopic readwrite wick/v1/#\n\n");
    text += &format!("pattern read {}\n", topic(channel(Channel::Desired)));
    for told in [Channel::Observed, Channel::Presence, Channel::Telemetry] {
        text += &format!("pattern write {}\n", topic(channel(told)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_reads_what_it_is_to_have_and_writes_the_rest() {
        let expected = "# Written by `wick hub mosquitto`.\n\
                        user hub\n\
                        topic readwrite wick/v1/#\n\
                        \n\
                        pattern read wick/v1/%u/desired\n\
                        pattern write wick/v1/%u/observed\n\
                        pattern write wick/v1/%u/presence\n\
                        pattern write wick/v1/%u/telemetry\n";
        assert_eq!(acl(), expected);
    }
}
