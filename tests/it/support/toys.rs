//! A toy service: the engine is tested without a word of users, and this is all that a service has to be.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rabbitry::{
    amqp::{
        connection::BrokerUrl,
        server::{Server, Settings, StartError, Stopped},
    },
    clock::unix_ms,
    service::{
        Code, CommandSpec, Problem, Reply, Request, Service, Unavailable, batch,
        command::Commands,
        entity::{Entity, Table},
        inbox::{Inbox, Key, RETENTION, StoredReply},
        payload,
        rows::{Needs, Rows},
    },
};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub const COMMANDS: &[CommandSpec] = &[CommandSpec::write("add"), CommandSpec::read("total")];

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

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    #[serde(default)]
    pub n: i64,
}

/// The number that makes `add` panic.
pub const PANIC: i64 = 666;
/// The number that `add` refuses.
pub const REFUSED: i64 = 13;

impl Commands for Number {
    type Entity = Total;
    const ALL: &'static [CommandSpec] = COMMANDS;

    fn parse(_: &str, payload: &[u8]) -> Result<Self, Problem> {
        payload::parse(payload)
    }

    fn flags(_: &str, line: clap::Command) -> clap::Command {
        line
    }

    fn of_flags(_: &str, _: &clap::ArgMatches) -> Result<Self, clap::Error> {
        unreachable!("it has no command line")
    }

    fn needs(&self) -> Needs<'_, Total> {
        Needs::Key(&0)
    }

    fn apply(&self, rows: &mut Rows<Total>) -> Result<(u16, Vec<u8>), Problem> {
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
        Ok((200, format!("{{\"total\":{}}}", total.total).into_bytes()))
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

impl Service for Toys {
    type Command = Number;

    fn name(&self) -> &'static str {
        "toys"
    }

    fn commands(&self) -> &'static [CommandSpec] {
        COMMANDS
    }

    fn parse(&self, _command: &str, body: &[u8]) -> Result<Number, Problem> {
        Number::parse("", body)
    }

    async fn answer(&self, batch: Arc<[Request<Number>]>) -> Result<Vec<Reply>, Unavailable> {
        self.memory.begun.fetch_add(1, Ordering::SeqCst);
        self.memory.longest.fetch_max(batch.len(), Ordering::SeqCst);
        self.memory.gate.acquire().await.unwrap().forget();
        self.ready().await?;
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

    async fn ready(&self) -> Result<(), Unavailable> {
        if self.memory.there.load(Ordering::SeqCst) {
            Ok(())
        } else {
            Err(Unavailable("the toy store is switched off".into()))
        }
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
        let server = Server::new(toys.clone(), url, settings);
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
