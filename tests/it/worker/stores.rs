//! Workers of two stores on one broker: only those of one of them consume.

use lapin::{
    BasicProperties, ExchangeKind,
    options::ExchangeDeclareOptions,
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    database::Database,
    eventually,
    process::{Place, WorkerProcess, cli, run, worker},
    users::{Login, Stage, new_user, points, users_vhost},
};

const WAITS: &str = "workers of another store are on this broker";

/// Starts a worker that finds another store's workers.
async fn waiting(stage: &Stage, place: &Place) -> WorkerProcess {
    let worker = WorkerProcess::start(&stage.vhost, place);
    worker.wait_for_log(WAITS).await;
    worker
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_another_store_waits_until_the_others_are_gone() {
    let mut stage = Stage::set().await;
    let other = Place::new();
    let first = stage.worker().await;
    let second = waiting(&stage, &other).await;
    for user in 0..20 {
        assert_eq!(stage.ask("create", new_user(&format!("user-{user}"), 0)).await.0, 201);
    }
    let log = second.log();
    let warning = log.lines().find(|line| line.contains(WAITS)).unwrap();
    for store in [stage.place.store(), other.store()] {
        assert!(warning.contains(&distinction(store)), "{} is not named: {warning}", distinction(store));
    }
    assert!(!log.contains("consuming\"") && stage.place.store().number("SELECT count(*) FROM users") == 20);
    first.stop().await;
    second.wait_for_log("\"consuming\"").await;
    assert_eq!(stage.ask("create", new_user("user-1", 7)).await.0, 201);
    assert_eq!(points(other.store(), "user-1"), 7);
    assert_eq!(second.log().matches(WAITS).count(), 1, "one line for one wait");
    stage.end(second, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_no_longer_when_those_of_the_other_store_are_killed() {
    let mut stage = Stage::set().await;
    let other = Place::new();
    let first = stage.worker().await;
    let second = waiting(&stage, &other).await;
    first.kill();
    second.wait_for_log("\"consuming\"").await;
    assert_eq!(stage.ask("create", new_user("ann", 7)).await.0, 201);
    assert_eq!(points(other.store(), "ann"), 7);
    stage.end(second, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_worker_does_not_take_the_place_of_one_that_lost_its_connection() {
    let mut stage = Stage::set().await;
    let other = Place::new();
    let first = stage.worker().await;
    let second = waiting(&stage, &other).await;
    for round in 0..5 {
        let sessions = first.log().matches("\"consuming\"").count();
        stage.vhost.close_connections(&format!(":{} (commands)", first.pid())).await;
        eventually("the worker is back", async || first.log().matches("\"consuming\"").count() > sessions)
            .await;
        assert_eq!(stage.ask("create", new_user(&format!("user-{round}"), 0)).await.0, 201);
    }
    assert!(!second.log().contains("\"consuming\""), "{}", second.log());
    assert_eq!(stage.place.store().number("SELECT count(*) FROM users"), 5);
    second.stop().await;
    stage.end(first, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_worker_stops_when_it_is_asked_to() {
    let stage = Stage::set().await;
    let other = Place::new();
    let first = stage.worker().await;
    waiting(&stage, &other).await.stop().await;
    stage.end(first, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_told_so_consume_beside_those_of_another_store() {
    let stage = Stage::set().await;
    let other = Place::new();
    let first = stage.worker().await;
    let mut command = worker(&stage.vhost, &other);
    command.env("ALLOW_OTHER_STORES", "true");
    let second = WorkerProcess::spawn(command, &other);
    second.wait_for_log("\"consuming\"").await;
    let count = |place: &Place| place.store().number("SELECT count(*) FROM users");
    eventually("both have created users", async || {
        stage.send("create", &new_user("ann", 0), BasicProperties::default()).await;
        count(&stage.place) == 1 && count(&other) == 1
    })
    .await;
    second.stop().await;
    stage.end(first, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_fails_while_workers_have_different_stores() {
    let stage = Stage::set().await;
    let other = Place::new();
    let status = || {
        let mut command = cli(&stage.vhost, &stage.place, &["status"]);
        command.env("AMQP_MANAGEMENT_URL", stage.vhost.management_url().as_str());
        run(command)
    };
    let first = stage.worker().await;
    status().await.with_code(0);
    let second = waiting(&stage, &other).await;
    eventually("both are shown", async || status().await.json()["workers"].as_array().unwrap().len() == 2)
        .await;
    let said = status().await.with_code(1);
    assert!(said.err.contains("different stores"), "{}", said.err);
    second.stop().await;
    eventually("one is shown", async || status().await.json()["workers"].as_array().unwrap().len() == 1)
        .await;
    status().await.with_code(0);
    stage.end(first, &[]).await;
}

/// What tells the stores of tests apart: a folder, or a schema.
fn distinction(store: &Database) -> String {
    match store.url.strip_prefix("sqlite:") {
        Some(path) => path.rsplit('/').nth(1).unwrap().to_owned(),
        None => store.rows("SELECT current_schema()").concat().concat(),
    }
}

/// The paths of a file, or the names of a server.
fn by_another_name(store: &Database, place: &Place) -> String {
    if let Some(path) = store.url.strip_prefix("sqlite:") {
        let link = place.file("link");
        std::os::unix::fs::symlink(std::path::Path::new(path).parent().unwrap(), &link).unwrap();
        return format!("sqlite:{}", link.join("users.db").display());
    }
    let url = store.url.replace("127.0.0.1", "localhost");
    assert_ne!(url, store.url);
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn one_store_by_two_names_is_one_store() {
    let stage = Stage::set().await;
    let first = stage.worker().await;
    let mut command = worker(&stage.vhost, &stage.place);
    command.env("DATABASE_URL", by_another_name(stage.place.store(), &stage.place));
    let second = WorkerProcess::spawn(command, &stage.place);
    second.wait_for_log("\"consuming\"").await;
    assert!(!second.log().contains(WAITS), "{}", second.log());
    second.stop().await;
    stage.end(first, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_a_right_to_the_exchange_of_the_store_ends_with_77() {
    let (vhost, place) = (users_vhost().await, Place::new());
    let login = Login::new(&vhost, "^$", "^(amq\\.default|users\\.dead)$", "^users\\.");
    let mut command = worker(&vhost, &place);
    command.env("AMQP_URL", &login.url);
    let said = run(command).await.with_code(77);
    assert!(said.err.contains("users.store"), "{}", said.err);
    let mut command = worker(&vhost, &place);
    command.env("AMQP_URL", &login.url).env("ALLOW_OTHER_STORES", "1");
    let worker = WorkerProcess::spawn(command, &place);
    worker.wait_for_log("\"consuming\"").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_left_that_died_while_it_began_keeps_nobody_waiting() {
    let (vhost, place) = (users_vhost().await, Place::new());
    let options =
        ExchangeDeclareOptions { durable: true, auto_delete: true, internal: true, ..Default::default() };
    let mut arguments = FieldTable::default();
    let name = AMQPValue::LongString("users.store:sqlite:/elsewhere/users.db on host".into());
    arguments.insert("alternate-exchange".into(), name);
    let declare =
        vhost.channel.exchange_declare("users.store".into(), ExchangeKind::Fanout, options, arguments);
    declare.await.unwrap();
    let worker = WorkerProcess::start(&vhost, &place);
    worker.wait_for_log("/elsewhere/users.db").await;
    worker.wait_for_log("\"consuming\"").await;
    worker.stop().await;
}
