//! What the programs write, and that they work as well where it cannot be written.

use std::{
    fs::OpenOptions,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    eventually,
    process::{Process, Said, WorkerProcess, cli, program, run, worker},
    users::{Stage, new_user, points},
};

const CREATE: [&str; 5] = ["users", "create", "ann", "--email", "ann@example.com"];

/// Standard error with no room left.
fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

async fn code_with_errors_to(errors: Stdio, mut command: Command) -> Option<i32> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    tokio::task::spawn_blocking(move || command.status().unwrap().code()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_log_cannot_be_written_works_and_drains() {
    for errors in [full(), closed()] {
        let mut stage = Stage::set().await;
        let mut worker = WorkerProcess::spawn_with_errors_to(errors, worker(&stage.vhost, &stage.place));
        assert_eq!(stage.ask("create", new_user("ann", 0)).await.0, 201);
        // It warns of what it dead-letters.
        stage.send("award", &json!({"odd": true}), Default::default()).await;
        stage.vhost.wait_for_messages("users.dead", 1).await;
        assert_eq!(stage.ask("award", json!({"username": "ann", "points": 5})).await.0, 200);
        assert!(worker.is_running());
        worker.stop().await;
        assert_eq!(points(stage.place.store(), "ann"), 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cli_does_the_same_where_standard_error_cannot_be_written() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    std::fs::write(stage.place.file("users.csv"), "username,email\nbob,bob@example.com\nbad,nobody\n")
        .unwrap();
    for errors in [full, closed] {
        let code =
            async |args: &[&str]| code_with_errors_to(errors(), cli(&stage.vhost, &stage.place, args)).await;
        code(&CREATE).await;
        assert_eq!(code(&CREATE).await, Some(1), "the name is taken");
        assert_eq!(code(&["users", "award", "ann", "1", "--verbose"]).await, Some(0));
        assert_eq!(
            code(&["import", "users.create", "users.csv", "--verbose"]).await,
            Some(1),
            "one row is refused"
        );
        assert_eq!(code(&["export", "users", "out.csv"]).await, Some(0));
        assert_eq!(code(&["nonsense"]).await, Some(2));
        assert_eq!(code(&["--json", "nonsense"]).await, Some(2));
    }
    assert_eq!(points(stage.place.store(), "ann"), 2);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_that_nobody_reads_is_no_panic() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.rabbitry(&CREATE).await.with_code(0);
    for args in [
        &["completions", "bash"][..],
        &["users", "get", "ann"],
        &["status"],
        &["export", "users", "-"],
        &["--help"],
    ] {
        for (output, codes) in [(closed(), [0, 0]), (full(), [0, 70])] {
            let mut command = cli(&stage.vhost, &stage.place, args);
            command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
            let said = Process::of(command).end().await;
            assert!(codes.contains(&said.code), "{args:?}: {} {}", said.code, said.err);
            assert!(!said.err.contains("panic"), "{args:?}: {}", said.err);
        }
    }
    stage.end(worker, &[]).await;
}

/// The only line on standard error, as JSON.
fn failure(said: &Said) -> Value {
    assert_eq!((said.out.as_str(), said.err.lines().count()), ("", 1), "{}", said.err);
    serde_json::from_str(&said.err).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_json_a_failure_is_one_object_on_standard_error() {
    let stage = Stage::set().await;
    let silent = stage.rabbitry(&["--json", "users", "get", "ann", "--timeout", "0.2"]).await.with_code(75);
    assert_eq!(failure(&silent)["exit"], 75);
    let worker = stage.worker().await;
    let refused = failure(&stage.rabbitry(&["--json", "users", "get", "bob"]).await.with_code(1));
    assert_eq!((&refused["exit"], &refused["problem"]["code"]), (&json!(1), &json!("user_not_found")));
    assert!(refused["error"].as_str().unwrap().contains("there is no user bob"), "{refused}");
    let usage = failure(&stage.rabbitry(&["users", "get", "--json"]).await.with_code(2));
    assert!(usage["error"].as_str().unwrap().contains("<USERNAME>"), "{usage}");
    let mut nowhere = program(env!("CARGO_BIN_EXE_rabbitry"), &stage.place);
    nowhere.env("AMQP_URL", "amqp://127.0.0.1:1").args(["--json", "users", "get", "ann"]);
    assert_eq!(failure(&run(nowhere).await.with_code(69))["exit"], 69);
    let mut wrong = program(env!("CARGO_BIN_EXE_rabbitry"), &stage.place);
    wrong.env("AMQP_URL", "nonsense").args(["--json", "users", "get", "ann"]);
    assert_eq!(failure(&run(wrong).await.with_code(78))["exit"], 78);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_times_and_reasons_are_written_for_people() {
    let stage = Stage::set().await;
    let silent = stage.rabbitry(&["users", "get", "ann", "--timeout", "0.7"]).await.with_code(75);
    assert!(silent.err.contains("no reply within 0.7 s"), "{}", silent.err);
    let worker = stage.worker().await;
    stage.send("create", &json!({"odd": true}), Default::default()).await;
    stage.vhost.wait_for_messages("users.dead", 1).await;
    // The broker's statistics lag behind.
    eventually("one dead letter is counted as one", async || {
        stage.rabbitry_on_a_terminal("status").await.contains("1 dead letter:")
    })
    .await;
    let typo = stage.rabbitry(&["dead-letters", "list", "--reason", "invallid"]).await.with_code(2);
    assert!(typo.err.contains("invalid") && typo.err.contains("delivery_limit"), "{}", typo.err);
    stage.rabbitry(&["dead-letters", "list", "--reason", "expired"]).await.with_code(0);
    stage.rabbitry(&["topology", "apply"]).await;
    let mut nowhere = program(env!("CARGO_BIN_EXE_rabbitry"), &stage.place);
    nowhere.env("AMQP_URL", "amqp://127.0.0.1:1").args(["users", "get", "ann"]);
    let nowhere = run(nowhere).await.with_code(69);
    assert!(nowhere.err.contains("refused") && !nowhere.err.contains("object"), "{}", nowhere.err);
    stage.end(worker, &[("users.dead", 1)]).await;
}
