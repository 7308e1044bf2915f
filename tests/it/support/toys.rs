//! A toy service: the engine is tested without a word of users, and this is all that a service has to be.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use rabbitry::{
    amqp::{
        connection::BrokerUrl,
        server::{Server, Settings, StartError, Stopped},
    },
    clock::unix_ms,
    service::{
        Access, Code, Command, Problem, Reply, Request, Service, Spec, Store, Unavailable, batch,
        entity::{Entity, Table},
        inbox::{Inbox, Key, RETENTION, StoredReply},
        rows::{Needs, Rows},
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Keeps one number, in memory that outlives its workers like a database.
#[derive(Clone)]
pub struct Toys {
    pub memory: Arc<Memory>,
}

pub struct Memory {
    state: Mutex<Stored>,
    /// Whether the store answers.
    pub there: AtomicBool,
    /// Batches wait here; open by default.
    pub gate: Semaphore,
    /// How long each batch takes: a store of a known, small capacity.
    pub pause_ms: AtomicU64,
    /// Batches that were begun.
    pub begun: AtomicUsize,
    /// The longest batch.
    pub longest: AtomicUsize,
}

#[derive(Default)]
struct Stored {
    total: Total,
    inbox: HashMap<Key, StoredReply>,
}

/// The number, and how many commands have changed it.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Total {
    id: i64,
    total: i64,
    effects: i64,
}

impl Entity for Total {
    type Key = i64;
    const TABLE: Table = Table { name: "totals", sqlite: &[], postgres: &[] };
    rabbitry::columns!(id, total, effects);
}

/// Adds a number
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Add {
    #[serde(default)]
    pub n: i64,
}

/// Returns the number
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct GetTotal {
    #[serde(default)]
    pub n: i64,
}

rabbitry::service! {
    /// One number.
    pub enum Number("toys") of Total { Add(Add), Total(GetTotal) }
}

pub const COMMANDS: &[Spec] = Number::COMMANDS;

/// The number that makes `add` panic.
pub const PANIC: i64 = 666;
/// The number that `add` refuses.
pub const REFUSED: i64 = 13;

#[derive(Serialize, JsonSchema)]
pub struct Shown {
    total: i64,
}

impl Command<Total> for Add {
    const SPEC: Spec = Spec::write("add");
    type Output = Shown;

    fn needs(&self) -> Needs<'_, Total> {
        Needs::Key(&0)
    }

    fn apply(&self, rows: &mut Rows<Total>) -> Result<Shown, Problem> {
        assert_ne!(self.n, PANIC, "asked to panic");
        if self.n == REFUSED {
            return Err(Problem::new(Code::fatal("unlucky", 409, "Unlucky number"), "13 is refused"));
        }
        let mut total = rows.get(&0).cloned().unwrap_or_default();
        if self.n != 0 {
            total.total += self.n;
            total.effects += 1;
            rows.put(total.clone());
        }
        Ok(Shown { total: total.total })
    }
}

impl Command<Total> for GetTotal {
    const SPEC: Spec = Spec::read("total");
    type Output = Shown;

    fn needs(&self) -> Needs<'_, Total> {
        Needs::Key(&0)
    }

    fn apply(&self, rows: &mut Rows<Total>) -> Result<Shown, Problem> {
        Ok(Shown { total: rows.get(&0).map_or(0, |total| total.total) })
    }
}

impl Toys {
    pub fn new() -> Self {
        let memory = Memory {
            state: Mutex::default(),
            there: AtomicBool::new(true),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            pause_ms: AtomicU64::new(0),
            begun: AtomicUsize::new(0),
            longest: AtomicUsize::new(0),
        };
        Self { memory: Arc::new(memory) }
    }

    /// The number, and how many commands have changed it.
    pub fn total(&self) -> (i64, usize) {
        let Total { total, effects, .. } = self.memory.state.lock().unwrap().total;
        (total, usize::try_from(effects).unwrap())
    }

    /// Closes the gate: batches begin and do not end until permits are added.
    pub fn close_gate(&self) {
        self.memory.gate.forget_permits(Semaphore::MAX_PERMITS);
    }
}

impl Toys {
    async fn run(&self, batch: Arc<[Request<Number>]>) -> Result<Vec<Reply>, Unavailable> {
        self.memory.begun.fetch_add(1, Ordering::SeqCst);
        self.memory.longest.fetch_max(batch.len(), Ordering::SeqCst);
        self.memory.gate.acquire().await.unwrap().forget();
        self.is_there()?;
        tokio::time::sleep(Duration::from_millis(self.memory.pause_ms.load(Ordering::SeqCst))).await;
        let mut stored = self.memory.state.lock().unwrap();
        let mut rows = Rows::default();
        rows.add(stored.total.clone());
        let mut inbox = Inbox::default();
        for ((command, id), row) in &stored.inbox {
            inbox.add(command, id, row.clone());
        }
        let replies = batch::run(&batch, &mut rows, &mut inbox, unix_ms(), RETENTION);
        stored.total = rows.get(&0).expect("it was added").clone();
        let fresh: Vec<_> = inbox.fresh().map(|(key, row)| (key.clone(), row.clone())).collect();
        stored.inbox.extend(fresh);
        Ok(replies)
    }

    fn is_there(&self) -> Result<(), Unavailable> {
        if self.memory.there.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err(Unavailable("the toy store is switched off".into()))
        }
    }
}

impl Store<Number> for Toys {
    fn apply(
        &self,
        _: Access,
        batch: Arc<[Request<Number>]>,
    ) -> BoxFuture<'_, Result<Vec<Reply>, Unavailable>> {
        Box::pin(self.run(batch))
    }

    fn id(&self) -> &str {
        ""
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async { self.is_there() })
    }
}

/// A worker in this process.
pub struct Worker {
    pub stop: CancellationToken,
    pub task: JoinHandle<Result<Stopped, StartError>>,
}

impl Worker {
    pub fn start(toys: &Toys, url: BrokerUrl) -> Self {
        Self::start_with(toys, url, Settings::new(COMMANDS))
    }

    pub fn start_with(toys: &Toys, url: BrokerUrl, settings: Settings) -> Self {
        let stop = CancellationToken::new();
        let server = Server::new(Arc::new(toys.clone()), url, settings);
        Self { task: tokio::spawn(server.run(stop.clone())), stop }
    }

    /// Asks to stop and waits until it has.
    pub async fn stop(self) {
        self.stop.cancel();
        let stopped = super::soon("the worker stops", self.task).await.unwrap();
        assert_eq!(stopped.unwrap(), Stopped::Finished);
    }

    /// Ends it like `kill -9`: nothing is finished, connections are dropped.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Settings with a short patience, for tests of a store that is away.
pub fn impatient() -> Settings {
    Settings { store_patience: Duration::from_millis(300), ..Settings::new(COMMANDS) }
}
