//! All workers of a service on one store: the broker itself holds which one that is.
//!
//! Each session declares the exchange `<service>.store` with the name of its store as an argument, and binds a queue to
//! it that goes with the session's connection. As long as the exchange is there, the broker refuses to declare it with
//! another argument; it deletes it with its last binding, also when the last worker was killed. Nothing is ever sent
//! through it. (Tried: RabbitMQ 3.10.8.)

use lapin::{
    Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
};
use sha2::{Digest, Sha256};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::end::SessionError;
use crate::{
    amqp::{
        connection::{BrokerUrl, ConnectError, is_access_refused, is_not_found},
        short, store, text,
    },
    backoff::Backoff,
    limits::{CONNECT_TIMEOUT, OTHER_STORE_GRACE},
};

/// The only argument of an exchange that the broker compares. It may name an exchange that does not exist.
const ARGUMENT: &str = "alternate-exchange";
/// Longest name of a store within it, in bytes: the broker refuses with a text of at most 255 bytes that holds two of
/// them.
const NAME_MAX: usize = 44;

/// What a worker knows of the stores of others.
pub(super) struct SameStore {
    broker: String,
    exchange: String,
    name: String,
    other: Mutex<Option<Other>>,
}

/// Another store, which was in use when this worker tried last.
struct Other {
    name: String,
    /// Since when no worker of it is there.
    gone_since: Option<Instant>,
}

impl SameStore {
    pub(super) fn new(service: &str, id: &str, broker: &BrokerUrl) -> Self {
        Self { broker: broker.to_string(), exchange: store(service), name: cut(id), other: Mutex::default() }
    }

