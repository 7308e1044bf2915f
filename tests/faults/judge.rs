//! From a fault's end to the verdict: heal, wait, repeat, read, stop, and look at what is there.

use std::time::Duration;

use futures::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::{BasicGetOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    check::{
        self, End, Violation,
        end::{DeadLetter, Depth},
        outcome::is_transient,
    },
    gauge::Gauge,
    history::{Action, Answer},
    stage::Stage,
    store,
    support::{process::Place, users::COMMANDS, vhost::Vhost},
    workload::{
        Workload,
        caller::{ARRAY_USERS, array_user, id},
        recorder::{Ask, What},
    },
};

/// How long the workers may take to serve again once a fault is over: a back-off of 5 s, a heartbeat that was missed,
/// and a broker that has to notice it too.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(10);
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// How long queues may take to drain after the last command was answered.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// What came of a cell.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    pub commands: usize,
    /// How often a command was sent again, or twice.
    pub repetitions: usize,
    /// How often workers were started.
    pub starts: u32,
    pub recovery: Duration,
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// A cell that could not be run.
    pub fn failed(why: &str) -> Self {
        Self { violations: vec![wrong("cell", why)], ..Self::default() }
    }
}

/// Heals what the proxies do, and judges.
pub async fn judge(mut stage: Stage) -> (Verdict, Place) {
    stage.workers_line.heal();
    stage.clients_line.heal();
    let healed = Instant::now();
    let mut violations = Vec::new();
    let recovery = recovery(&mut stage.workload, healed).await;
    if recovery > RECOVERY_MAX {
        violations
            .push(wrong("recovery", format!("a command was answered only {recovery:?} after the fault")));
    }
    violations.extend(consumers(&stage).await);
    if violations.is_empty() {
        stage.workload.finish().await;
        stage.workload.repeat_and_read().await;
        violations.extend(drained(&stage.vhost).await);
    } else {
        // They might wait for ever.
        stage.workload.abandon().await;
    }
    violations.extend(resources(&stage.gauge).await);
    let deadlocks = store::deadlocks(stage.place.store()).saturating_sub(stage.deadlocks);
    if deadlocks > 0 {
        violations.push(wrong("deadlock", format!("the server broke {deadlocks} deadlocks")));
    }
    violations.extend(stage.found.iter().map(|what| wrong("cell", what)));
    let starts = stage.fleet.starts();
    violations.extend(stage.fleet.stop().await.into_iter().map(|what| wrong("worker", what)));
    let end = end(&stage.vhost, &stage.place).await;
    let asks = stage.workload.recorder.asks();
    violations.extend(misuse(&asks));
    violations.extend(arrays(&asks, &end));
    if !stage.wanted.clocks_jump {
        violations.extend(deadlines(&asks));
    }
    let mut history = stage.workload.recorder.history();
    history.operations.retain(|operation| !is_array_user(operation.action.username()));
    let mut of_single_commands = end.clone();
    of_single_commands.users.retain(|username, _| !is_array_user(username));
    violations.extend(tokio::task::block_in_place(|| check::all(&history, &of_single_commands)));
    let verdict = Verdict {
        commands: asks.len(),
        repetitions: asks.iter().map(|ask| ask.sends.saturating_sub(1) as usize).sum(),
        starts,
        recovery,
        violations,
    };
    (verdict, stage.place)
}

fn wrong(check: &'static str, detail: impl Into<String>) -> Violation {
    Violation { check, detail: detail.into() }
}

/// The time from the fault's end to the first answer to a command that was asked for after it.
async fn recovery(workload: &mut Workload, healed: Instant) -> Duration {
    let mut caller = workload.caller(0);
    let get = Action::Get { username: array_user(0) };
    caller.ask(id(), What::Command(get), None).await;
    healed.elapsed()
}

