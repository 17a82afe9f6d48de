//! The grammar of topics: `wick/v1/<site>/<channel>`.

use std::fmt;
use std::str::FromStr;

use crate::names::SiteName;
use crate::wire::refusal::{Refusal, shown};

/// The first two levels: whose topics these are, and the version of the grammar.
const PREFIX: &str = "wick";
const VERSION: &str = "v1";

/// What is said on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Desired,
    Observed,
    Presence,
    Telemetry,
}

/// A topic of one site. Filters with wildcards are none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    pub site: SiteName,
    pub channel: Channel,
}

// === impl Channel ===

impl Channel {
    pub const ALL: [Self; 4] = [Self::Desired, Self::Observed, Self::Presence, Self::Telemetry];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Desired => "desired",
            Self::Observed => "observed",
            Self::Presence => "presence",
            Self::Telemetry => "telemetry",
        }
    }

    /// Whether the broker keeps the last message for whoever subscribes later.
    pub fn is_retained(self) -> bool {
        !matches!(self, Self::Telemetry)
    }

    /// What a hub subscribes to, to hear all sites.
    pub fn filter(self) -> String {
        format!("{PREFIX}/{VERSION}/+/{}", self.as_str())
    }
}

// === impl Topic ===

impl Topic {
    pub fn new(site: SiteName, channel: Channel) -> Self {
        Self { site, channel }
    }
}

impl FromStr for Topic {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let foreign = || Refusal::Topic(shown(text));
        let mut levels = text.split('/');
        if levels.next() != Some(PREFIX) {
            return Err(foreign());
        }
        match levels.next() {
            Some(VERSION) => {}
            Some(other) if other.starts_with('v') => {
                return Err(Refusal::TopicVersion(shown(other)));
            }
            _ => return Err(foreign()),
        }
        let site = levels.next().ok_or_else(foreign)?.parse().map_err(|_| foreign())?;
        let channel = levels.next().ok_or_else(foreign)?;
        let channel = Channel::ALL.into_iter().find(|known| known.as_str() == channel);
        match (channel, levels.next()) {
            (Some(channel), None) => Ok(Self { site, channel }),
            _ => Err(foreign()),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}/{VERSION}/{}/{}", self.site, self.channel.as_str())
    }
}
