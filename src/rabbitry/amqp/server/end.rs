//! How a session goes, and why it ends; and how a worker does.

use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError},
};

use crate::{amqp::connection::ConnectError, limits::SESSION_OPEN_TIMEOUT};

/// How a worker stopped that was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Stopped {
    /// Everything that was delivered to it is done and acknowledged.
    Finished,
    /// The shutdown time was over before, or the broker or the store failed; what is unfinished is delivered again.
    Unfinished,
}

/// How many deliveries of a queue a worker holds at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Two batches.
    Full,
    /// One, so that a message that kills the session takes no neighbour along.
    OneByOne,
}

/// Why a session ended, and another one like it is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was asked to.
    Shutdown,
    /// It was asked to, and failed before everything in hand was done.
    CutOff,
    /// A message was delivered so often that it may be what kills sessions; or one queue's fault is known to end them.
    Suspect,
    /// Handling messages one by one has gone well for long enough.
    Recovered,
}

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the broker does not serve: {0}")]
    Broker(lapin::Error),
    #[error("lapin cannot read a message: {0}")]
    Poison(lapin::Error),
    #[error("the broker cancelled the consumer of queue {0}; was the queue deleted?")]
    Cancelled(String),
    #[error("the broker does not let queue {queue} be consumed: {reason}")]
    NotServed { queue: String, reason: String },
    #[error("the broker did not open channels and consumers within {SESSION_OPEN_TIMEOUT:?}")]
    NotOpened,
    #[error("the store did not answer for too long")]
    StoreSilent,
    #[error("the broker did not say that it has taken in the last acknowledgements")]
    Unanswered,
    #[error("a task of the session panicked")]
    Panicked,
}

impl From<lapin::Error> for SessionError {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ParsingError(_) => Self::Poison(error),
            // A frame larger than was agreed on: the broker adds headers to what it delivers again.
            ErrorKind::ProtocolError(protocol)
                if *protocol.kind() == AMQPErrorKind::Hard(AMQPHardError::FRAMEERROR) =>
            {
                Self::Poison(error)
            }
            _ => Self::Broker(error),
        }
    }
}

#[cfg(feature = "failpoints")]
impl From<crate::failpoints::Planted> for SessionError {
    fn from(planted: crate::failpoints::Planted) -> Self {
        lapin::Error::from(planted).into()
    }
}
