//! Workers that are killed, signalled twice, or meet a store that somebody else has locked.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::awards;
use crate::support::{
    eventually,
    process::{WorkerProcess, worker},
    users::{ForeignWriter, Stage, body, correlation, is_replayed, new_user, points, status, user},
};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_everything_is_done_exactly_once_and_answered() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    let total: usize = 3000;
    // Nothing is done before all is there.
    let foreign = ForeignWriter::begin(stage.place.store());
    stage.vhost.publish_all("users.award", awards(&stage, "ann", total)).await;
    foreign.end();
    let mut answers = BTreeMap::new();
    for _ in 0..20 {
        let reply = stage.replies.next().await;
        answers.insert(correlation(&reply), reply);
    }
    worker.kill();
    let done = points(stage.place.store(), "ann");
    assert!(done >= 20 && done < i64::try_from(total).unwrap(), "killed in the middle: {done}");
    let worker = stage.worker().await;
    let ids = (0..total).map(|n| format!("award-{n}")).collect();
    stage.answers("award", &json!({"username": "ann", "points": 1}), &ids, &mut answers).await;
    assert!(answers.values().all(|reply| status(reply) == 200));
    assert_eq!(points(stage.place.store(), "ann"), i64::try_from(total).unwrap());
    let inbox: i64 = stage.place.store().number("SELECT count(*) FROM inbox WHERE message_id LIKE 'award-%'");
    assert_eq!(inbox, i64::try_from(total).unwrap());
    // Each balance was replied once: no two commands saw the same state.
    let balances: BTreeSet<_> = answers.values().map(|reply| body(reply)["points"].as_i64()).collect();
    assert_eq!(balances.len(), total);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_worker_at_once() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    let foreign = ForeignWriter::begin(stage.place.store());
    stage
        .send(
            "award",
            &json!({"username": "ann", "points": 7}),
            stage.asking("a").with_message_id("a".into()),
        )
        .await;
    eventually("the worker holds the command", async || stage.vhost.ready("users.award").await == 0).await;
    worker.signal("TERM");
    worker.wait_for_log("stopping").await;
    worker.signal("INT");
    let (code, log) = worker.end().await;
    assert_eq!(code, Some(130), "{log}");
    foreign.end();
    let worker = stage.worker().await;
    assert_eq!(body(&stage.replies.next().await), user("ann", 7, "Bronze"));
    assert_eq!(points(stage.place.store(), "ann"), 7);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_kept_while_another_program_locks_the_store_and_then_done_once() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    let foreign = ForeignWriter::begin(stage.place.store());
    for n in 0..50 {
        let id = format!("a{n}");
        let properties = stage.asking(&id).with_message_id(id.as_str().into());
        stage.send("award", &json!({"username": "ann", "points": 1}), properties).await;
    }
    // Reading goes on meanwhile.
    assert_eq!(stage.ask("get", json!({"username": "ann"})).await, (200, user("ann", 0, "Bronze")));
    worker.wait_for_log("keeping a batch").await;
    assert_eq!(points(stage.place.store(), "ann"), 0);
    foreign.end();
    for _ in 0..50 {
        let reply = stage.replies.next().await;
        assert_eq!((status(&reply), is_replayed(&reply)), (200, false), "{}", worker.log());
    }
    assert_eq!(points(stage.place.store(), "ann"), 50);
    let log = stage.end(worker, &[]).await;
    assert!(log.contains("the store answers again"), "{log}");
    assert!(!log.contains("session ended"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_while_the_store_is_locked_gives_its_commands_back() {
    let mut stage = Stage::set().await;
    let mut command = worker(&stage.vhost, &stage.place);
    command.args(["--shutdown-timeout", "1"]);
    let worker = WorkerProcess::spawn(command, &stage.place);
    stage.ask("create", new_user("ann", 0)).await;
    let foreign = ForeignWriter::begin(stage.place.store());
    stage
        .send(
            "award",
            &json!({"username": "ann", "points": 7}),
            stage.asking("a").with_message_id("a".into()),
        )
        .await;
    eventually("the worker holds the command", async || stage.vhost.ready("users.award").await == 0).await;
    let log = worker.stop_with_code(75).await;
    assert!(log.contains("shutdown time is over"), "{log}");
    eventually("the command is back", async || stage.vhost.ready("users.award").await == 1).await;
    foreign.end();
    let worker = stage.worker().await;
    assert_eq!(body(&stage.replies.next().await), user("ann", 7, "Bronze"));
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_starts_although_another_program_locks_the_store() {
    let mut stage = Stage::set().await;
    let first = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    first.stop().await;
    let foreign = ForeignWriter::begin(stage.place.store());
    let worker = WorkerProcess::start(&stage.vhost, &stage.place);
    stage.send("award", &json!({"username": "ann", "points": 7}), stage.asking("a")).await;
    // It either waits for the store or serves what it can; in no case it gives up.
    eventually("the worker has met the lock", async || {
        worker.log().contains("waiting for the store") || worker.log().contains("keeping a batch")
    })
    .await;
    foreign.end();
    assert_eq!(body(&stage.replies.next().await), user("ann", 7, "Bronze"));
    stage.end(worker, &[]).await;
}
