//! The operator's side of the dead-letter queue: look, send again, drop.
//!
//! Letters are taken without being acknowledged, on a connection of their own: whatever ends it, a clean close, an
//! error or `kill -9`, everything that was not removed goes back to where it was.

mod letter;
pub mod requeue;

use std::{sync::Arc, time::Duration};

use lapin::{
    Channel, Connection, ErrorKind,
    message::Delivery,
    options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::timeout;

pub use letter::{Filter, Letter};

use super::{
    connection::{BrokerUrl, ConnectError, close, connect, is_access_refused, is_not_found, process_name},
    dead_letters, short,
};
use crate::limits::CLOSE_TIMEOUT;

/// Why dead letters cannot be handled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeadLetterError {
    /// No broker, or it refuses the login.
    #[error(transparent)]
    Connect(Arc<ConnectError>),
    /// There is no such queue or exchange.
    #[error("the broker does not have what dead letters need: {0}; `rabbitry topology apply` creates it")]
    Missing(String),
    /// The login lacks a right.
    #[error(
        "the broker does not permit it: {0}; reading takes the right to read the dead-letter queue, requeueing to write to the exchange of the commands"
    )]
    NotPermitted(String),
    /// A letter's properties cannot be read, and end every connection that gets it.
    #[error(
        "letter {position} of queue {queue} cannot be read ({reason}); take it out with another client or the management UI"
    )]
    Unreadable {
        /// The queue.
        queue: String,
        /// Counted from 1.
        position: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection or the channel ended.
    #[error(
        "the broker ended it: {0}; nothing is lost, what was not confirmed is still in the dead-letter queue"
    )]
    Lost(String),
}

impl From<ConnectError> for DeadLetterError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

impl From<lapin::Error> for DeadLetterError {
    fn from(error: lapin::Error) -> Self {
        if is_not_found(&error) {
            Self::Missing(error.to_string())
        } else if is_access_refused(&error) {
            Self::NotPermitted(error.to_string())
        } else {
            Self::Lost(error.to_string())
        }
    }
}

/// Waits for the broker, up to a time.
async fn within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = lapin::Result<T>>,
) -> Result<T, DeadLetterError> {
    match timeout(limit, future).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(DeadLetterError::Lost(format!("no answer to {what} within {} s", limit.as_secs_f64()))),
    }
}

/// A look into a service's dead-letter queue.
pub struct DeadLetterQueue {
    service: String,
    queue: String,
    connection: Connection,
    channel: Channel,
    patience: Duration,
    depth: u32,
    taken: u32,
}

impl DeadLetterQueue {
    /// Opens a connection for looking. `patience` is how long the broker may take for each step.
    ///
    /// # Errors
    /// [`DeadLetterError`]. Cancel safe.
    pub async fn open(url: &BrokerUrl, service: &str, patience: Duration) -> Result<Self, DeadLetterError> {
        let connection = connect(url, &format!("{service} dead letters {}", process_name())).await?;
        let queue = dead_letters(service);
        let opened = async {
            let channel = connection.create_channel().await?;
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let found = channel.queue_declare(short(&queue), passive, FieldTable::default()).await?;
            Ok((channel, found.message_count()))
        };
        let (channel, depth) = within(patience, "opening the queue", opened).await?;
        Ok(Self { service: service.to_owned(), queue, connection, channel, patience, depth, taken: 0 })
    }

    /// How many letters were waiting when the queue was opened; those that others look at are not among them.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// How many letters were taken.
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// Takes the next letter and holds it. Ends with those that were there at first, so that what is sent again and
    /// fails again is not met a second time.
    ///
    /// # Errors
    /// [`DeadLetterError`]. When cancelled, a letter may be held that nobody sees; it goes back as all others do.
    pub async fn next(&mut self) -> Result<Option<Letter>, DeadLetterError> {
        if self.taken >= self.depth {
            return Ok(None);
        }
        let get = self.channel.basic_get(short(&self.queue), BasicGetOptions { no_ack: false });
        match timeout(self.patience, get).await {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(message))) => {
                self.taken += 1;
                let Delivery { delivery_tag, properties, data, .. } = message.delivery;
                Ok(Some(Letter::read(&self.service, delivery_tag, properties, data)))
            }
            Ok(Err(error)) => Err(match error.kind() {
                ErrorKind::ParsingError(_) => DeadLetterError::Unreadable {
                    queue: self.queue.clone(),
                    position: self.taken + 1,
                    reason: error.to_string(),
                },
                _ => error.into(),
            }),
            Err(_) => Err(DeadLetterError::Lost("no answer to taking a letter".to_owned())),
        }
    }

    /// Removes a letter for good.
    ///
    /// # Errors
    /// [`DeadLetterError`]: it may then be removed or not. The broker has done it when [`Self::close`] succeeds.
    pub async fn remove(&self, letter: Held) -> Result<(), DeadLetterError> {
        let options = BasicAckOptions { multiple: false };
        within(self.patience, "removing a letter", self.channel.basic_ack(letter.0, options)).await
    }

    /// Puts back everything that was not removed.
    ///
    /// # Errors
    /// [`DeadLetterError`] if the broker does not confirm that what was removed is removed.
    pub async fn close(self) -> Result<(), DeadLetterError> {
        let closed = within(CLOSE_TIMEOUT, "closing", self.channel.close(200, "done".into())).await;
        close(&self.connection).await;
        closed
    }
}

/// A letter that is held, without its content.
#[derive(Debug, Clone, Copy)]
pub struct Held(u64);

impl Letter {
    /// What it takes to remove the letter from the [`DeadLetterQueue`] that it was taken from.
    pub fn held(&self) -> Held {
        Held(self.tag)
    }
}
