//! The publishing connection of a worker: replies, and dead letters.
//!
//! It lives and dies alone. A broker under a memory or disk alarm stops reading from connections that publish, and a
//! hostile reply address may close this one; neither may hold up acknowledgements, which travel on another.

use std::time::Duration;

use futures::{FutureExt, StreamExt, future::maybe_done};
use lapin::{
    BasicProperties, Channel, Connection, Event,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    connection::{BrokerUrl, close, connect},
    direct::{Nodes, Verdict, try_nodes},
    short,
};
use crate::{
    backoff::Backoff,
    limits::{CLOSE_TIMEOUT, DIRECT_WAITING, REPLY_TIMEOUT},
};

/// A reply on its way to its queue.
#[derive(Debug)]
pub struct OutgoingReply {
    /// The queue.
    pub reply_to: String,
    /// The reply's properties.
    pub properties: BasicProperties,
    /// The reply's body.
    pub body: Vec<u8>,
}

/// What can be published on now.
#[derive(Clone)]
pub(super) struct Link {
    replies: Channel,
    /// A channel of its own, as it is in confirm mode.
    pub(super) dead_letters: Channel,
    blocked: bool,
    /// Cancelled by whoever sees an error, so that the link is made anew.
    pub(super) broken: CancellationToken,
}

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, and it is mostly up")]
enum State {
    Up(Link),
    DownSince(Instant),
}

/// A handle on the publishing connection.
#[derive(Clone)]
pub struct Replies {
    state: watch::Receiver<State>,
    pub(super) nodes: Nodes,
    /// Replies to nodes that are not known yet.
    untried: mpsc::Sender<OutgoingReply>,
}

impl Replies {
    /// Opens the connection and keeps it open, in a task that ends when `stop` is cancelled.
    pub fn start(url: BrokerUrl, name: &str, stop: CancellationToken) -> Self {
        let (sender, state) = watch::channel(State::DownSince(Instant::now()));
        let (untried, mut waiting) = mpsc::channel(DIRECT_WAITING);
        let replies = Self { state, nodes: Nodes::default(), untried };
        let (publishing, trying) = (format!("{name} (replies)"), format!("{name} (trial of a node)"));
        let own = replies.clone();
        tokio::spawn(async move {
            let open_until_tried = CancellationToken::new();
            let tried = async {
                try_nodes(&url, &trying, &mut waiting, &own, &stop).await;
                open_until_tried.cancel();
            };
            tokio::join!(keep_open(&url, &publishing, &sender, &own.nodes, &open_until_tried), tried);
        });
        replies
    }

    /// Publishes replies, all together, and returns when they are written to the socket, or after a short time. The first
    /// direct replies to a node are written later.
    ///
    /// A reply that cannot be written is dropped and counted: its caller asks again with the same id, and gets the
    /// stored reply. Returns how many were dropped. Cancel safe; replies on their way may then be sent or not.
    pub async fn send(&self, replies: Vec<OutgoingReply>) -> usize {
        let all = replies.len();
        let now = std::time::Instant::now();
        let (mut ready, mut dropped) = (Vec::with_capacity(all), 0);
        for reply in replies {
            match self.nodes.judge(&reply.reply_to, now) {
                Verdict::Send => ready.push(reply),
                Verdict::Try if self.untried.send_timeout(reply, REPLY_TIMEOUT).await.is_ok() => {}
                Verdict::Try | Verdict::Drop => dropped += 1,
            }
        }
        dropped + self.publish(&ready).await
    }

    /// Publishes replies wherever they go. Returns how many were dropped.
    pub(super) async fn publish(&self, replies: &[OutgoingReply]) -> usize {
        if replies.is_empty() {
            return 0;
        }
        let Some(link) = self.link().await else { return replies.len() };
        // lapin's future resolves after the socket was written, so one after another would be a write for each. It
        // writes in order: who waits for the last one first is woken once, and finds the others written.
        let mut all: Vec<_> = replies
            .iter()
            .map(|reply| {
                let options = BasicPublishOptions::default();
                let properties = reply.properties.clone();
                let queue = short(&reply.reply_to);
                Box::pin(maybe_done(link.replies.basic_publish(
                    "".into(),
                    queue,
                    options,
                    &reply.body,
                    properties,
                )))
            })
            .collect();
        for published in &mut all {
            let _ = published.now_or_never();
        }
        let written = async {
            for published in all.iter_mut().rev() {
                published.await;
            }
        };
        // What is not written by then is counted below.
        let _ = timeout(REPLY_TIMEOUT, written).await;
        let results = all.iter_mut().map(|published| published.as_mut().take_output());
        let lost = results.filter(|result| !matches!(result, Some(Ok(_)))).count();
        if lost > 0 {
            link.broken.cancel();
        }
        lost
    }

