//! One connection's life on the producer's side: a channel, its publisher and its replies.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool_lapin::Pool;
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Consumer, Queue,
    message::Delivery,
    options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    amqp::{
        connection::{BrokerUrl, ConnectError, close, take},
        reply_to, short,
    },
    backoff::Backoff,
    limits::{CONFIRM_WINDOW, CONNECT_TIMEOUT},
};

/// A message to publish, and who wants to hear of it.
pub(super) struct Outgoing {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
    pub(super) correlation_id: String,
    pub(super) events: mpsc::UnboundedSender<Heard>,
}

/// Which message, by its correlation id, and what became of it.
pub(super) type Heard = (String, Event);

/// What became of a message.
#[derive(Debug)]
pub(super) enum Event {
    /// The broker has it safe.
    Confirmed,
    /// No queue takes it.
    Returned,
    /// The broker does not take it now.
    Refused,
    /// It was answered.
    Reply(Box<Delivery>),
}

type Waiting = Arc<Mutex<HashMap<String, mpsc::UnboundedSender<Heard>>>>;

/// A connection with one channel in confirm mode that consumes its direct replies.
#[derive(Clone)]
pub(super) struct Link {
    connection: Arc<Connection>,
    outgoing: mpsc::Sender<Outgoing>,
    waiting: Waiting,
    lost: CancellationToken,
    error: Arc<Mutex<Option<lapin::Error>>>,
    has_published: Arc<AtomicBool>,
}

