//! What the clients of a run saw.

use std::time::Duration;

/// Since the start of the run, by a clock that never goes back.
pub type Moment = Duration;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    Create { username: String, email: String, points: i64 },
    Get { username: String },
    Award { username: String, points: i64 },
    Promote { username: String },
}

impl Action {
    /// The command, as queues and the inbox call it.
    pub fn command(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Get { .. } => "get",
            Self::Award { .. } => "award",
            Self::Promote { .. } => "promote",
        }
    }

    /// Whom it is about.
    pub fn username(&self) -> &str {
        match self {
            Self::Create { username, .. }
            | Self::Get { username }
            | Self::Award { username, .. }
            | Self::Promote { username } => username,
        }
    }

    /// Whether it can have no effect, so that a repetition reads afresh and no reply is remembered.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. })
    }
}

/// One command of a client, from its first sending to its first reply, over all repetitions.
#[derive(Debug, Clone)]
pub struct Operation {
    pub client: usize,
    /// The message id. Reads have one too, without meaning for the inbox.
    pub id: String,
    pub action: Action,
    /// The first sending.
    pub began: Moment,
    /// How often it was published.
    pub sends: u32,
    /// At least one publish was confirmed by the broker.
    pub confirmed: bool,
    /// Every reply that came, in order; none means that the outcome is unknown.
    pub replies: Vec<Answer>,
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub at: Moment,
    pub status: u16,
    /// The property `type`.
    pub kind: String,
    pub body: Vec<u8>,
    /// The header `replayed`.
    pub replayed: bool,
}

/// All that the clients of a run saw.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    /// Replies whose correlation id nobody asked with.
    pub strays: Vec<String>,
}