    /// What can be published on: waits a short time for a link that is being made anew, and not at all for one that
    /// the broker blocks or that was away for longer.
    pub(super) async fn link(&self) -> Option<Link> {
        let mut state = self.state.clone();
        loop {
            let wait = match &*state.borrow_and_update() {
                State::Up(link) if link.blocked => return None,
                State::Up(link) if !link.broken.is_cancelled() => return Some(link.clone()),
                State::Up(_) => REPLY_TIMEOUT,
                State::DownSince(since) => REPLY_TIMEOUT.saturating_sub(since.elapsed()),
            };
            if wait.is_zero() || !matches!(timeout(wait, state.changed()).await, Ok(Ok(()))) {
                return None;
            }
        }
    }

    /// Waits a short time until the connection is closed, after `stop` was cancelled. A process that ends before may take
    /// replies along that are written to the socket and not yet read by the broker.
    pub async fn closed(&self) {
        let mut state = self.state.clone();
        // The task drops the sender when it is done.
        let closed = async { while state.changed().await.is_ok() {} };
        let _ = timeout(CLOSE_TIMEOUT, closed).await;
    }

    /// Waits until the link is there, up to a time; for starting up.
    pub async fn wait_until_up(&self, limit: Duration) {
        let mut state = self.state.clone();
        // Nobody has to be told if it is not: replies are then dropped and counted as ever.
        let _ = timeout(limit, state.wait_for(|state| matches!(state, State::Up(_)))).await;
    }
}

async fn keep_open(
    url: &BrokerUrl,
    name: &str,
    state: &watch::Sender<State>,
    nodes: &Nodes,
    stop: &CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(10));
    let mut warned = false;
    while !stop.is_cancelled() {
        match open(url, name).await {
            Ok((connection, link)) => {
                info!(broker = %url, "reply connection is open");
                warned = false;
                // A channel that is dropped keeps its connection from being closed; see [`close`].
                let held = link.clone();
                let reason = watch_over(&connection, link, state, stop).await;
                state.send_replace(State::DownSince(Instant::now()));
                nodes.forget_known();
                close(&connection).await;
                drop(held);
                if stop.is_cancelled() {
                    return;
                }
                warn!(reason, "reply connection was lost; replies on their way are gone, callers ask again");
            }
            Err(reason) if !warned => {
                warned = true;
                warn!(reason, "no reply connection; trying again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = backoff.wait() => {}
        }
    }
}

async fn open(url: &BrokerUrl, name: &str) -> Result<(Connection, Link), String> {
    let connection = connect(url, name).await.map_err(|error| error.to_string())?;
    let channels = async {
        let replies = connection.create_channel().await?;
        let dead_letters = connection.create_channel().await?;
        dead_letters.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok::<_, lapin::Error>((replies, dead_letters))
    };
    let (replies, dead_letters) = timeout(crate::limits::CONNECT_TIMEOUT, channels)
        .await
        .map_err(|_| "the broker does not open a channel".to_owned())?
        .map_err(|error| error.to_string())?;
    Ok((connection, Link { replies, dead_letters, blocked: false, broken: CancellationToken::new() }))
}

/// Publishes the link's state until it breaks; returns why.
async fn watch_over(
    connection: &Connection,
    mut link: Link,
    state: &watch::Sender<State>,
    stop: &CancellationToken,
) -> String {
    let mut events = connection.events_listener();
    state.send_replace(State::Up(link.clone()));
    // An error between the handshake and the listener would have gone unheard.
    if !connection.status().connected() {
        return "the connection was closed".to_owned();
    }
    let broken = link.broken.clone();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return "stopped".to_owned(),
            () = broken.cancelled() => return "a message could not be published".to_owned(),
            event = events.next() => event,
        };
        match event {
            Some(Event::ConnectionBlocked(reason)) => {
                warn!(reason, "the broker blocks publishers; replies are dropped until it goes on");
                link.blocked = true;
            }
            Some(Event::ConnectionUnblocked) => {
                info!("the broker takes messages again");
                link.blocked = false;
            }
            Some(Event::Error(error)) => return error.to_string(),
            Some(_) => continue,
            None => return "the connection was closed".to_owned(),
        }
        state.send_replace(State::Up(link.clone()));
    }
}
