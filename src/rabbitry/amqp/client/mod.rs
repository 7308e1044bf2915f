//! The producer's side: commands with their replies, sent again with the same id until the outcome is known.

mod link;

use std::{collections::HashSet, sync::Arc, time::Duration};

use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};
use serde::Deserialize;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    connection::{BrokerUrl, ConnectError, is_access_refused, is_not_found, pool},
    envelope::{header, integer},
    exchange, queue, reply_to, short,
};
use crate::{
    backoff::Backoff,
    clock::{unix_ms, unix_seconds},
    limits::{ARRAY_BYTES_MAX, RESEND_AFTER, RESEND_AFTER_MAX},
};
use link::{Event, Heard, Link, Outgoing};

/// A producer of one service's commands. Clones share the connection, which is closed with the last of them.
#[derive(Clone)]
pub struct Client {
    service: Arc<str>,
    link: watch::Receiver<Result<Link, Arc<ConnectError>>>,
    stop: CancellationToken,
}

/// One command.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its name: the routing key.
    pub name: String,
    /// Its payload: JSON.
    pub body: Vec<u8>,
    /// Its idempotency key.
    pub message_id: String,
}

impl Command {
    /// A command with a fresh, time-ordered id.
    pub fn new(name: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), body: body.into(), message_id: new_id() }
    }
}

/// A fresh message id: `UUIDv7`, whose order in time halves what the inbox costs.
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// A worker's answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP-like status; 400 and above carry a problem.
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
    /// Whether it was given before and repeated from the inbox.
    pub replayed: bool,
}

/// The members of a problem that a caller acts on.
#[derive(Debug, Clone, Deserialize)]
pub struct ProblemAnswer {
    /// The stable code.
    pub code: String,
    /// What happened, for a person.
    pub detail: String,
    /// Whether trying again may help.
    pub retryable: bool,
}

impl Answer {
    fn read(delivery: Delivery) -> Self {
        let header = |name| header(&delivery.properties, name);
        let status = header("status").and_then(integer).and_then(|status| u16::try_from(status).ok());
        let replayed = matches!(header("replayed"), Some(AMQPValue::Boolean(true)));
        Self { status: status.unwrap_or(200), replayed, body: delivery.data }
    }

    /// The problem, if it is one.
    pub fn problem(&self) -> Option<ProblemAnswer> {
        if self.status < 400 { None } else { serde_json::from_slice(&self.body).ok() }
    }
}