/// Every worker consumes every queue again.
async fn consumers(stage: &Stage) -> Vec<Violation> {
    let until = Instant::now() + RECOVERY_MAX;
    let expected = u32::try_from(stage.fleet.size()).unwrap_or(u32::MAX);
    loop {
        let counts = counts(&stage.vhost).await;
        let missing: Vec<_> = counts.iter().filter(|(_, _, consumers)| *consumers < expected).collect();
        if missing.is_empty() {
            return Vec::new();
        }
        if Instant::now() > until {
            let detail = format!("{expected} workers, but after {RECOVERY_MAX:?}: {missing:?}");
            return vec![wrong("consumers", detail)];
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What workers hold comes back to its level, once those that were handled one by one are at full pace again.
async fn resources(gauge: &Gauge) -> Vec<Violation> {
    let until = Instant::now() + RECOVERY_MAX;
    loop {
        let growth = gauge.growth();
        if growth.is_empty() || Instant::now() > until {
            return growth.into_iter().map(|what| wrong("resources", what)).collect();
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Queue, ready messages, consumers, on a connection of its own, as the broker may have been started again.
async fn counts(vhost: &Vhost) -> Vec<(String, u32, u32)> {
    let connection = connect(vhost).await;
    let mut counts = Vec::new();
    // A channel that is dropped would be in the way of closing the connection.
    let mut channels = Vec::new();
    for command in COMMANDS {
        let queue = format!("users.{}", command.name);
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let Ok(channel) = connection.create_channel().await else { continue };
        match channel.queue_declare(queue.as_str().into(), passive, FieldTable::default()).await {
            Ok(found) => counts.push((queue, found.message_count(), found.consumer_count())),
            Err(_) => counts.push((queue, u32::MAX, 0)),
        }
        channels.push(channel);
    }
    let _ = timeout(CLOSE_MAX, connection.close(200, "done".into())).await;
    counts
}

async fn connect(vhost: &Vhost) -> Connection {
    loop {
        let url = vhost.url_text();
        let connect = Connection::connect(&url, ConnectionProperties::default());
        match timeout(CONNECT_MAX, connect).await {
            Ok(Ok(connection)) => return connection,
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Waits until no message is ready. What a worker then still holds it finishes when it is asked to stop, or it is ready
/// again at the end.
async fn drained(vhost: &Vhost) -> Vec<Violation> {
    let until = Instant::now() + DRAIN_MAX;
    loop {
        let counts = counts(vhost).await;
        let busy: Vec<_> = counts.iter().filter(|(_, ready, _)| *ready > 0).collect();
        if busy.is_empty() {
            return Vec::new();
        }
        if Instant::now() > until {
            return vec![wrong("drained", format!("after {DRAIN_MAX:?} there is still {busy:?}"))];
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The store, the queues and the dead letters, when nobody works any more.
async fn end(vhost: &Vhost, place: &Place) -> End {
    let mut end = store::end(place.store());
    let depth = |ready| Depth { ready: u64::from(ready), unacked: 0 };
    end.queues = counts(vhost).await.into_iter().map(|(queue, ready, _)| (queue, depth(ready))).collect();
    let connection = connect(vhost).await;
    let channel = connection.create_channel().await.expect("a channel can be opened");
    let letters = futures::stream::unfold(channel, async |channel| {
        let letter =
            channel.basic_get("users.dead".into(), BasicGetOptions { no_ack: true }).await.ok()??;
        Some((dead_letter(&letter), channel))
    });
    end.dead = letters.collect().await;
    end
}

fn dead_letter(letter: &BasicGetMessage) -> DeadLetter {
    let text = |name: &str| match crate::support::vhost::header(&letter.delivery, name) {
        Some(lapin::types::AMQPValue::LongString(text)) => Some(text.to_string()),
        _ => None,
    };
    let queue = text("queue").or_else(|| text("x-first-death-queue"));
    DeadLetter {
        id: letter.delivery.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default(),
        command: queue.and_then(|queue| Some(queue.strip_prefix("users.")?.to_owned())),
        reason: text("code").or_else(|| text("x-first-death-reason")),
    }
}

fn is_array_user(username: &str) -> bool {
    username.starts_with("array")
}

/// Who takes an id for another content is refused, always.
fn misuse(asks: &[Ask]) -> Vec<Violation> {
    let misused = asks.iter().filter(|ask| matches!(ask.what, What::OtherContent(_)));
    let accepted = misused.flat_map(|ask| {
        ask.replies
            .iter()
            .filter(|reply| !is_transient(reply))
            .filter(|reply| !(reply.status == 422 && has(&reply.body, "idempotency_conflict")))
            .map(|reply| {
                let body = String::from_utf8_lossy(&reply.body);
                wrong("misuse", format!("{} with another content: {} {body}", ask.id, reply.status))
            })
    });
    accepted.take(8).collect()
}

/// What was executed in time is never told that it was late, and what was late is never executed.
fn deadlines(asks: &[Ask]) -> Vec<Violation> {
    // A repetition of a command that only reads is judged afresh.
    let both = asks.iter().filter(|ask| {
        let writes = !matches!(&ask.what, What::Command(action) if action.is_read());
        let late = ask.replies.iter().any(|reply| reply.status == 504);
        writes && late && results(ask).next().is_some()
    });
    both.map(|ask| wrong("deadline", format!("{} was both executed and too late: {:?}", ask.id, ask.replies)))
        .take(8)
        .collect()
}

/// Every array took effect as a whole, once. An array in which a command panics takes none and is not remembered, so that
/// the same id may be executed later.
fn arrays(asks: &[Ask], end: &End) -> Vec<Violation> {
    let arrays: Vec<_> = asks.iter().filter(|ask| matches!(ask.what, What::Awards(_))).collect();
    let remembered = |ask: &Ask| end.inbox.contains_key(&("award".to_owned(), ask.id.clone()));
    let took_effect = arrays.iter().filter(|ask| remembered(ask) || results(ask).next().is_some());
    let expected = i64::try_from(took_effect.count()).unwrap_or(i64::MAX);
    let different = arrays.iter().filter(|ask| {
        let first = results(ask).next();
        results(ask).any(|reply| {
            first.is_some_and(|first| (first.status, &first.body) != (reply.status, &reply.body))
        })
    });
    let different =
        different.map(|ask| wrong("same_replies", format!("array {}: {:?}", ask.id, ask.replies)));
    let balances = (0..ARRAY_USERS).map(array_user).filter_map(|username| {
        let points = end.users.get(&username).map(|user| user.points);
        (points != Some(expected)).then(|| {
            wrong("arrays", format!("{username} has {points:?} points after {expected} arrays of one"))
        })
    });
    different.take(8).chain(balances).collect()
}

/// The replies that are not about a fault of ours.
fn results(ask: &Ask) -> impl Iterator<Item = &Answer> {
    ask.replies.iter().filter(|reply| !is_transient(reply))
}

fn has(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}
