//! The worker as a process, on a store in a file.

mod faults;
mod files;
mod logs;
mod start;
mod stores;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use lapin::BasicProperties;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{
    eventually,
    process::{WorkerProcess, cli, run_with_lines, worker},
    users::{
        ForeignWriter, Stage, body, correlation, is_replayed, new_user, points, status, user, wait_for_points,
    },
    vhost::request,
};

/// Awards of one point each, with an id each.
fn awards(stage: &Stage, username: &str, count: usize) -> Vec<(Vec<u8>, BasicProperties)> {
    let payload = json!({"username": username, "points": 1}).to_string().into_bytes();
    (0..count)
        .map(|n| {
            let id = format!("award-{n}");
            (payload.clone(), stage.asking(&id).with_message_id(id.as_str().into()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_is_done_through_its_routing_key_and_through_its_queue() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    for (name, exchange) in [("ann", "users.commands"), ("bob", "")] {
        let bronze = user(name, 120, "Bronze");
        let gold = user(name, 95, "Gold");
        let tour = [
            ("create", new_user(name, 120), 201, bronze.clone()),
            ("get", json!({"username": name}), 200, bronze),
            ("promote", json!({"username": name}), 200, user(name, 120, "Gold")),
            ("award", json!({"username": name, "points": -25}), 200, gold.clone()),
            ("list", json!({"limit": 1000, "after": format!("{name}-")}), 200, json!({"users": []})),
            ("get", json!({"username": name}), 200, gold),
        ];
        for (command, payload, expected_status, expected) in tour {
            let key = if exchange.is_empty() { format!("users.{command}") } else { command.to_owned() };
            let payload = payload.to_string();
            stage.vhost.publish_to(exchange, &key, payload.as_bytes(), stage.asking(command)).await;
            let reply = stage.replies.next().await;
            assert_eq!((status(&reply), body(&reply)), (expected_status, expected), "{command} {payload}");
            assert_eq!(correlation(&reply), command);
            let kind = reply.properties.kind().as_ref().unwrap().to_string();
            assert_eq!(kind, format!("users.{command}.reply"));
        }
    }
    let (_, page) = stage.ask("list", json!({"limit": 1})).await;
    assert_eq!(page, json!({"users": [user("ann", 95, "Gold")], "next": "ann"}));
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_done_to_the_last_command() {
    let mut stage = Stage::set().await;
    stage.send("create", &new_user("ann", 0), BasicProperties::default()).await;
    let awards = awards(&stage, "ann", 600);
    let worker = stage.worker().await;
    eventually("ann is there", async || stage.place.store().number("SELECT count(*) FROM users") == 1).await;
    stage.vhost.publish_all("users.award", awards).await;
    for _ in 0..600 {
        assert_eq!(status(&stage.replies.next().await), 200);
    }
    worker.stop().await;
    // Once more, with everything there before the worker.
    let again = json!({"username": "ann", "points": 1}).to_string().into_bytes();
    let again = (0..600).map(|_| (again.clone(), stage.asking("again")));
    stage.vhost.publish_all("users.award", again).await;
    let worker = stage.worker().await;
    for _ in 0..600 {
        assert_eq!(status(&stage.replies.next().await), 200);
    }
    assert_eq!(points(stage.place.store(), "ann"), 1200);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_signal_finishes_what_was_delivered_and_ends_with_0() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    // The first success lets the worker take many at a time.
    stage.ask("award", json!({"username": "ann", "points": 7})).await;
    worker.wait_for_log("\"queue\":\"users.award\"").await;
    let total = 5000;
    // Nothing is done before all is there.
    let foreign = ForeignWriter::begin(stage.place.store());
    stage.vhost.publish_all("users.award", awards(&stage, "ann", total)).await;
    foreign.end();
    stage.replies.next().await;
    let log = worker.stop().await;
    assert!(log.contains("stopped; nothing was left unfinished"), "{log}");
    assert!(!log.contains("dropped instead of closed"), "replies and acknowledgements may be lost: {log}");
    let done = usize::try_from(points(stage.place.store(), "ann") - 7).unwrap();
    let left = usize::try_from(stage.vhost.ready("users.award").await).unwrap();
    assert!(done > 100 && left > 0, "it was stopped in the middle: {done} done, {left} left");
    assert_eq!(done + left, total);
    // Every command that was done was answered.
    for _ in 1..done {
        assert!(!is_replayed(&stage.replies.next().await));
    }
    let worker = stage.worker().await;
    for _ in done..total {
        assert_eq!(status(&stage.replies.next().await), 200);
    }
    assert_eq!(points(stage.place.store(), "ann"), i64::try_from(total + 7).unwrap());
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_a_store_and_a_rolling_restart_fails_no_command() {
    let mut stage = Stage::set().await;
    let mut workers = [stage.worker().await, stage.worker().await];
    stage.vhost.wait_for_consumers("users.award", 2).await;
    stage.ask("create", new_user("ann", 0)).await;
    let send = cli(
        &stage.vhost,
        &stage.place,
        &["send", "users.award", "-", "--in-flight", "200", "--timeout", "60"],
    );
    let enough = CancellationToken::new();
    let sent = Arc::new(AtomicI64::new(0));
    let lines = {
        let (enough, sent) = (enough.clone(), Arc::clone(&sent));
        std::iter::from_fn(move || {
            (!enough.is_cancelled()).then(|| {
                sent.fetch_add(1, Ordering::SeqCst);
                "{\"username\":\"ann\",\"points\":1}\n".to_owned()
            })
        })
    };
    let sending = tokio::spawn(run_with_lines(send, lines));
    let more = async |points_before: i64| {
        let more = async || points(stage.place.store(), "ann") > points_before + 500;
        eventually("the load goes on", more).await;
        points(stage.place.store(), "ann")
    };
    let mut done = more(0).await;
    for worker in &mut workers {
        let old = std::mem::replace(worker, WorkerProcess::start(&stage.vhost, &stage.place));
        let log = old.stop().await;
        assert!(log.contains("\"batch.size\":"), "it took part in the work: {log}");
        worker.wait_for_log("consuming").await;
        done = more(done).await;
    }
    enough.cancel();
    let said = sending.await.unwrap().with_code(0);
    let sent = sent.load(Ordering::SeqCst);
    assert_eq!(i64::try_from(said.out.lines().count()).unwrap(), sent);
    assert!(said.out.lines().all(|line| line.contains("\"username\":\"ann\"")));
    assert_eq!(points(stage.place.store(), "ann"), sent);
    let [one, other] = workers;
    one.stop().await;
    stage.end(other, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_serves_the_commands_it_is_told_to() {
    let mut stage = Stage::set().await;
    stage.send("create", &new_user("ann", 5), stage.asking("waits")).await;
    let mut readers = worker(&stage.vhost, &stage.place);
    readers.args(["--commands", "get,list"]);
    let readers = WorkerProcess::spawn(readers, &stage.place);
    readers.wait_for_log("consuming").await;
    assert_eq!(stage.ask("get", json!({"username": "ann"})).await.0, 404);
    for (queue, consumers) in [("create", 0), ("award", 0), ("promote", 0), ("get", 1), ("list", 1)] {
        // After its first success, a queue's consumer is made anew.
        stage.vhost.wait_for_consumers(&format!("users.{queue}"), consumers).await;
    }
    assert_eq!(stage.vhost.ready("users.create").await, 1);
    let mut writers = worker(&stage.vhost, &stage.place);
    writers.env("WORKER_COMMANDS", "create");
    let writers = WorkerProcess::spawn(writers, &stage.place);
    assert_eq!(body(&stage.replies.next().await), user("ann", 5, "Bronze"));
    assert_eq!(stage.ask("get", json!({"username": "ann"})).await.0, 200);
    writers.stop().await;
    stage.end(readers, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_recognises_workers_in_the_management_ui() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let pid = worker.pid().to_string();
    for purpose in ["(commands)", "(replies)"] {
        eventually(&format!("a connection for {purpose} of {pid} is listed"), async || {
            stage.vhost.connections().iter().any(|connection| {
                let name = connection["client_properties"]["connection_name"].as_str().unwrap_or_default();
                name.starts_with("users worker ") && name.contains(&pid) && name.ends_with(purpose)
            })
        })
        .await;
    }
    let path = format!("/api/consumers/{}", stage.vhost.name());
    let tags = || {
        let named = |consumer: &serde_json::Value| {
            let queue = consumer["queue"]["name"].as_str()?.to_owned();
            Some((queue, consumer["consumer_tag"].as_str()?.to_owned()))
        };
        let consumers = request(stage.vhost.management_url(), "GET", &path, None);
        let tags = consumers.as_array().unwrap().iter().filter_map(named);
        tags.filter(|(queue, _)| queue != "reply.test").collect::<Vec<_>>()
    };
    eventually("the consumers are listed", async || tags().len() == 5).await;
    for (queue, tag) in tags() {
        assert!(tag.starts_with(&format!("{queue}@")) && tag.ends_with(&format!(":{pid}")), "{queue} {tag}");
    }
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_any_property_is_done() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    stage.send("award", &json!({"username": "ann", "points": 7}), BasicProperties::default()).await;
    wait_for_points(stage.place.store(), "ann", 7).await;
    stage.end(worker, &[]).await;
}