/// Why a command has no answer. All but [`CallError::Timeout`] say that it was not executed and will not be.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No broker, or it refuses the login.
    #[error(transparent)]
    Connect(#[from] Arc<ConnectError>),
    /// No worker would take it, and a broker may close the channel over it, at the cost of all that is under way there.
    #[error("the command {0} was not sent: it has more than the {ARRAY_BYTES_MAX} bytes that workers take")]
    TooLarge(String),
    /// The message went nowhere.
    #[error("no queue takes {0} commands; is the topology there? (`rabbitry topology apply` creates it)")]
    Unroutable(String),
    /// The login lacks a right.
    #[error("the broker does not permit it: {0}")]
    NotPermitted(String),
    /// The broker refuses the message: the queue is full.
    #[error("the broker refused the command {0} again and again: its queue is full; try again later")]
    Refused(String),
    /// The outcome is not known: some try may have been taken, whatever became of the others.
    #[error("no {what} within {} s", (.waited.as_secs_f64() * 10.0).round() / 10.0)]
    Timeout {
        /// What did not come: a confirm, or a reply.
        what: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl Client {
    /// Connects; the connection is opened again, for ever, whenever it is lost, until one clone is closed or the last
    /// one dropped.
    ///
    /// # Errors
    /// [`ConnectError`] if the first connection cannot be opened.
    pub async fn connect(url: BrokerUrl, service: &str, name: &str) -> Result<Self, Arc<ConnectError>> {
        let pool = pool(&url, name);
        let stop = CancellationToken::new();
        let first = Link::open(&pool, &url).await?;
        let (sender, link) = watch::channel(Ok(first.clone()));
        tokio::spawn(link::keep_open(pool, url, first, sender, stop.clone()));
        Ok(Self { service: service.into(), link, stop })
    }

    /// Sends a command and waits for its answer; whatever is lost meanwhile (connection, confirm, reply) is sent
    /// again with the same id. The command carries the timeout as its deadline, so that it is not executed later.
    ///
    /// # Errors
    /// [`CallError`]. Cancel safe in that the same id may be sent again.
    pub async fn call(&self, command: &Command, timeout: Duration) -> Result<Answer, CallError> {
        let deadline_ms = unix_ms().saturating_add(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
        let mut headers = FieldTable::default();
        headers.insert("deadline".into(), AMQPValue::LongLongInt(deadline_ms));
        let properties =
            self.properties(command).with_headers(headers).with_reply_to(reply_to::DIRECT.into());
        match self.exchange(command, &properties, timeout, true).await? {
            Some(delivery) => Ok(Answer::read(delivery)),
            None => Err(CallError::Timeout { what: "reply", waited: timeout }),
        }
    }

    /// Sends a command and returns when the broker has it safe. No reply is asked for.
    ///
    /// # Errors
    /// [`CallError`]. Cancel safe in that the same id may be sent again.
    pub async fn send(&self, command: &Command, timeout: Duration) -> Result<(), CallError> {
        let properties = self.properties(command);
        self.exchange(command, &properties, timeout, false).await.map(drop)
    }

    /// How many workers consume a command; `None` if the broker does not say.
    ///
    /// # Errors
    /// [`CallError::Unroutable`] if the command has no queue.
    pub async fn consumers(&self, command: &str) -> Result<Option<u32>, CallError> {
        let Ok(link) = self.link.borrow().clone() else { return Ok(None) };
        match link.inspect(&queue(&self.service, command)).await {
            Ok(found) => Ok(Some(found.consumer_count())),
            Err(error) if is_not_found(&error) => Err(CallError::Unroutable(command.to_owned())),
            Err(_) => Ok(None),
        }
    }

    /// Closes the connection, of all clones, and waits until it is closed.
    pub async fn close(self) {
        self.stop.cancel();
        let mut link = self.link;
        // The task drops the sender when it is done.
        while link.changed().await.is_ok() {}
    }

    fn properties(&self, command: &Command) -> BasicProperties {
        BasicProperties::default()
            .with_content_type("application/json".into())
            .with_type(short(&format!("{}.{}", self.service, command.name)))
            .with_message_id(short(&command.message_id))
            .with_app_id("rabbitry".into())
            .with_timestamp(unix_seconds())
            .with_delivery_mode(2)
    }

    /// Tries until the deadline. Returns the reply, or `None` when the command is confirmed and no reply is wanted.
    async fn exchange(
        &self,
        command: &Command,
        properties: &BasicProperties,
        timeout: Duration,
        wants_reply: bool,
    ) -> Result<Option<Delivery>, CallError> {
        if command.body.len() > ARRAY_BYTES_MAX {
            return Err(CallError::TooLarge(command.name.clone()));
        }
        let deadline = Instant::now() + timeout;
        let mut attempt = Attempt::new(&command.name, deadline, wants_reply);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            let link = self.link_until(deadline).await.map_err(|error| attempt.over(error, timeout))?;
            let outgoing = Outgoing {
                exchange: exchange(&self.service),
                routing_key: command.name.clone(),
                body: command.body.clone(),
                properties: properties.clone(),
                correlation_id: Uuid::now_v7().simple().to_string(),
                events: attempt.events.clone(),
            };
            match attempt.try_once(&link, outgoing).await {
                Outcome::Done(reply) => return Ok(reply.map(|reply| *reply)),
                Outcome::Impossible(error) if attempt.open.is_empty() => return Err(error),
                // The time that was waited is enough.
                Outcome::Silence => continue,
                Outcome::Impossible(_) | Outcome::Refused | Outcome::Lost => {}
            }
            if timeout_at(deadline, backoff.wait()).await.is_err() {
                return Err(attempt.over(None, timeout));
            }
        }
    }

    /// The link, or why there is none at the deadline.
    async fn link_until(&self, deadline: Instant) -> Result<Link, Option<Arc<ConnectError>>> {
        let mut link = self.link.clone();
        loop {
            let error = match &*link.borrow_and_update() {
                Ok(link) if !link.is_lost() => {
                    return if Instant::now() < deadline { Ok(link.clone()) } else { Err(None) };
                }
                Ok(_) => None,
                Err(error) => Some(Arc::clone(error)),
            };
            match timeout_at(deadline, link.changed()).await {
                Ok(Ok(())) => {}
                _ => return Err(error),
            }
        }
    }
}

/// What one publishing came to.
enum Outcome {
    /// Answered, or confirmed if no reply is wanted.
    Done(Option<Box<Delivery>>),
    /// Not taken, until somebody changes something.
    Impossible(CallError),
    /// Not taken now.
    Refused,
    /// The connection was lost.
    Lost,
    /// No reply for a while.
    Silence,
}

/// The tries of one call.
struct Attempt<'a> {
    command: &'a str,
    deadline: Instant,
    wants_reply: bool,
    patience: Duration,
    confirmed: bool,
    refused: bool,
    events: mpsc::UnboundedSender<Heard>,
    heard: mpsc::UnboundedReceiver<Heard>,
    /// A reply to an earlier try may still come, so tries are forgotten only when the call is over.
    tries: Vec<(Link, String)>,
    /// The tries that the broker may have taken: as long as there is one, no refusal of another tells the outcome.
    open: HashSet<String>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        for (link, correlation_id) in &self.tries {
            link.forget(correlation_id);
        }
    }
}

