//! Failing on purpose: each moment is where its name says, and a worker that dies, stops or fails there does no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use lapin::{BasicProperties, message::Delivery};
use rabbitry::failpoints::{COMPILED_IN, MOMENTS, MUTANTS};
use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    database::Database,
    eventually,
    process::{Place, WorkerProcess, run, worker},
    users::{
        ForeignWriter, Stage, body, correlation, is_replayed, new_user, points, status, user, users_vhost,
    },
    vhost::Vhost,
};

/// The moments that every write passes, and what its worker has committed by then.
const OF_A_WRITE: [(&str, i64); 7] = [
    ("mid_batch", 0),
    ("before_commit", 0),
    ("after_commit", 7),
    ("before_reply", 7),
    ("after_reply", 7),
    ("before_ack", 7),
    ("after_ack", 7),
];
/// Those that have a test of their own.
const OTHERS: [&str; 3] = ["after_set_aside", "before_checkpoint", "in_migration"];

/// A worker, not started yet, that reads one of the variables.
fn armed(vhost: &Vhost, place: &Place, variable: &str, value: &str) -> Command {
    let has_failpoints = COMPILED_IN;
    assert!(has_failpoints, "this test needs `cargo test --features failpoints`, as `make test` does");
    let mut command = worker(vhost, place);
    command.env(variable, value);
    command
}

/// A worker that fails on purpose.
fn failing(vhost: &Vhost, place: &Place, failpoints: &str) -> WorkerProcess {
    WorkerProcess::spawn(armed(vhost, place, "RABBITRY_FAILPOINTS", failpoints), place)
}

/// A stage with a user who has no points.
async fn stage_with_ann() -> Stage {
    stage_with_ann_in(Place::new()).await
}

async fn stage_with_ann_in(place: Place) -> Stage {
    let mut stage = Stage::set().await;
    stage.place = place;
    let worker = stage.worker().await;
    assert_eq!(stage.ask("create", new_user("ann", 0)).await.0, 201);
    worker.stop().await;
    stage
}

/// Sends ann seven points under this id.
async fn award(stage: &Stage, id: &str) {
    let properties = stage.asking(id).with_message_id(id.into());
    stage.send("award", &json!({"username": "ann", "points": 7}), properties).await;
}

/// The replies that have come, when no more can come.
async fn replies_left(stage: &mut Stage) -> Vec<Delivery> {
    stage.vhost.publish(&stage.replies.queue, b"", stage.asking("the last")).await;
    let mut replies = Vec::new();
    loop {
        let reply = stage.replies.next().await;
        if correlation(&reply) == "the last" {
            return replies;
        }
        replies.push(reply);
    }
}

/// Waits until a worker is killed by itself.
async fn killed(worker: WorkerProcess, moment: &str) {
    let (code, log) = worker.end().await;
    assert_eq!(code, None, "{moment}: {log}");
    assert!(log.contains("this worker fails on purpose"), "{moment}: {log}");
}

