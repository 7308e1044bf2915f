//! What clients do while something goes wrong: commands that collide on few users, repetitions of the same id at once
//! and later, ids taken for another content or another command, deadlines, and arrays.

pub mod caller;
pub mod link;
pub mod recorder;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use fastrand::Rng;
use futures::future::join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::Action;
use caller::{ARRAY_USERS, Caller, array_user, id};
use link::{Link, ReplyTo};
use recorder::{Recorder, What};

/// How long a command is asked for before its outcome counts as unknown: longer than any fault and its recovery.
const PATIENCE: Duration = Duration::from_secs(90);
/// Asks that are sent once more at the end, when every deadline has passed.
const LATE_REPETITIONS: usize = 400;

pub struct Workload {
    pub recorder: Arc<Recorder>,
    pub links: Vec<Arc<Link>>,
    callers: JoinSet<()>,
    stop: CancellationToken,
    rng: Rng,
    commands: Arc<AtomicUsize>,
}

impl Workload {
    /// Starts so many clients on a broker.
    pub async fn start(url: &str, clients: usize, mut rng: Rng) -> Self {
        let recorder = Arc::new(Recorder::new());
        let links: Vec<_> = [ReplyTo::Direct, ReplyTo::Queue]
            .map(|reply_to| Arc::new(Link::start(url.to_owned(), reply_to, Arc::clone(&recorder))))
            .into();
        let mut workload = Self {
            recorder,
            links,
            callers: JoinSet::new(),
            stop: CancellationToken::new(),
            rng: rng.fork(),
            commands: Arc::default(),
        };
        workload.create_array_users().await;
        for client in 0..clients {
            let caller = workload.caller(client);
            workload.callers.spawn(caller.run(workload.stop.clone()));
        }
        workload
    }

    /// Another client.
    pub fn caller(&mut self, client: usize) -> Caller {
        Caller {
            client,
            link: Arc::clone(&self.links[client % self.links.len()]),
            recorder: Arc::clone(&self.recorder),
            rng: self.rng.fork(),
            commands: Arc::clone(&self.commands),
            patience: PATIENCE,
        }
    }

    async fn create_array_users(&mut self) {
        let mut caller = self.caller(usize::MAX);
        for index in 0..ARRAY_USERS {
            let username = array_user(index);
            let email = format!("{username}@example.com");
            let create = Action::Create { username, email, points: 0 };
            let id = id();
            caller.ask(id, What::Command(create), None).await;
        }
    }

    /// Lets the clients finish what they have begun.
    pub async fn finish(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("no client panics");
        }
    }

    /// Stops the clients where they are.
    pub async fn abandon(&mut self) {
        self.callers.shutdown().await;
    }

    /// Asks for some of what was answered once more, with the deadlines of the first time, and then for every user.
    pub async fn repeat_and_read(&mut self) {
        let asks = self.recorder.asks();
        let is_read = |what: &What| matches!(what, What::Command(action) if action.is_read());
        let mut answered: Vec<usize> = (0..asks.len())
            .filter(|&index| !asks[index].replies.is_empty() && !is_read(&asks[index].what))
            .collect();
        self.rng.shuffle(&mut answered);
        answered.truncate(LATE_REPETITIONS);
        let mut callers: Vec<_> = (0..answered.len()).map(|client| self.caller(client)).collect();
        join_all(callers.iter_mut().zip(answered).map(|(caller, index)| caller.repeat(index))).await;
        let mut users: Vec<_> = asks
            .iter()
            .filter_map(|ask| match &ask.what {
                What::Command(action) => Some(action.username().to_owned()),
                _ => None,
            })
            .collect();
        users.sort();
        users.dedup();
        let reads = users.into_iter().enumerate().map(|(client, username)| {
            let mut caller = self.caller(client);
            async move {
                let id = id();
                caller.ask(id, What::Command(Action::Get { username }), None).await
            }
        });
        let reads: Vec<_> = reads.collect();
        join_all(reads).await;
    }
}
