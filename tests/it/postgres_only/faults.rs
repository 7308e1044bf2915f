//! What the database refuses, ends or forgets in the middle of the work.

use std::time::Duration;

use rabbitry::{
    clock::unix_ms,
    service::{Access, Request},
    store::Options,
};
use serde_json::json;

use crate::support::{
    ask::{Ask, ask, award, body, create, get, gists},
    database::{Database, ForeignWriter, Worker},
    eventually, soon,
};
use users::commands::Users;

const DAY: i64 = 24 * 60 * 60 * 1000;

async fn points(worker: &Worker, username: &str) -> i64 {
    body(&worker.answer_one(&get(username)).await)["points"].as_i64().unwrap()
}

/// A trigger that runs a statement whenever a user of this name is written.
fn plant(database: &Database, when: &str, username: &str, statement: &str) {
    database.change(&format!(
        "CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF new.username = '{username}' THEN {statement}; END IF;
             RETURN new;
         END $$;
         CREATE {when} ON users {} FOR EACH ROW EXECUTE FUNCTION planted()",
        if when.starts_with("CONSTRAINT") { "DEFERRABLE INITIALLY DEFERRED" } else { "" }
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_the_database_refuses_is_isolated() {
    let database = Database::postgres();
    let worker = database.open().await;
    plant(&database, "TRIGGER planted BEFORE INSERT", "poison", "RAISE EXCEPTION 'planted'");
    let user = |name: &str| json!({"username": name, "email": "a@b.c"});
    let batch = [
        create("ann").id("1"),
        create("poison").id("2"),
        award("ann", 7).id("3"),
        ask("create", json!([user("bob"), user("poison")])).id("4"),
        get("bob"),
        create("bob").id("5"),
    ];
    let replies = worker.answer(&batch).await;
    assert_eq!(gists(&replies), ["201", "internal", "200", "internal", "user_not_found", "201"]);
    assert!(!String::from_utf8_lossy(&replies[1].body).contains("planted"), "the reason is for the log");
    // What was refused is not remembered: once the fault is mended the same id is executed.
    database.change("DROP TRIGGER planted ON users");
    let again = worker.answer(&batch[..3]).await;
    assert_eq!(again.iter().map(|reply| reply.replayed).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(gists(&again), ["201", "201", "200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_is_the_fault_of_no_other() {
    let database = Database::postgres();
    let worker = database.open().await;
    worker.answer(&[create("ann"), create("odd")]).await;
    database.change(
        "ALTER TABLE users DROP CONSTRAINT users_status_check;
         UPDATE users SET status = 'Platinum' WHERE username = 'odd'",
    );
    assert_eq!(gists(&worker.answer(&[get("ann"), get("odd")]).await), ["200", "internal"]);
    assert_eq!(gists(&worker.answer(&[award("odd", 1), award("ann", 1)]).await), ["internal", "200"]);
    assert_eq!(database.number("SELECT points FROM users WHERE username = 'odd'"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_environment_is_no_answer_and_passes() {
    let database = Database::postgres();
    let worker = database.open().await;
    database.change("ALTER TABLE inbox RENAME TO away");
    let error =
        worker.store.apply(Access::Write, worker.requests(&[create("ann").id("1")])).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("\"inbox\" does not exist"), "{error}");
    database.change("ALTER TABLE away RENAME TO inbox");
    assert_eq!(gists(&worker.answer(&[create("ann").id("1")]).await), ["201"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_the_server_ended_are_opened_again_without_a_failure() {
    let database = Database::postgres();
    let worker = database.open().await;
    worker.answer_one(&create("ann")).await;
    for round in 1..=5 {
        worker.answer(&[award("ann", 1).id(&round.to_string()), get("ann")]).await;
        database.end_sessions("true");
        assert_eq!(points(&worker, "ann").await, round);
    }
    worker.store.ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_in_the_middle_is_tried_again_on_another() {
    let database = Database::postgres();
    let worker = database.open().await;
    worker.answer_one(&create("ann")).await;
    let foreign = ForeignWriter::begin(&database);
    let asked = [award("ann", 1)];
    let waiting = worker.store.apply(Access::Write, worker.requests(&asked));
    let meddling = async {
        eventually("it waits for the lock", async || database.end_sessions("wait_event_type = 'Lock'") == 1)
            .await;
        foreign.end();
    };
    let (replies, ()) = tokio::join!(waiting, meddling);
    assert_eq!(replies.unwrap()[0].status, 200);
    // Without an id, and yet done once: nothing had been committed.
    assert_eq!(points(&worker, "ann").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_outcome_is_not_known_is_asked_for_again_and_done_once() {
    let database = Database::postgres();
    let worker = database.open().await;
    worker.answer_one(&create("ann")).await;
    plant(&database, "CONSTRAINT TRIGGER planted AFTER UPDATE", "ann", "PERFORM pg_advisory_xact_lock(1)");
    let gate = crate::support::postgres::Session::open(&database.url);
    gate.rows("SELECT pg_advisory_lock(1)").unwrap();
    let asked = [award("ann", 1).id("a")];
    let committing = worker.store.apply(Access::Write, worker.requests(&asked));
    let meddling = async {
        let in_commit = "query LIKE '%COMMIT' AND wait_event = 'advisory'";
        eventually("it commits", async || database.end_sessions(in_commit) == 1).await;
        gate.rows("SELECT pg_advisory_unlock(1)").unwrap();
    };
    let (outcome, ()) = tokio::join!(committing, meddling);
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("the outcome of a commit is not known"), "{error}");
    worker.answer(&asked).await;
    assert_eq!(points(&worker, "ann").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_locked_for_long_is_told_and_left_to_the_caller() {
    let database = Database::postgres();
    let worker = database.open().await;
    worker.answer_one(&create("ann")).await;
    let foreign = ForeignWriter::begin(&database);
    assert_eq!(points(&worker, "ann").await, 0, "readers do not wait for writers");
    let error =
        worker.store.apply(Access::Write, worker.requests(&[award("ann", 1)])).await.unwrap_err().to_string();
    assert!(error.contains("55P03") && error.contains("holds a lock for long"), "{error}");
    foreign.end();
    assert_eq!(gists(&worker.answer(&[award("ann", 1)]).await), ["200"]);
}

async fn wait_for_replies(database: &Database, expected: &[&str]) {
    let ids = "SELECT convert_from(message_id, 'UTF8') FROM inbox ORDER BY 1";
    eventually(&format!("{expected:?} are remembered"), async || database.rows(ids).concat() == expected)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_replies_are_forgotten_and_young_ones_are_not() {
    let database = Database::postgres();
    let past = database.open().await;
    let old: Vec<Ask> = (0..600).map(|n| award("ann", 1).id(&format!("old-{n}"))).collect();
    past.answer(&[&[create("ann")], &old[..]].concat()).await;
    past.answer_one(&award("ann", 1).id("young")).await;
    let age = |days| unix_ms() - days * DAY;
    database.change(&format!("UPDATE inbox SET created_at = {}", age(9)));
    database.change(&format!("UPDATE inbox SET created_at = {} WHERE message_id = 'young'", age(1)));
    // Several steps, by one of them at a time.
    let today = [database.open().await, database.open().await];
    wait_for_replies(&database, &["young"]).await;
    let replies = today[0].answer(&[award("ann", 1).id("old-1"), award("ann", 1).id("young")]).await;
    assert_eq!(replies.iter().map(|reply| reply.replayed).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_clock_is_wrong_forgets_nothing() {
    let database = Database::postgres();
    database.open().await.answer(&[create("ann"), award("ann", 1).id("a")]).await;
    let misled = database.open_with(Options { clock: || unix_ms() + 365 * DAY, ..Options::default() }).await;
    // Its first purge is over when its session waits for another step.
    eventually("it has purged", async || database.count_sessions("state = 'idle' AND query = 'COMMIT'") > 0)
        .await;
    assert!(misled.answer_one(&award("ann", 1).id("a")).await.replayed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_when_its_caller_has_gone() {
    let database = Database::postgres();
    let worker = database.open().await;
    worker.answer_one(&create("ann")).await;
    let foreign = ForeignWriter::begin(&database);
    let requests: std::sync::Arc<[Request<Users>]> = worker.requests(&[award("ann", 1)]);
    let abandoned =
        tokio::time::timeout(Duration::from_millis(50), worker.store.apply(Access::Write, requests)).await;
    assert!(abandoned.is_err(), "it waits for the lock");
    foreign.end();
    soon("it is done", async { while points(&worker, "ann").await != 1 {} }).await;
}

impl Database {
    /// The sessions of this test, but the one that asks, for which this holds.
    fn sessions(condition: &str) -> String {
        format!(
            "FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND application_name = current_schema() AND {condition}"
        )
    }

    fn end_sessions(&self, condition: &str) -> usize {
        self.rows(&format!("SELECT pg_terminate_backend(pid) {}", Self::sessions(condition))).len()
    }

    fn count_sessions(&self, condition: &str) -> usize {
        self.rows(&format!("SELECT pid {}", Self::sessions(condition))).len()
    }
}