    /// Returns once this worker may consume on the connection: `false` if it was asked to stop before.
    pub(super) async fn wait(
        &self,
        connection: &Connection,
        stop: &CancellationToken,
    ) -> Result<bool, SessionError> {
        let mut backoff = Backoff::of_connections();
        let mut waited = false;
        loop {
            let Some(other) = self.hold_in_time(connection).await? else { break };
            if waited {
                debug!(other, "still waiting for the workers of another store to be gone");
            } else {
                waited = true;
                warn!(
                    other,
                    own = self.name,
                    "workers of another store are on this broker, so this one consumes nothing until they are gone: \
                     stop them, or this one (`rabbitry status` shows all of them); --allow-other-stores lets both consume"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = backoff.wait() => {}
            }
        }
        if waited {
            info!("the workers of the other store are gone");
        }
        Ok(true)
    }

    async fn hold_in_time(&self, connection: &Connection) -> Result<Option<String>, SessionError> {
        let broker = self.broker.clone();
        match timeout(CONNECT_TIMEOUT, self.hold(connection)).await {
            Ok(Ok(other)) => Ok(other),
            Ok(Err(error)) if is_access_refused(&error) => {
                let right = &self.exchange;
                let reason =
                    format!("{error}; a worker may configure, write and read what begins with {right}");
                Err(ConnectError::NotPermitted { broker, reason }.into())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                let reason =
                    format!("it does not say within {CONNECT_TIMEOUT:?} which store its workers use");
                Err(ConnectError::Unreachable { broker, reason }.into())
            }
        }
    }

    /// Holds this worker's store for as long as the connection lives, or tells the other store that is in use.
    async fn hold(&self, connection: &Connection) -> lapin::Result<Option<String>> {
        let mut known = self.other.lock().await;
        if let Some(other) = known.as_mut()
            && !self.is_there(connection).await?
            && !other.is_gone_for_good()
        {
            return Ok(Some(other.name.clone()));
        }
        let mut held = self.declare_and_bind(connection).await;
        // The broker deletes the exchange with the last binding, also if somebody has just declared it again.
        while matches!(&held, Err(error) if is_not_found(error)) {
            held = self.declare_and_bind(connection).await;
        }
        match held {
            Ok(()) => *known = None,
            Err(error) if is_precondition_failed(&error) => {
                self.delete_unused(connection).await?;
                let other = Other { name: named_in(&error.to_string()), gone_since: None };
                *known = Some(other);
            }
            Err(error) => return Err(error),
        }
        Ok(known.as_ref().map(|other| other.name.clone()))
    }

    async fn declare_and_bind(&self, connection: &Connection) -> lapin::Result<()> {
        let channel = connection.create_channel().await?;
        // Called after the exchange, so that one right covers both. Not of the virtual host's default type, which may
        // be one that cannot be exclusive.
        let queue = short(&format!("{}.{}", self.exchange, Uuid::now_v7()));
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("classic"));
        channel.queue_declare(queue.clone(), exclusive, arguments).await?;
        let options = ExchangeDeclareOptions {
            durable: true, // a broker that was killed still knows whose turn it is
            auto_delete: true,
            internal: true, // nobody publishes to it
            ..ExchangeDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        arguments.insert(ARGUMENT.into(), text(&format!("{}:{}", self.exchange, self.name)));
        let exchange = short(&self.exchange);
        channel.exchange_declare(exchange.clone(), ExchangeKind::Fanout, options, arguments).await?;
        let options = QueueBindOptions::default();
        channel.queue_bind(queue, exchange, "".into(), options, FieldTable::default()).await?;
        channel.close(200, "done".into()).await
    }

    async fn is_there(&self, connection: &Connection) -> lapin::Result<bool> {
        let channel = connection.create_channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let exchange = short(&self.exchange);
        match channel.exchange_declare(exchange, ExchangeKind::Fanout, passive, FieldTable::default()).await {
            Ok(()) => channel.close(200, "done".into()).await.map(|()| true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes what a worker left that died before it bound its queue, or a broker that was killed. The broker refuses
    /// that while a queue is bound.
    async fn delete_unused(&self, connection: &Connection) -> lapin::Result<()> {
        let channel = connection.create_channel().await?;
        let unused = ExchangeDeleteOptions { if_unused: true, ..ExchangeDeleteOptions::default() };
        match channel.exchange_delete(short(&self.exchange), unused).await {
            Ok(()) => channel.close(200, "done".into()).await,
            Err(error) if is_precondition_failed(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Other {
    /// Workers that have lost their connection, or whose broker was restarted, are given time to come back: a worker
    /// that was started by mistake must not take their place.
    fn is_gone_for_good(&mut self) -> bool {
        self.gone_since.get_or_insert_with(Instant::now).elapsed() >= OTHER_STORE_GRACE
    }
}

/// The end of a store's name, where names differ most, and a hash of all of it.
fn cut(id: &str) -> String {
    if id.len() <= NAME_MAX {
        return id.to_owned();
    }
    let hash: String = Sha256::digest(id).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let start = id.ceil_char_boundary(id.len() - (NAME_MAX - hash.len() - "…#".len()));
    format!("…{}#{hash}", &id[start..])
}

/// The store that the broker names when it refuses: `… received 'users.store:ours' but current is 'users.store:theirs'`.
fn named_in(refusal: &str) -> String {
    let current = refusal.split_once("but current is ").map_or(refusal, |(_, current)| current);
    current.split_once(':').map_or(current, |(_, name)| name).trim_end_matches('\'').to_owned()
}

fn is_precondition_failed(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error)
        if *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_fit_into_a_refusal_and_long_ones_stay_apart() {
        let id = |folder: &str| format!("sqlite:/srv/{folder}/{}/users.db on host", "é".repeat(100));
        let (one, two) = (cut(&id("one")), cut(&id("two")));
        assert_ne!(one, two);
        assert!(one.len() <= NAME_MAX && one.contains("/users.db on host#"), "{one}");
        assert_eq!(cut("sqlite:/srv/users.db on host"), "sqlite:/srv/users.db on host");
        let refusal = format!(
            "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'users.store' in vhost \
             'a-virtual-host': received 'users.store:{one}' but current is 'users.store:{two}'"
        );
        assert!(refusal.len() <= 255, "{}", refusal.len());
        assert_eq!(named_in(&refusal), two);
    }

    #[test]
    fn a_refusal_in_other_words_is_told_whole() {
        assert_eq!(named_in("not today"), "not today");
    }
}
