//! The operator's side of the dead-letter queue: look, send again, drop.
//!
//! Letters are taken without being acknowledged, on a connection of their own: whatever ends it, a clean close, an
//! error or `kill -9`, everything that was not removed goes back to the queue. After a clean close it is also in its
//! order again.

mod letter;
pub mod requeue;

use std::{collections::BTreeSet, future::pending, sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use lapin::{
    Channel, Connection, ErrorKind, Event,
    message::Delivery,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::{Instant, sleep, timeout};

pub use letter::{Filter, Letter};

use super::{
    connection::{BrokerUrl, ConnectError, close, connect, is_access_refused, is_not_found, process_name},
    dead_letters, short,
};

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
        "letter {position} of queue {queue} cannot be read ({reason}); handle those before it, with --limit, and take it out as the first one with another client or the management UI"
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

/// Letters that are taken on one channel. A channel passes 32 acknowledgements on to a quorum queue and keeps the others
/// until these are applied; when it is closed meanwhile, it forgets them, and the letters are back. Tried on RabbitMQ
/// 3.10.8: of 100 letters that were acknowledged 67 came back.
const TRAY: usize = 16;

/// How long letters that were put back may take to be seen in the queue.
const PUT_BACK_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked for them.
const PUT_BACK_POLL: Duration = Duration::from_millis(5);

/// Some of the letters, on a channel of their own.
struct Tray {
    channel: Channel,
    taken: usize,
    held: BTreeSet<u64>,
}

impl Tray {
    /// Opens a channel; also tells how many letters are ready.
    async fn open(connection: &Connection, queue: &str) -> lapin::Result<(Self, u32)> {
        let tray = Self { channel: connection.create_channel().await?, taken: 0, held: BTreeSet::new() };
        let ready = tray.inspect(queue).await?;
        Ok((tray, ready))
    }

    /// Asks the queue how many letters are ready. It has then received whatever the channel sent before.
    async fn inspect(&self, queue: &str) -> lapin::Result<u32> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = self.channel.queue_declare(short(queue), passive, FieldTable::default()).await?;
        Ok(found.message_count())
    }

    /// Puts back what is held, one by one, as a quorum queue takes back in no order what it gets back all at once.
    async fn put_back(&self, queue: &str) -> lapin::Result<()> {
        for tag in &self.held {
            self.channel.basic_nack(*tag, BasicNackOptions { multiple: false, requeue: true }).await?;
        }
        self.inspect(queue).await.map(drop)
    }
}

/// A look into a service's dead-letter queue.
pub struct DeadLetterQueue {
    service: String,
    queue: String,
    connection: Connection,
    events: BoxStream<'static, Event>,
    trays: Vec<Tray>,
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
        let events = connection.events_listener().boxed();
        let queue = dead_letters(service);
        let (tray, depth) = within(patience, "opening the queue", Tray::open(&connection, &queue)).await?;
        Ok(Self {
            service: service.to_owned(),
            queue,
            connection,
            events,
            trays: vec![tray],
            patience,
            depth,
            taken: 0,
        })
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
        if self.trays.last().is_none_or(|tray| tray.taken == TRAY) {
            let opened = Tray::open(&self.connection, &self.queue);
            self.trays.push(within(self.patience, "opening a channel", opened).await?.0);
        }
        let index = self.trays.len() - 1;
        let tray = &mut self.trays[index];
        let get = tray.channel.basic_get(short(&self.queue), BasicGetOptions { no_ack: false });
        // What lapin cannot read ends the connection and leaves the question open.
        let answered = async {
            tokio::select! {
                answer = get => answer,
                error = failure(&mut self.events) => Err(error),
            }
        };
        match timeout(self.patience, answered).await {
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(message))) => {
                let Delivery { delivery_tag: tag, properties, data, .. } = message.delivery;
                self.taken += 1;
                tray.taken += 1;
                tray.held.insert(tag);
                Ok(Some(Letter::read(&self.service, Held { tray: index, tag }, properties, data)))
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
    pub async fn remove(&mut self, Held { tray, tag }: Held) -> Result<(), DeadLetterError> {
        let Some(tray) = self.trays.get_mut(tray).filter(|tray| tray.held.contains(&tag)) else {
            return Err(DeadLetterError::Lost("the letter is not held any more".to_owned()));
        };
        let ack = tray.channel.basic_ack(tag, BasicAckOptions { multiple: false });
        within(self.patience, "removing a letter", ack).await?;
        tray.held.remove(&tag);
        Ok(())
    }

    /// Puts back everything that was not removed.
    ///
    /// # Errors
    /// [`DeadLetterError`] if the broker does not confirm that what was removed is removed.
    pub async fn close(self) -> Result<(), DeadLetterError> {
        let closed = within(self.patience, "putting letters back", self.put_back()).await;
        close(&self.connection).await;
        closed
    }

    async fn put_back(&self) -> lapin::Result<()> {
        let Some(last) = self.trays.last() else { return Ok(()) };
        let held: usize = self.trays.iter().map(|tray| tray.held.len()).sum();
        let expected = u64::from(last.inspect(&self.queue).await?) + u64::try_from(held).unwrap_or(u64::MAX);
        for tray in &self.trays {
            tray.put_back(&self.queue).await?;
        }
        // Received is not yet back: whoever looks next is to find everything, unless somebody else was faster.
        let until = Instant::now() + PUT_BACK_PATIENCE;
        while u64::from(last.inspect(&self.queue).await?) < expected && Instant::now() < until {
            sleep(PUT_BACK_POLL).await;
        }
        Ok(())
    }
}

/// Waits until the connection fails.
async fn failure(events: &mut BoxStream<'static, Event>) -> lapin::Error {
    loop {
        match events.next().await {
            Some(Event::Error(error)) => return error,
            Some(_) => {}
            None => pending().await,
        }
    }
}

/// What it takes to remove a letter from the [`DeadLetterQueue`] that it was taken from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    tray: usize,
    tag: u64,
}