impl<'a> Attempt<'a> {
    fn new(command: &'a str, deadline: Instant, wants_reply: bool) -> Self {
        let (events, heard) = mpsc::unbounded_channel();
        Self {
            command,
            deadline,
            wants_reply,
            patience: RESEND_AFTER,
            confirmed: false,
            refused: false,
            events,
            heard,
            tries: Vec::new(),
            open: HashSet::new(),
        }
    }

    /// Publishes once and waits. The events of earlier tries are heard too: the first reply wins.
    async fn try_once(&mut self, link: &Link, outgoing: Outgoing) -> Outcome {
        let id = outgoing.correlation_id.clone();
        self.tries.push((link.clone(), id.clone()));
        // What was begun may be on its way, however it ends here.
        self.open.insert(id.clone());
        let until = self.deadline.min(Instant::now() + self.patience);
        // A broker that blocks publishers lets the queue before the publisher grow full.
        match timeout_at(until, link.publish(outgoing)).await {
            Ok(true) => {}
            Ok(false) => return Outcome::Lost,
            Err(_) => return self.silence(),
        }
        loop {
            let heard = tokio::select! {
                biased;
                heard = self.heard.recv() => heard,
                () = link.lost() => return self.lost(link, &id),
                () = sleep_until(until) => return self.silence(),
            };
            let Some((id, event)) = heard else { return Outcome::Lost };
            match event {
                Event::Reply(reply) => return Outcome::Done(Some(reply)),
                Event::Confirmed => {
                    self.confirmed = true;
                    if !self.wants_reply {
                        return Outcome::Done(None);
                    }
                }
                Event::Returned => {
                    return self.impossible(&id, CallError::Unroutable(self.command.to_owned()));
                }
                Event::Refused => {
                    self.open.remove(&id);
                    self.refused = true;
                    return Outcome::Refused;
                }
            }
        }
    }

    /// A broker that is slow is not helped by more of the same.
    fn silence(&mut self) -> Outcome {
        self.patience = RESEND_AFTER_MAX.min(self.patience * 2);
        Outcome::Silence
    }

    fn lost(&mut self, link: &Link, id: &str) -> Outcome {
        match link.refusal() {
            Some(error) if is_access_refused(&error) => {
                self.impossible(id, CallError::NotPermitted(error.to_string()))
            }
            Some(error) if is_not_found(&error) => {
                self.impossible(id, CallError::Unroutable(self.command.to_owned()))
            }
            _ => Outcome::Lost,
        }
    }

    fn impossible(&mut self, id: &str, error: CallError) -> Outcome {
        self.open.remove(id);
        Outcome::Impossible(error)
    }

    /// Why there is no answer at the deadline.
    fn over(&self, error: Option<Arc<ConnectError>>, waited: Duration) -> CallError {
        match error {
            Some(error) if self.open.is_empty() => CallError::Connect(error),
            None if self.open.is_empty() && self.refused => CallError::Refused(self.command.to_owned()),
            _ => CallError::Timeout { what: if self.confirmed { "reply" } else { "confirm" }, waited },
        }
    }
}
