//! A second service beside users, on the same broker and in the same store: accounts, and transfers between them. Its workers meet
//! the same faults, and its history has to be explained.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use rabbitry::{
    Service,
    amqp::client::{Answer, Client, Command},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    check::transfers::{ACCOUNTS, Ask, Done, Told, unexplained},
    fleet::Fleet,
    stage::Stage,
};

#[path = "../bank/mod.rs"]
mod service;

use service::Bank;

const NAMES: [&str; ACCOUNTS] = ["ann", "bob", "eve", "zoe"];
const OPENING_BALANCE: i64 = 1_000;
const WORKERS: usize = 2;
const CLIENTS: usize = 40;
/// Fewer prove nothing; a client whose reply is lost waits for seconds.
const ANSWERED_MIN: usize = 50;
/// Longer than any fault: whatever is lost meanwhile, the client sends again.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs this program as a worker of the bank, if it was started as one.
pub fn worker() -> Option<std::process::ExitCode> {
    std::env::var_os(crate::fleet::WORKER_OF_THE_BANK).map(|_| rabbitry::worker::main::<Bank>())
}

/// The bank while it is open.
pub struct Open {
    pub fleet: Fleet,
    client: Client,
    closing: Arc<AtomicBool>,
    done: Arc<Mutex<Vec<Done>>>,
    clients: Vec<JoinHandle<Result<(), String>>>,
    began: Instant,
}

impl Open {
    /// Makes the accounts, and lets clients transfer between them.
    pub async fn begin(stage: &mut Stage) -> Self {
        let commands: Vec<_> = Bank::COMMANDS.iter().map(|command| command.name).collect();
        stage.vhost.declare_service(Bank::NAME, &commands, 20).await;
        let fleet = stage.fleet.like_it(WORKERS, crate::fleet::WORKER_OF_THE_BANK);
        let url = stage.clients_line.url(&stage.vhost.url_text());
        let client = Client::connect(url.parse().unwrap(), Bank::NAME, "bank").await.unwrap();
        for name in NAMES {
            let create =
                Command::new("create", json!({"name": name, "balance": OPENING_BALANCE}).to_string());
            assert_eq!(client.call(&create, PATIENCE).await.unwrap().status, 201);
        }
        let (closing, done, began) = (Arc::default(), Arc::default(), Instant::now());
        let mut open = Self { fleet, client, closing, done, clients: Vec::new(), began };
        for _ in 0..CLIENTS {
            let client = Transferring {
                client: open.client.clone(),
                rng: stage.rng.fork(),
                done: Arc::clone(&open.done),
                began,
            };
            open.clients.push(tokio::spawn(client.go_on(Arc::clone(&open.closing))));
        }
        open
    }

    /// Lets the clients end, and holds what they saw against what there is.
    pub async fn end(self, stage: &mut Stage) {
        self.closing.store(true, Ordering::SeqCst);
        for client in self.clients {
            if let Err(wrong) = client.await.unwrap() {
                stage.wrong(format!("bank: {wrong}"));
            }
        }
        let list = Command::new("list", "{}");
        let page = self.client.call(&list, PATIENCE).await.unwrap();
        let page: Value = serde_json::from_slice(&page.body).unwrap();
        let accounts = page["accounts"].as_array().unwrap().iter();
        let balances: BTreeMap<_, _> =
            accounts.map(|one| (one["name"].as_str().unwrap(), one["balance"].as_i64().unwrap())).collect();
        let (sum, paid_in) = (balances.values().sum::<i64>(), OPENING_BALANCE * ACCOUNTS as i64);
        if sum != paid_in {
            stage.wrong(format!("bank: {paid_in} were paid in, and there are {sum}: {balances:?}"));
        }
        let mut done = self.done.lock().unwrap().clone();
        let at = self.began.elapsed();
        for (account, name) in NAMES.iter().enumerate() {
            let told = Told::Balance(balances.get(name).copied().unwrap_or_default());
            done.push(Done { ask: Ask::Get(account), told, began: at, ended: at });
        }
        if let Some(wrong) = unexplained([OPENING_BALANCE; ACCOUNTS], &done) {
            stage.wrong(format!("bank: {wrong}"));
        }
        if done.len() < ANSWERED_MIN {
            stage.wrong(format!("bank: only {} commands were answered", done.len()));
        }
        for odd in self.fleet.stop().await {
            stage.wrong(format!("bank: {odd}"));
        }
        self.client.close().await;
    }
}

/// A client.
struct Transferring {
    client: Client,
    rng: Rng,
    done: Arc<Mutex<Vec<Done>>>,
    began: Instant,
}

impl Transferring {
    async fn go_on(mut self, closing: Arc<AtomicBool>) -> Result<(), String> {
        while !closing.load(Ordering::SeqCst) {
            let (from, to) = (self.rng.usize(..ACCOUNTS), self.rng.usize(..ACCOUNTS));
            let ask = match self.rng.u8(..8) {
                0 => Ask::Get(from),
                _ => Ask::Transfer { from, to, amount: self.rng.i64(0..400) },
            };
            let (name, payload) = match ask {
                Ask::Get(account) => ("get", json!({"name": NAMES[account]})),
                Ask::Transfer { from, to, amount } => {
                    ("transfer", json!({"from": NAMES[from], "to": NAMES[to], "amount": amount}))
                }
            };
            let command = Command::new(name, payload.to_string());
            let began = self.began.elapsed();
            let first = self.ask(&command).await?;
            let ended = self.began.elapsed();
            self.done.lock().unwrap().push(Done { ask, told: told(&first)?, began, ended });
            // The same id once more, as of a client that was not sure.
            if name == "transfer" && self.rng.u8(..4) == 0 {
                let again = self.ask(&command).await?;
                if (again.status, &again.body, again.replayed) != (first.status, &first.body, true) {
                    return Err(format!("two replies to {}: {first:?} and {again:?}", command.message_id));
                }
            }
        }
        Ok(())
    }

    async fn ask(&self, command: &Command) -> Result<Answer, String> {
        let answer = self.client.call(command, PATIENCE).await;
        answer.map_err(|error| format!("{command:?} has no answer: {error}"))
    }
}

/// What an answer says.
fn told(answer: &Answer) -> Result<Told, String> {
    let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let balance = |account: &Value| account["balance"].as_i64();
    let told = match body["code"].as_str() {
        Some("too_little") => Some(Told::TooLittle),
        Some("same_account") => Some(Told::SameAccount),
        Some(_) => None,
        None => match (balance(&body), balance(&body["from"]), balance(&body["to"])) {
            (Some(balance), ..) => Some(Told::Balance(balance)),
            (None, Some(from), Some(to)) => Some(Told::Balances(from, to)),
            _ => None,
        },
    };
    told.ok_or_else(|| format!("an odd answer: {} {body}", answer.status))
}