#[test]
fn every_moment_has_a_test() {
    let tested = OF_A_WRITE.iter().map(|(moment, _)| *moment).chain(OTHERS);
    assert_eq!(tested.collect::<BTreeSet<_>>(), MOMENTS.iter().copied().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_at_any_moment_has_done_nothing_or_all_of_it() {
    for (moment, committed) in OF_A_WRITE {
        let mut stage = stage_with_ann().await;
        let doomed = failing(&stage.vhost, &stage.place, &format!("{moment}=kill"));
        award(&stage, "a").await;
        killed(doomed, moment).await;
        assert_eq!(points(stage.place.store(), "ann"), committed, "{moment}");
        let worker = stage.worker().await;
        let mut answers = BTreeMap::new();
        let ids = BTreeSet::from(["a".to_owned()]);
        stage.answers("award", &json!({"username": "ann", "points": 7}), &ids, &mut answers).await;
        stage.end(worker, &[]).await;
        let replies: Vec<_> = answers.into_values().chain(replies_left(&mut stage).await).collect();
        for reply in &replies {
            assert_eq!((status(reply), body(reply)), (200, user("ann", 7, "Bronze")), "{moment}");
        }
        assert_eq!(points(stage.place.store(), "ann"), 7, "{moment}");
        assert_eq!(stage.place.store().number("SELECT count(*) FROM inbox"), 1, "{moment}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_after_setting_aside_sets_it_aside_twice_and_loses_nothing() {
    let stage = Stage::set().await;
    let doomed = failing(&stage.vhost, &stage.place, "after_set_aside=kill");
    stage.send("create", &json!({"user": "ann"}), BasicProperties::default()).await;
    killed(doomed, "after_set_aside").await;
    assert_eq!(stage.vhost.ready("users.dead").await, 1);
    let worker = stage.worker().await;
    stage.end(worker, &[("users.dead", 2)]).await;
}

/// Lets starts be cut off at one moment of the migrations after the other, each on a database of its own, and then others begin.
/// Returns how many moments there are.
async fn cut_off(database: impl Fn() -> Database, mut check: impl AsyncFnMut(&mut Stage)) -> u32 {
    let mut stage = Stage::set().await;
    let mut moments = 0;
    loop {
        stage.place = Place::with(database());
        let mut doomed = failing(&stage.vhost, &stage.place, &format!("in_migration=kill@{}", moments + 1));
        eventually("it is killed, or has all migrations behind it", || {
            let decided = !doomed.is_running() || doomed.log().contains("consuming");
            async move { decided }
        })
        .await;
        if doomed.is_running() {
            doomed.stop().await;
            return moments;
        }
        moments += 1;
        let worker = stage.worker().await;
        check(&mut stage).await;
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_cut_off_in_a_migration_is_made_good_by_the_next() {
    let moments = cut_off(Database::new, async |stage| {
        assert_eq!(stage.ask("create", new_user("ann", 0)).await.0, 201);
    });
    assert!(moments.await >= 3, "the engine's migrations, and the service's");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_version_0_1_that_is_cut_off_is_made_good_by_the_next() {
    let moments = cut_off(crate::store_upgrade::of_0_1, async |stage| {
        let ann = stage.ask("get", json!({"username": "ann"})).await;
        assert_eq!(ann, (200, user("ann", 145, "Gold")));
        let properties = stage.asking("pay-day").with_message_id("pay-day".into());
        stage.send("award", &json!({"username": "ann", "points": 25}), properties).await;
        let repeated = stage.replies.next().await;
        assert!(is_replayed(&repeated));
    });
    assert!(moments.await >= 4, "the inbox, the engine's migrations, and the service's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_before_a_checkpoint_loses_nothing() {
    let mut stage = stage_with_ann_in(Place::with(Database::sqlite())).await;
    let doomed = failing(&stage.vhost, &stage.place, "before_checkpoint=kill");
    award(&stage, "a").await;
    stage.replies.next().await;
    let other = rusqlite::Connection::open(stage.place.store().path()).unwrap();
    other.execute_batch("PRAGMA wal_autocheckpoint = 0; CREATE TABLE filler (bytes BLOB)").unwrap();
    other.execute("INSERT INTO filler VALUES (zeroblob(80000000))", []).unwrap();
    killed(doomed, "before_checkpoint").await;
    drop(other);
    let worker = stage.worker().await;
    assert_eq!(stage.ask("get", json!({"username": "ann"})).await, (200, user("ann", 7, "Bronze")));
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_goes_on_where_it_was() {
    for (moment, committed) in [("before_commit", 0), ("before_ack", 7)] {
        let mut stage = stage_with_ann().await;
        let worker = failing(&stage.vhost, &stage.place, &format!("{moment}=stop@1"));
        award(&stage, "a").await;
        let is_stopped = async || {
            let state = fs::read_to_string(format!("/proc/{}/stat", worker.pid())).unwrap();
            state.rsplit(") ").next().unwrap().starts_with('T')
        };
        eventually("the worker is stopped", is_stopped).await;
        assert_eq!(points(stage.place.store(), "ann"), committed, "{moment}");
        worker.signal("CONT");
        assert_eq!(body(&stage.replies.next().await), user("ann", 7, "Bronze"));
        stage.end(worker, &[]).await;
        assert_eq!(points(stage.place.store(), "ann"), 7, "{moment}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_middle_of_a_batch_harms_only_its_command() {
    let mut stage = stage_with_ann().await;
    let worker = failing(&stage.vhost, &stage.place, "mid_batch=panic on a2");
    award(&stage, "first").await;
    stage.replies.next().await;
    worker.wait_for_log("\"queue\":\"users.award\"").await;
    let foreign = ForeignWriter::begin(stage.place.store());
    for n in 0..5 {
        award(&stage, &format!("a{n}")).await;
    }
    eventually("the worker holds them", async || stage.vhost.ready("users.award").await == 0).await;
    foreign.end();
    for _ in 0..5 {
        let reply = stage.replies.next().await;
        let expected = if correlation(&reply) == "a2" { 500 } else { 200 };
        assert_eq!(status(&reply), expected, "{}", correlation(&reply));
    }
    assert_eq!(points(stage.place.store(), "ann"), 5 * 7);
    let log = stage.end(worker, &[("users.dead", 1)]).await;
    assert!(log.contains("planted at mid_batch") && !log.contains("session ended"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_handled_as_its_place_does() {
    let mut stage = stage_with_ann().await;
    let worker = failing(&stage.vhost, &stage.place, "after_commit=error@1; before_ack=error@2");
    award(&stage, "a").await;
    let reply = stage.replies.next().await;
    assert!(is_replayed(&reply), "the outcome of the commit was not known, and the inbox told");
    award(&stage, "b").await;
    for _ in 0..2 {
        assert_eq!(body(&stage.replies.next().await), user("ann", 14, "Bronze"));
    }
    let log = stage.end(worker, &[]).await;
    assert!(log.contains("planted at after_commit") && log.contains("planted at before_ack"), "{log}");
    assert_eq!(points(stage.place.store(), "ann"), 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_yet_comes_once_although_its_queue_is_consumed_anew() {
    let mut stage = stage_with_ann().await;
    let worker = failing(&stage.vhost, &stage.place, "before_ack=sleep(3000)@1");
    award(&stage, "first").await;
    worker.wait_for_log("\"queue\":\"users.award\"").await;
    let ids = ["first", "a0", "a1"];
    for id in &ids[1..] {
        award(&stage, id).await;
    }
    for id in ids {
        let reply = stage.replies.next().await;
        assert_eq!((correlation(&reply).as_str(), is_replayed(&reply)), (id, false), "{}", worker.log());
    }
    stage.end(worker, &[]).await;
    assert!(replies_left(&mut stage).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_holds_its_moment_up() {
    let mut stage = stage_with_ann().await;
    let worker =
        failing(&stage.vhost, &stage.place, "before_commit=sleep(200); before_reply=sleep(200)@100%");
    let began = Instant::now();
    award(&stage, "a").await;
    stage.replies.next().await;
    assert!(began.elapsed().as_millis() >= 400);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_ends_a_worker_with_78() {
    let (vhost, place) = (users_vhost().await, Place::new());
    for (variable, text, told) in [
        ("RABBITRY_FAILPOINTS", "after_comit=kill", "there is no moment \"after_comit\""),
        ("RABBITRY_FAILPOINTS", "mid_batch=error", "mid_batch cannot return an error"),
        ("RABBITRY_MUTANT", "no-inbocks", "there is no mutant \"no-inbocks\", but ack-before-commit"),
    ] {
        let mut command = armed(&vhost, &place, variable, text);
        command.env("LOG_FORMAT", "text");
        let said = run(command).await.with_code(78);
        assert!(said.err.contains(variable) && said.err.contains(told), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutant_works_as_long_as_nothing_happens() {
    let mut stage = Stage::set().await;
    let sound = stage.worker().await;
    assert_eq!(stage.ask("create", new_user("ann", 0)).await.0, 201);
    let log = sound.stop().await;
    assert!(!log.contains("planted") && !log.contains("on purpose"), "{log}");
    for mutant in MUTANTS {
        let command = armed(&stage.vhost, &stage.place, "RABBITRY_MUTANT", mutant);
        let worker = WorkerProcess::spawn(command, &stage.place);
        assert_eq!(stage.ask("create", new_user(mutant, 0)).await.0, 201, "{mutant}");
        let stored = format!("SELECT count(*) FROM users WHERE username = '{mutant}'");
        eventually("the user is stored", async || stage.place.store().number(&stored) == 1).await;
        let log = worker.stop().await;
        assert!(log.contains(&format!("\"mutant\":\"{mutant}\"")), "{log}");
    }
    stage.vhost.assert_left(&[]).await;
}

/// `make build` looks for the variable's name in the programs; here it is there to be found.
#[test]
fn a_program_with_failpoints_is_told_from_one_without() {
    let makefile = fs::read_to_string(crate::tidy::root("Makefile")).unwrap();
    let mark = "RABBITRY_FAILPOINTS";
    assert!(makefile.contains(&format!("grep -la {mark} ")), "make build looks for {mark}");
    let program = fs::read(env!("CARGO_BIN_EXE_users-worker")).unwrap();
    let is_there = program.windows(mark.len()).any(|bytes| bytes == mark.as_bytes());
    assert_eq!(is_there, COMPILED_IN);
}
