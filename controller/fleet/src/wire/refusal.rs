//! Why a message was refused. Each reason has a code that stays the same: it is reported.

use crate::model::ModelsError;
use crate::names::Generation;

/// Longest text of somebody else's that is repeated in a reason.
const SHOWN: usize = 80;

/// A message that is not believed or not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("`{0}` is no topic of a fleet: they are `wick/v1/<site>/<channel>`")]
    Topic(String),
    #[error("topics of version `{0}` are not known here: update this side")]
    TopicVersion(String),
    #[error("messages of version {0} are not known here: update this side")]
    Version(u64),
    #[error("a message has {size} bytes, and at most {most} are read")]
    Long { size: usize, most: usize },
    #[error("it is no message: {0}")]
    Malformed(String),
    #[error("it is for `{0}`, and was sent to another topic")]
    OtherTopic(String),
    #[error("the key {0} is not trusted: send the changes of keys that lead to it")]
    Key(String),
    #[error("the signature is not the key's")]
    Signature,
    #[error("a change of keys doesn't hold: {0}")]
    Keys(&'static str),
    #[error("generation {got} is older than {have}, which this site has seen")]
    Older { got: Generation, have: Generation },
    #[error("generation {0} was something else before: two hubs, or one that lost its memory")]
    Conflict(Generation),
    #[error("no site can have these models: {0}")]
    Models(#[from] ModelsError),
}

/// Text of somebody else's, short and without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

// === impl Refusal ===

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Topic(_) => "topic",
            Self::TopicVersion(_) | Self::Version(_) => "version",
            Self::Long { .. } => "long",
            Self::Malformed(_) => "malformed",
            Self::OtherTopic(_) => "other-topic",
            Self::Key(_) => "key",
            Self::Signature => "signature",
            Self::Keys(_) => "keys",
            Self::Older { .. } => "older",
            Self::Conflict(_) => "conflict",
            Self::Models(_) => "models",
        }
    }
}
