//! Lines that break, stall, or lose what matters.

use std::time::Duration;

use futures::FutureExt;
use lapin::{
    BasicProperties,
    options::QueuePurgeOptions,
    types::{AMQPValue, FieldTable},
};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep, timeout},
};
use wildmatch::WildMatch;

use super::Cell;
use crate::{
    proxy::{Class, Direction, Rule},
    stage::Stage,
    support::database::ForeignWriter,
};

/// How often the store is locked.
const LOCKS: u32 = 4;
/// Longer than two heartbeats of 2 s, and the broker's own.
const SILENCE: Duration = Duration::from_secs(8);

pub fn cells() -> Vec<Cell> {
    vec![
        cell("workers' line reset", |stage| resets(stage, true, false).boxed_local()).quick(),
        cell("clients' line reset", |stage| resets(stage, false, true).boxed_local()),
        cell("both lines flapping", |stage| resets(stage, true, true).boxed_local()),
        cell("workers' line reset at a locked store", |stage| reset_at_locked_store(stage).boxed_local()),
        cell("workers' line cut within a frame", |stage| cut(stage).boxed_local()).quick(),
        cell("reset while a session begins", |stage| beginning(stage, Harm::Reset).boxed_local()).quick(),
        cell("closed while a session begins", |stage| beginning(stage, Harm::Close).boxed_local()),
        cell("garbage while a session begins", |stage| beginning(stage, Harm::Garbage).boxed_local()),
        cell("frame too large while a session begins", |stage| outgrown(stage).boxed_local()),
        cell("workers' line half open", |stage| silent(stage, Direction::Both, true).boxed_local()),
        cell("workers hear nothing", |stage| silent(stage, Direction::ToClient, true).boxed_local()),
        cell("workers are not heard", |stage| silent(stage, Direction::ToServer, true).boxed_local()),
        cell("clients' line half open", |stage| silent(stage, Direction::Both, false).boxed_local()),
        cell("slow lines", |stage| {
            ruled(stage, Rule::Delay { by: Duration::from_millis(100), jitter: Duration::from_millis(100) })
                .boxed_local()
        }),
        cell("a byte at a time", |stage| ruled(stage, Rule::Slices { bytes: 1 }).boxed_local()),
        cell("narrow lines", |stage| ruled(stage, Rule::Throttle { bytes_per_second: 40_000 }).boxed_local()),
        cell("confirms lost", |stage| confirms_lost(stage).boxed_local()),
        cell("acknowledgements lost", |stage| acks_lost(stage).boxed_local()).quick(),
        cell("replies lost", |stage| replies_lost(stage).boxed_local()),
        cell("requesters gone", |stage| requesters_gone(stage).boxed_local()),
        cell("requester's node gone", |stage| unknown_node(stage).boxed_local()),
    ]
}

const fn cell(name: &'static str, fault: super::Fault) -> Cell {
    Cell::new("network", name, fault)
}

async fn resets(stage: &mut Stage, workers: bool, clients: bool) {
    let reset = async |stage: &mut Stage| {
        if workers {
            stage.workers_line.reset();
        }
        if clients {
            stage.clients_line.reset();
        }
        sleep(Duration::from_millis(stage.rng.u64(0..1000))).await;
    };
    stage.until_over(Duration::from_millis(300), reset).await;
}

/// What the workers have in hand, and have not begun to write, comes again: to another worker, or to the same.
async fn reset_at_locked_store(stage: &mut Stage) {
    for _ in 0..LOCKS {
        let writer = block_in_place(|| ForeignWriter::begin(stage.place.store()));
        stage.go_on(0.1).await;
        stage.workers_line.reset();
        stage.go_on(0.05).await;
        block_in_place(|| writer.end());
        stage.go_on(0.1).await;
    }
}

async fn cut(stage: &mut Stage) {
    let cut = async |stage: &mut Stage| {
        let direction = if stage.rng.bool() { Direction::ToServer } else { Direction::ToClient };
        stage.workers_line.cut_after(direction, stage.rng.u64(1..20_000));
    };
    stage.until_over(Duration::from_millis(700), cut).await;
}

#[derive(Clone, Copy, PartialEq)]
enum Harm {
    Reset,
    Close,
    Garbage,
}

/// Workers open their connections again and again, and each time something happens meanwhile.
async fn beginning(stage: &mut Stage, harm: Harm) {
    let before = stage.workers_line.counters().connections;
    let harm = async |stage: &mut Stage| {
        // All of them begin anew.
        stage.workers_line.reset();
        for _ in 0..8 {
            match harm {
                Harm::Close => {
                    sleep(Duration::from_millis(stage.rng.u64(0..60))).await;
                    stage.workers_line.close();
                }
                _ => {
                    let direction = if stage.rng.bool() { Direction::ToServer } else { Direction::ToClient };
                    let bytes = stage.rng.u64(1..4_000);
                    match harm {
                        Harm::Garbage => stage.workers_line.garble_after(direction, bytes),
                        _ => stage.workers_line.cut_after(direction, bytes),
                    }
                    sleep(Duration::from_millis(stage.rng.u64(5..60))).await;
                }
            }
        }
    };
    stage.until_over(Duration::from_millis(200), harm).await;
    stage.workers_line.heal();
    stage.workers_line.reset();
    if stage.workers_line.counters().connections < before + 10 {
        stage.wrong("the fault did not happen: the workers opened hardly any connection");
    }
    all_consume(stage).await;
}

