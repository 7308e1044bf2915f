//! A worker: sessions on the broker, one after another, for ever.
//!
//! [`Server::run`] is the one supervisor: it opens a session, and whatever ends it (an error, a consumer that the
//! broker cancelled, a store that does not answer), everything of it is dropped and another one is opened. See
//! [`session`] for one session, [`lane`] for the loop that turns deliveries into batches, [`answer`] for what is
//! asked of the service, [`settle`] for replies and acknowledgements, [`end`] for how sessions go and end, and
//! [`topology`] for what has to be there before the first. A queue that ends sessions gets one of its own, as do the
//! others then, so that they go on.

mod answer;
mod end;
mod lane;
mod same_store;
mod session;
mod settle;
mod topology;

use std::{
    mem::discriminant,
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    connection::{BrokerUrl, ConnectError, process_name},
    dead_letter::DeadLetters,
    dead_letters, queue,
    replies::Replies,
    reply_to::Trust,
};
use crate::{
    backoff::Backoff,
    limits::{BATCH_MAX, CONNECT_TIMEOUT, READY_TIMEOUT, STORE_PATIENCE},
    service::{Service, Spec, Store},
};
pub use end::Stopped;
use end::{End, Pace, SessionError};
use same_store::SameStore;
use topology::missing;

/// How a worker behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The commands to serve; those of the service.
    pub commands: Vec<Spec>,
    /// Commands in one transaction at most. Twice as many deliveries are prefetched per queue.
    pub batch_max: u16,
    /// Patterns of the reply queues that are answered.
    pub reply_to: Vec<String>,
    /// Where the service keeps its state, for people.
    pub store: String,
    /// Whether to consume also beside workers of another store. Otherwise the worker waits until they are gone.
    pub allow_other_stores: bool,
    /// How long a batch is kept for a store that does not answer.
    pub store_patience: Duration,
    /// How long the deliveries in hand may take after the shutdown was asked for.
    pub shutdown_timeout: Duration,
}

impl Settings {
    /// The defaults, for these commands.
    pub fn new(commands: &[Spec]) -> Self {
        Self {
            commands: commands.to_vec(),
            batch_max: BATCH_MAX,
            reply_to: super::reply_to::TRUSTED.iter().map(|pattern| (*pattern).to_owned()).collect(),
            store: String::new(),
            allow_other_stores: false,
            store_patience: STORE_PATIENCE,
            shutdown_timeout: Duration::from_secs(25),
        }
    }
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The topology is not there.
    #[error(
        "the broker has no {what} on virtual host {vhost:?}; create the topology with `rabbitry topology apply`"
    )]
    Missing {
        /// The queue or exchange.
        what: String,
        /// Where it was looked for.
        vhost: String,
    },
    /// The login is refused or lacks a right.
    #[error("{0}")]
    NotPermitted(String),
}

/// A worker of a service.
pub struct Server<S> {
    store: Arc<dyn Store<S>>,
    url: BrokerUrl,
    settings: Settings,
    trust: Trust,
    process: String,
}

/// What lanes share for the life of the worker.
struct Context<S> {
    store: Arc<dyn Store<S>>,
    trust: Trust,
    replies: Replies,
    dead_letters: DeadLetters,
    store_name: String,
    same_store: Option<SameStore>,
    /// Whether it has consumed once.
    begun: AtomicBool,
    batch_max: u16,
    store_patience: Duration,
}

impl<S: Service> Server<S> {
    /// A worker of the service on this store and this broker.
    pub fn new(store: Arc<dyn Store<S>>, url: BrokerUrl, settings: Settings) -> Self {
        let mut never: Vec<_> = S::COMMANDS.iter().map(|command| queue(S::NAME, command.name)).collect();
        never.push(dead_letters(S::NAME));
        let trust = Trust::new(&settings.reply_to, never);
        Self { store, url, settings, trust, process: process_name() }
    }

