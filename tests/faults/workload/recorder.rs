//! What was asked and what was answered, written down as it happens.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;

use crate::{
    check::outcome::is_remembered,
    history::{Action, Answer, History, Moment, Operation},
};

/// What was asked for.
#[derive(Debug, Clone)]
pub enum What {
    Command(Action),
    /// Another content under the id of a command that was answered: it has to be refused.
    OtherContent(Action),
    /// An array of awards of one point to each of these users.
    Awards(Vec<String>),
}

impl What {
    pub fn command(&self) -> &'static str {
        match self {
            Self::Command(action) | Self::OtherContent(action) => action.command(),
            Self::Awards(_) => "award",
        }
    }
}

/// Something that a client wants to know, over all its repetitions.
#[derive(Debug, Clone)]
pub struct Ask {
    pub client: usize,
    pub id: String,
    pub what: What,
    /// Milliseconds since the Unix epoch.
    pub deadline: Option<i64>,
    pub began: Moment,
    pub sends: u32,
    pub confirmed: bool,
    pub replies: Vec<Answer>,
}

impl Ask {
    /// Whether the inbox has to know it: what was answered by an effect, or by a refusal that follows from the state.
    pub fn is_remembered(&self) -> bool {
        self.replies.first().is_some_and(is_remembered)
    }
}

/// One for each run. An ask is named by its index, and by its correlation id on the wire.
pub struct Recorder {
    began: Instant,
    run: String,
    asks: Mutex<Asks>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Asks {
    asks: Vec<Ask>,
    /// Notified when the ask of the same index was confirmed or answered.
    changed: Vec<Arc<Notify>>,
    tokens: HashMap<String, usize>,
    strays: Vec<String>,
}

impl Recorder {
    pub fn new() -> Self {
        let run = uuid::Uuid::now_v7().simple().to_string();
        Self { began: Instant::now(), run, asks: Mutex::default(), refused: AtomicU64::new(0) }
    }

    pub fn now(&self) -> Moment {
        self.began.elapsed()
    }

    /// Writes down what is about to be sent for the first time.
    pub fn ask(&self, client: usize, id: String, what: What, deadline: Option<i64>) -> usize {
        let mut asks = self.asks.lock().unwrap();
        let index = asks.asks.len();
        let began = self.now();
        asks.asks.push(Ask {
            client,
            id,
            what,
            deadline,
            began,
            sends: 0,
            confirmed: false,
            replies: Vec::new(),
        });
        asks.changed.push(Arc::default());
        asks.tokens.insert(self.token(index), index);
        index
    }

    /// The correlation id of an ask.
    pub fn token(&self, index: usize) -> String {
        format!("{}-{index}", self.run)
    }

    pub fn get(&self, index: usize) -> Ask {
        self.asks.lock().unwrap().asks[index].clone()
    }

    pub fn sent(&self, index: usize) {
        self.asks.lock().unwrap().asks[index].sends += 1;
    }

    pub fn confirmed(&self, index: usize) {
        let mut asks = self.asks.lock().unwrap();
        asks.asks[index].confirmed = true;
        asks.changed[index].notify_one();
    }

    /// The broker did not take a message.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes a reply: the first one wakes who waits for it.
    pub fn replied(&self, correlation: &str, mut answer: Answer) {
        let mut asks = self.asks.lock().unwrap();
        answer.at = self.now();
        match asks.tokens.get(correlation).copied() {
            Some(index) => {
                asks.asks[index].replies.push(answer);
                asks.changed[index].notify_one();
            }
            None => asks.strays.push(format!("{correlation}: {answer:?}")),
        }
    }

    /// Waits until an ask has at least so many replies.
    pub async fn wait_for_replies(&self, index: usize, replies: usize) {
        self.wait_until(index, |ask| ask.replies.len() >= replies).await;
    }

    /// Waits until the broker has confirmed an ask, or it is answered.
    pub async fn wait_for_confirm(&self, index: usize) {
        self.wait_until(index, |ask| ask.confirmed || !ask.replies.is_empty()).await;
    }

    async fn wait_until(&self, index: usize, holds: impl Fn(&Ask) -> bool) {
        let changed = Arc::clone(&self.asks.lock().unwrap().changed[index]);
        while !holds(&self.asks.lock().unwrap().asks[index]) {
            changed.notified().await;
        }
    }

    pub fn asks(&self) -> Vec<Ask> {
        self.asks.lock().unwrap().asks.clone()
    }

    pub fn history(&self) -> History {
        let asks = self.asks.lock().unwrap();
        let operations = asks.asks.iter().filter_map(|ask| match &ask.what {
            What::Command(action) => Some(Operation {
                client: ask.client,
                id: ask.id.clone(),
                action: action.clone(),
                began: ask.began,
                sends: ask.sends,
                confirmed: ask.confirmed,
                replies: ask.replies.clone(),
            }),
            What::OtherContent(_) | What::Awards(_) => None,
        });
        History { operations: operations.collect(), strays: asks.strays.clone() }
    }
}