impl Link {
    /// Opens a link. Cancel safe.
    pub(super) async fn open(pool: &Pool, url: &BrokerUrl) -> Result<Self, Arc<ConnectError>> {
        let connection = take(pool, url).await?;
        let prepared = timeout(CONNECT_TIMEOUT, prepare(&connection)).await;
        let unreachable =
            |reason: String| Arc::new(ConnectError::Unreachable { broker: url.to_string(), reason });
        let (channel, replies) = prepared
            .map_err(|_| unreachable("the broker does not open a channel".to_owned()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let (outgoing, queued) = mpsc::channel(CONFIRM_WINDOW);
        let link = Self {
            connection: Arc::new(connection),
            outgoing,
            waiting: Waiting::default(),
            lost: CancellationToken::new(),
            error: Arc::default(),
            has_published: Arc::default(),
        };
        tokio::spawn(publish_all(channel, queued, link.clone()));
        tokio::spawn(hear_replies(replies, link.clone()));
        Ok(link)
    }

    /// Hands a message to the publisher; `false` if the link is lost.
    pub(super) async fn publish(&self, outgoing: Outgoing) -> bool {
        let id = outgoing.correlation_id.clone();
        locked(&self.waiting).insert(id, outgoing.events.clone());
        self.outgoing.send(outgoing).await.is_ok()
    }

    /// Stops listening for what becomes of a message.
    pub(super) fn forget(&self, correlation_id: &str) {
        locked(&self.waiting).remove(correlation_id);
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// What ended the link, if it is why the broker took none of its messages. One that took some before it refused
    /// another may have taken those in between too.
    pub(super) fn refusal(&self) -> Option<lapin::Error> {
        if self.has_published.load(Ordering::SeqCst) { None } else { locked(&self.error).clone() }
    }

    /// Tells whoever waits what became of messages that the broker has handled.
    fn tell(&self, resolved: Vec<(String, lapin::Result<Confirmation>)>) {
        let mut returned = HashSet::new();
        let mut confirmed = Vec::new();
        let mut waiting = locked(&self.waiting);
        for (id, confirmation) in resolved {
            // The link is lost, which whoever waits is told by the link itself.
            let Ok(confirmation) = confirmation else { continue };
            self.has_published.store(true, Ordering::SeqCst);
            let is_nack = confirmation.is_nack();
            returned.extend(confirmation.take_message().as_ref().and_then(returned_id));
            if is_nack {
                send(waiting.get(&id), id, Event::Refused);
            } else {
                confirmed.push(id);
            }
        }
        for id in &returned {
            // It is confirmed too, perhaps later.
            send(waiting.remove(id).as_ref(), id.clone(), Event::Returned);
        }
        for id in confirmed {
            send(waiting.get(&id), id, Event::Confirmed);
        }
    }

    /// Asks the broker for a queue, on a channel of its own, as the broker closes it if there is none.
    pub(super) async fn inspect(&self, queue: &str) -> lapin::Result<Queue> {
        let channel = self.connection.create_channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(short(queue), passive, FieldTable::default()).await?;
        channel.close(200, "done".into()).await?;
        Ok(found)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn prepare(connection: &Connection) -> lapin::Result<(Channel, Consumer)> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    // Direct replies reach only the channel that publishes the requests (RabbitMQ, "Direct Reply-to").
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let replies = channel
        .basic_consume(reply_to::DIRECT.into(), "replies".into(), options, FieldTable::default())
        .await?;
    Ok((channel, replies))
}

/// Keeps a link open until told to stop, or until nobody looks any more.
pub(super) async fn keep_open(
    pool: Pool,
    url: BrokerUrl,
    first: Link,
    state: watch::Sender<Result<Link, Arc<ConnectError>>>,
    stop: CancellationToken,
) {
    let mut link = first;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let ended = async || {
        tokio::select! {
            () = stop.cancelled() => {}
            () = state.closed() => {}
        }
    };
    loop {
        tokio::select! {
            () = ended() => return close(&link.connection).await,
            () = link.lost() => {}
        }
        link = tokio::select! {
            () = ended() => return,
            link = open_again(&pool, &url, &state, &mut backoff) => link,
        };
    }
}

/// Tries until there is a link. Cancel safe.
async fn open_again(
    pool: &Pool,
    url: &BrokerUrl,
    state: &watch::Sender<Result<Link, Arc<ConnectError>>>,
    backoff: &mut Backoff,
) -> Link {
    loop {
        backoff.wait().await;
        let opened = Link::open(pool, url).await;
        let next = opened.as_ref().ok().cloned();
        drop(state.send_replace(opened));
        if let Some(next) = next {
            return next;
        }
    }
}

async fn hear_replies(mut replies: Consumer, link: Link) {
    while let Some(reply) = replies.next().await {
        match reply {
            Ok(delivery) => {
                let id = delivery.properties.correlation_id().clone().unwrap_or_default();
                let waiting = locked(&link.waiting).remove(id.as_str());
                // Nobody waits any more for an answer that comes a second time, or late.
                if let Some(waiting) = waiting {
                    let _ = waiting.send((id.to_string(), Event::Reply(Box::new(delivery))));
                }
            }
            Err(error) => {
                locked(&link.error).get_or_insert(error);
            }
        }
    }
    link.lost.cancel();
}

/// The one task that publishes on the channel: it pairs messages, confirms and returns.
///
/// lapin hangs a returned message on whichever confirm resolves next, so all that have resolved are looked at
/// together: first the returned messages, by their own correlation id, then the confirms.
async fn publish_all(channel: Channel, mut queued: mpsc::Receiver<Outgoing>, link: Link) {
    let mut in_flight = FuturesUnordered::new();
    loop {
        let first = tokio::select! {
            () = link.lost() => return,
            Some(outgoing) = queued.recv(), if in_flight.len() < CONFIRM_WINDOW => {
                in_flight.push(publish_one(&channel, outgoing));
                continue;
            }
            Some(resolved) = in_flight.next() => resolved,
            else => return,
        };
        let mut resolved = vec![first];
        while let Some(Some(next)) = in_flight.next().now_or_never() {
            resolved.push(next);
        }
        link.tell(resolved);
    }
}

async fn publish_one(channel: &Channel, outgoing: Outgoing) -> (String, lapin::Result<Confirmation>) {
    let Outgoing { exchange, routing_key, body, properties, correlation_id, .. } = outgoing;
    let properties = properties.with_correlation_id(short(&correlation_id));
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publish = channel.basic_publish(short(&exchange), short(&routing_key), options, &body, properties);
    let confirmed = async { publish.await?.await };
    (correlation_id, confirmed.await)
}

fn send(listener: Option<&mpsc::UnboundedSender<Heard>>, id: String, event: Event) {
    // A call that is over has stopped listening.
    if let Some(listener) = listener {
        let _ = listener.send((id, event));
    }
}

fn returned_id(message: &lapin::message::BasicReturnMessage) -> Option<String> {
    message.delivery.properties.correlation_id().as_ref().map(ToString::to_string)
}