    /// Works until `shutdown` is cancelled: then cancels its consumers, finishes what was delivered (commit, reply,
    /// acknowledge) within the shutdown time, and closes. Dropping the future is as safe as `kill -9`.
    ///
    /// # Errors
    /// [`StartError`] if something has to be changed before it can work. Once it has worked it never gives up.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Stopped, StartError> {
        let Some(()) = self.check_topology(&shutdown).await? else { return Ok(Stopped::Finished) };
        let stop_replies = CancellationToken::new();
        let name = format!("{} worker {}", S::NAME, self.process);
        let replies = Replies::start(self.url.clone(), &name, stop_replies.clone());
        tokio::select! {
            () = replies.wait_until_up(CONNECT_TIMEOUT) => {}
            () = shutdown.cancelled() => {}
        }
        let context = Arc::new(Context {
            store: Arc::clone(&self.store),
            trust: self.trust.clone(),
            dead_letters: DeadLetters::new(replies.clone(), dead_letters(S::NAME)),
            replies,
            store_name: self.settings.store.clone(),
            same_store: self.same_store(),
            begun: AtomicBool::new(false),
            batch_max: self.settings.batch_max,
            store_patience: self.settings.store_patience,
        });
        let hurry = async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.settings.shutdown_timeout).await;
        };
        let stopped = tokio::select! {
            stopped = self.work(&context, &shutdown) => stopped,
            () = hurry => {
                warn!("shutdown time is over");
                Ok(Stopped::Unfinished)
            }
        };
        match &stopped {
            Ok(Stopped::Finished) => info!("stopped; nothing was left unfinished"),
            Ok(Stopped::Unfinished) => warn!("stopped; what is unfinished will be delivered again"),
            // It is the program's to tell.
            Err(_) => {}
        }
        stop_replies.cancel();
        context.replies.closed().await;
        stopped
    }

    /// All queues on one connection; when one of them ends sessions, each by itself.
    async fn work(
        &self,
        context: &Arc<Context<S>>,
        shutdown: &CancellationToken,
    ) -> Result<Stopped, StartError> {
        loop {
            match self.keep_session(context, &self.settings.commands, Pace::Full, shutdown).await? {
                End::Shutdown => return Ok(Stopped::Finished),
                End::CutOff => return Ok(Stopped::Unfinished),
                End::Suspect | End::Recovered => {}
            }
            warn!("each queue has a connection of its own, and its messages go one by one until it is quiet");
            let ends = self.keep_sessions_apart(context, shutdown).await?;
            if shutdown.is_cancelled() {
                let cut_off = ends.contains(&End::CutOff);
                return Ok(if cut_off { Stopped::Unfinished } else { Stopped::Finished });
            }
            info!("handling messages at full pace on one connection again");
        }
    }

    /// Each queue by itself: one by one until that has gone well, and then at full pace until it has in all of them. So
    /// no queue waits for another that nobody can serve.
    async fn keep_sessions_apart(
        &self,
        context: &Arc<Context<S>>,
        shutdown: &CancellationToken,
    ) -> Result<Vec<End>, StartError> {
        let commands = &self.settings.commands;
        let together = shutdown.child_token();
        let unwell = AtomicUsize::new(commands.len());
        let each = commands.iter().map(async |command| {
            let mut pace = Pace::OneByOne;
            loop {
                match self.keep_session(context, slice::from_ref(command), pace, &together).await? {
                    end @ (End::Shutdown | End::CutOff) => return Ok(end),
                    End::Recovered => {
                        pace = Pace::Full;
                        if unwell.fetch_sub(1, Ordering::Relaxed) == 1 {
                            together.cancel();
                        }
                    }
                    End::Suspect => {
                        pace = Pace::OneByOne;
                        unwell.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        join_all(each).await.into_iter().collect()
    }

    /// Opens sessions until one ends for a reason that another one would not mend.
    async fn keep_session(
        &self,
        context: &Arc<Context<S>>,
        commands: &[Spec],
        pace: Pace,
        shutdown: &CancellationToken,
    ) -> Result<End, StartError> {
        let mut backoff = match pace {
            Pace::Full => Backoff::of_connections(),
            Pace::OneByOne => Backoff::new(Duration::from_millis(50), Duration::from_secs(1)),
        };
        let mut last = None;
        loop {
            let name = self.connection_name(commands, pace);
            let error = match session::run(&self.url, &name, context, commands, pace, shutdown).await {
                Ok(end) => return Ok(end),
                Err(error) => error,
            };
            if shutdown.is_cancelled() {
                let had_begun = !matches!(error, SessionError::Connect(_));
                warn!(%error, "the last session failed");
                return Ok(if had_begun { End::CutOff } else { End::Shutdown });
            }
            match &error {
                SessionError::Connect(refused @ ConnectError::NotPermitted { .. })
                    if !context.begun.load(Ordering::Relaxed) =>
                {
                    return Err(StartError::NotPermitted(refused.to_string()));
                }
                SessionError::Poison(_) if pace == Pace::Full => {
                    error!(%error, "session ended by a message that cannot be read");
                    return Ok(End::Suspect);
                }
                SessionError::NotServed { .. } if pace == Pace::Full => {
                    error!(%error, "session ended by one queue");
                    return Ok(End::Suspect);
                }
                SessionError::StoreSilent => {
                    error!(%error, "session ended; consuming again once the store answers");
                    self.wait_for_store(shutdown).await;
                }
                // It has to be delivered until the broker's limit, and its neighbours wait meanwhile: no growing pauses.
                SessionError::Poison(_) => {
                    warn!(%error, "session ended by a message that cannot be read; opening another");
                    backoff.begin_anew();
                }
                // One line for each change of state, however long it lasts.
                SessionError::Connect(_) | SessionError::NotServed { .. }
                    if last == Some(discriminant(&error)) =>
                {
                    debug!(%error, "still no session");
                }
                _ => warn!(%error, "session ended; opening another"),
            }
            last = Some(discriminant(&error));
            tokio::select! {
                () = shutdown.cancelled() => return Ok(End::Shutdown),
                () = backoff.wait() => {}
            }
        }
    }

    fn same_store(&self) -> Option<SameStore> {
        let id = self.store.id();
        let watched = !self.settings.allow_other_stores && !id.is_empty();
        watched.then(|| SameStore::new(S::NAME, id, &self.url))
    }

    fn connection_name(&self, commands: &[Spec], pace: Pace) -> String {
        let what = match pace {
            Pace::OneByOne => &format!("{}, one by one", commands[0].name),
            Pace::Full if commands.len() < self.settings.commands.len() => commands[0].name,
            Pace::Full => "commands",
        };
        format!("{} worker {} ({what})", S::NAME, self.process)
    }

    async fn wait_for_store(&self, shutdown: &CancellationToken) {
        let mut backoff = Backoff::of_connections();
        while !matches!(timeout(READY_TIMEOUT, self.store.ready()).await, Ok(Ok(()))) {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
        info!("the store answers again");
    }

    /// Waits for the broker and looks whether everything is there. `None` if shut down meanwhile.
    async fn check_topology(&self, shutdown: &CancellationToken) -> Result<Option<()>, StartError> {
        let name = format!("{} worker {} (start)", S::NAME, self.process);
        let mut backoff = Backoff::of_connections();
        let mut warned = false;
        loop {
            let found = tokio::select! {
                found = missing(&self.url, &name, S::NAME, &self.settings.commands) => found,
                () = shutdown.cancelled() => return Ok(None),
            };
            match found {
                Ok(None) => return Ok(Some(())),
                Ok(Some(what)) => {
                    return Err(StartError::Missing { what, vhost: self.url.vhost().to_owned() });
                }
                Err(error @ ConnectError::NotPermitted { .. }) => {
                    return Err(StartError::NotPermitted(error.to_string()));
                }
                Err(error) if !warned => {
                    warned = true;
                    warn!(%error, "waiting for the broker");
                }
                Err(error) => debug!(%error, "still waiting for the broker"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                () = backoff.wait() => {}
            }
        }
    }
}
