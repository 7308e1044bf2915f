//! A broker that dies, freezes, is full, alarmed, or changed by its operator.

use std::time::Duration;

use futures::FutureExt;
use lapin::BasicProperties;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Cell;
use crate::{broker, stage::Stage, support::vhost::request};

/// Messages around the one that kills workers; less than a worker holds.
const NEIGHBOURS: u32 = 200;
/// Longer than two heartbeats.
const FROZEN: Duration = Duration::from_secs(7);

pub fn cells() -> Vec<Cell> {
    vec![
        cell("killed and restarted", |stage| killed(stage).boxed_local()),
        cell("frozen", |stage| frozen(stage).boxed_local()),
        cell("connections closed by the operator", |stage| connections_closed(stage).boxed_local()).quick(),
        cell("queue deleted and made again", |stage| queue_deleted(stage).boxed_local()),
        cell("memory alarm", |stage| memory_alarm(stage).boxed_local()),
        cell("disk alarm", |stage| disk_alarm(stage).boxed_local()),
        cell("queue full", |stage| queue_full(stage).boxed_local()),
        cell("delivery limit reached", |stage| delivery_limit(stage).boxed_local()),
    ]
}

const fn cell(name: &'static str, fault: super::Fault) -> Cell {
    Cell::new("broker", name, fault)
}

async fn killed(stage: &mut Stage) {
    stage.go_on(0.3).await;
    broker::kill();
    broker::start().await;
    stage.go_on(0.7).await;
}

async fn frozen(stage: &mut Stage) {
    stage.go_on(0.2).await;
    broker::signal(Signal::STOP);
    sleep(FROZEN).await;
    broker::signal(Signal::CONT);
    stage.go_on(0.5).await;
    stage.expect_logged("session ended");
}

async fn connections_closed(stage: &mut Stage) {
    let close = async |stage: &mut Stage| {
        for connection in stage.vhost.connections() {
            if let Some(name) = connection["name"].as_str() {
                let id = name.replace(' ', "%20").replace('>', "%3E");
                // It may have gone meanwhile, and then the API refuses.
                let url = stage.vhost.management_url().clone();
                let delete = move || {
                    let path = format!("/api/connections/{id}");
                    drop(std::panic::catch_unwind(|| request(&url, "DELETE", &path, None)));
                };
                tokio::task::spawn_blocking(delete).await.expect("it ran");
            }
        }
    };
    stage.until_over(Duration::from_secs(1), close).await;
}

/// What lies in a queue that is deleted is gone with it, so it is the queue of a command that only reads: its clients
/// ask again.
async fn queue_deleted(stage: &mut Stage) {
    stage.go_on(0.3).await;
    stage.vhost.delete_queue("users.get").await;
    stage.go_on(0.3).await;
    stage.vhost.declare_service("users", &["get"], 20).await;
    stage.go_on(0.4).await;
    stage.expect_logged("the broker cancelled the consumer");
}

/// What a worker says when the broker is alarmed.
const BLOCKED: &str = "the broker blocks publishers";

async fn memory_alarm(stage: &mut Stage) {
    stage.go_on(0.2).await;
    broker::ctl(&["set_vm_memory_high_watermark", "0.0000001"]).await;
    stage.go_on(0.5).await;
    broker::ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
    stage.expect_logged(BLOCKED);
    stage.go_on(0.3).await;
}

async fn disk_alarm(stage: &mut Stage) {
    stage.go_on(0.2).await;
    broker::ctl(&["set_disk_free_limit", "900000GB"]).await;
    stage.go_on(0.5).await;
    broker::ctl(&["set_disk_free_limit", "50MB"]).await;
    stage.expect_logged(BLOCKED);
    stage.go_on(0.3).await;
}

/// How long it may take until a queue that nobody serves refuses something.
const REFUSED_PATIENCE: Duration = Duration::from_secs(10);

const COMMANDS: &str = "^users\\.(create|award|promote|get)$";

/// Clients are refused while no worker takes what has an effect. Frozen workers would have room for all of it: so they
/// are killed, and the next ones only read for a while.
async fn queue_full(stage: &mut Stage) {
    stage.set_policy("full", COMMANDS, Some(json!({"max-length": 5, "overflow": "reject-publish"})));
    stage.fleet.set("WORKER_COMMANDS", "get");
    stage.kill_all();
    // Who is not answered sends again after a second.
    let until = Instant::now() + REFUSED_PATIENCE;
    while stage.workload.recorder.refused() == 0 && Instant::now() < until {
        stage.go_on(0.05).await;
    }
    stage.go_on(0.2).await;
    stage.fleet.unset("WORKER_COMMANDS");
    stage.kill_all();
    stage.go_on(0.2).await;
    stage.set_policy("full", COMMANDS, None);
    if stage.workload.recorder.refused() == 0 {
        stage.wrong("the fault did not happen: nothing was refused");
    }
}

/// One user's commands kill every worker that takes them. They are set aside, and their neighbours are
/// not, though many lie before and behind them: they are handled alone before they have died with them ten times.
async fn delivery_limit(stage: &mut Stage) {
    stage.set_policy(
        "limit",
        COMMANDS,
        Some(json!({"delivery-limit": 10, "dead-letter-exchange": "users.dead"})),
    );
    stage.arm("before_commit=kill on poison");
    stage.go_on(0.2).await;
    stage.fleet.signal_all(Signal::STOP);
    for n in 0..NEIGHBOURS {
        let username = if n == NEIGHBOURS / 2 { "poison" } else { "nobody" };
        let body = json!({ "username": username }).to_string();
        let properties = BasicProperties::default().with_message_id(format!("{username}-{n}").into());
        stage.vhost.publish("users.promote", body.as_bytes(), properties).await;
    }
    stage.fleet.signal_all(Signal::CONT);
    let set_aside = async {
        while stage.vhost.ready("users.dead").await == 0 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), set_aside).await.is_err() {
        stage.wrong("the message that kills workers was not set aside");
    }
    if stage.vhost.ready("users.dead").await > 1 {
        stage.wrong("neighbours of the message that kills workers were set aside");
    }
    stage.disarm();
    stage.set_policy("limit", COMMANDS, None);
}