/// Longer than a session may take to be opened, and the longest pause between two.
const CONSUMING_MAX: Duration = Duration::from_secs(60);

/// No worker that lives may be left without a session: it is not enough that others do its work.
async fn all_consume(stage: &mut Stage) {
    let workers = stage.fleet.size();
    let until = Instant::now() + CONSUMING_MAX;
    for queue in ["users.create", "users.get", "users.award", "users.promote", "users.list"] {
        loop {
            let (_, consumers) = stage.vhost.counts(queue).await;
            if usize::try_from(consumers).is_ok_and(|consumers| consumers == workers) {
                break;
            }
            if Instant::now() > until {
                return stage.wrong(format!("{consumers} of {workers} workers consume {queue}"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Messages that fill a frame do not fit into one when the broker delivers them again, as it counts deliveries in a header.
async fn outgrown(stage: &mut Stage) {
    let mut headers = FieldTable::default();
    headers.insert("h".into(), AMQPValue::LongString(vec![b'x'; 131_039].into()));
    let properties = BasicProperties::default().with_headers(headers);
    let messages = 3;
    for _ in 0..messages {
        stage.vhost.publish("users.list", b"{\"limit\":-1}", properties.clone()).await;
        // Mostly it is in a worker's hands when that is killed; if not, it was dead-lettered as any other.
        stage.kill_all();
        stage.go_on(0.3).await;
    }
    all_consume(stage).await;
    let dead = async {
        while stage.vhost.ready("users.dead").await < messages {
            sleep(Duration::from_millis(50)).await
        }
    };
    if timeout(CONSUMING_MAX, dead).await.is_err() {
        stage.wrong("a message that outgrew its frame is not dead-lettered");
    }
    // Nor can the checkers read them. A worker that is killed between publishing a copy and acknowledging leaves two.
    let purged = stage.vhost.channel.queue_purge("users.dead".into(), QueuePurgeOptions::default()).await;
    if !matches!(purged, Ok(purged) if (messages..=2 * messages).contains(&purged)) {
        stage.wrong(format!("there are other dead letters than those that were sent: {purged:?}"));
    }
}

async fn silent(stage: &mut Stage, direction: Direction, workers: bool) {
    stage.go_on(0.2).await;
    let line = if workers { &stage.workers_line } else { &stage.clients_line };
    line.set(direction, &Rule::Blackhole);
    sleep(SILENCE).await;
    line.heal();
    stage.go_on(0.3).await;
    if workers {
        stage.expect_logged("session ended");
    }
}

async fn ruled(stage: &mut Stage, rule: Rule) {
    stage.workers_line.set(Direction::Both, &rule);
    stage.clients_line.set(Direction::Both, &rule);
    stage.go_on(1.0).await;
}

async fn confirms_lost(stage: &mut Stage) {
    let lose = async |stage: &mut Stage| {
        stage.clients_line.set(Direction::ToClient, &Rule::Drop(Class::Confirms));
        sleep(Duration::from_millis(500)).await;
        // Later confirms are not to be taken for those that were lost.
        stage.clients_line.reset();
        stage.clients_line.heal();
    };
    stage.until_over(Duration::from_millis(300), lose).await;
    fault_happened(stage, stage.clients_line.counters().frames_dropped);
}

async fn acks_lost(stage: &mut Stage) {
    let lose = async |stage: &mut Stage| {
        stage.workers_line.set(Direction::ToServer, &Rule::Drop(Class::Acks));
        sleep(Duration::from_millis(500)).await;
        stage.workers_line.reset();
        stage.workers_line.heal();
    };
    stage.until_over(Duration::from_millis(300), lose).await;
    fault_happened(stage, stage.workers_line.counters().frames_dropped);
}

async fn replies_lost(stage: &mut Stage) {
    for pattern in ["amq.rabbitmq.reply-to*", "reply.*"] {
        stage.workers_line.set(Direction::ToServer, &Rule::Drop(Class::PublishesTo(WildMatch::new(pattern))));
        stage.go_on(0.3).await;
        stage.workers_line.heal();
        stage.go_on(0.2).await;
    }
    fault_happened(stage, stage.workers_line.counters().frames_dropped);
}

fn fault_happened(stage: &mut Stage, frames: u64) {
    if frames == 0 {
        stage.wrong("the fault did not happen: no frame was dropped");
    }
}

async fn requesters_gone(stage: &mut Stage) {
    let drop_connections = async |stage: &mut Stage| {
        stage.workload.links.iter().for_each(|link| link.drop_connection());
    };
    stage.until_over(Duration::from_millis(400), drop_connections).await;
}

/// Well-formed direct addresses of a node that is not there, between the others' commands.
async fn unknown_node(stage: &mut Stage) {
    let mut count = 0;
    let ask = async |stage: &mut Stage| {
        count += 1;
        let properties = BasicProperties::default()
            .with_message_id(format!("nowhere-{count}").into())
            .with_reply_to("amq.rabbitmq.reply-to.g1h3AAR0ZXN0AAAAAQAAAAAAAAAAAAAAAA==.c29tZXdoZXJl".into());
        stage.vhost.publish("users.get", br#"{"username":"nobody"}"#, properties).await;
    };
    stage.until_over(Duration::from_millis(200), ask).await;
}
