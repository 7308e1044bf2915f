//! What a worker says when it cannot start, and the exit code.

use std::fs;

use serde_json::json;

use crate::support::{
    eventually,
    process::{Place, WorkerProcess, run, worker},
    users::{Login, Stage, new_user, points, users_vhost},
    vhost::Vhost,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_is_told_with_the_command_that_creates_it() {
    let vhost = Vhost::with_service("users", &["create", "get", "award", "promote"]).await;
    let place = Place::new();
    let said = run(worker(&vhost, &place)).await.with_code(78);
    assert!(said.err.contains("users.list") && said.err.contains("rabbitry topology apply"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_ends_with_77_and_is_not_told() {
    let (vhost, place) = (users_vhost().await, Place::new());
    let mut url = url::Url::parse(&vhost.url_text()).unwrap();
    url.set_password(Some("wr0ng-s3cret")).unwrap();
    let mut command = worker(&vhost, &place);
    command.env("AMQP_URL", url.as_str()).env("RUST_LOG", "trace");
    let said = run(command).await.with_code(77);
    assert!(said.err.contains("refuses the login"), "{}", said.err);
    for secret in ["wr0ng-s3cret", &url.password().unwrap().to_uppercase()] {
        assert!(!said.err.contains(secret) && !said.out.contains(secret), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vhost_that_is_not_there_ends_with_77() {
    let (vhost, place) = (users_vhost().await, Place::new());
    let mut url = url::Url::parse(&vhost.url_text()).unwrap();
    url.set_path("no-such-vhost");
    let mut command = worker(&vhost, &place);
    command.env("AMQP_URL", url.as_str());
    let said = run(command).await.with_code(77);
    assert!(said.err.contains("no-such-vhost"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_ends_with_78_and_what_to_do() {
    let vhost = users_vhost().await;
    let place = Place::new();
    fs::write(place.file("letter.txt"), "Dear Ann, this is no database. ".repeat(100)).unwrap();
    let foreign = rusqlite::Connection::open(place.file("foreign.db")).unwrap();
    foreign.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    drop(foreign);
    let sqlite = |name: &str| format!("sqlite:{}", place.file(name).display());
    let cases = [
        ("mysql://ann:hush@127.0.0.1/users".to_owned(), "names no known store"),
        ("postgres://ann:hush@127.0.0.1/users?sslmode=perhaps".to_owned(), "sslmode is"),
        ("postgres://ann:hu@sh@127.0.0.1/users".to_owned(), "%40"),
        ("users.db".to_owned(), "names no known store"),
        ("sqlite:".to_owned(), "names no file"),
        ("sqlite::memory:".to_owned(), "names no file"),
        (sqlite("users.db?mode=ro"), "names no file"),
        (sqlite(""), "is a directory"),
        (sqlite("letter.txt"), "not a database"),
        (sqlite("foreign.db"), "another program"),
        (sqlite("letter.txt/users.db"), "choose another path"),
        ("sqlite:/proc/users/users.db".to_owned(), "cannot make the directory"),
    ];
    for (url, expected) in cases {
        let mut command = worker(&vhost, &place);
        command.env("DATABASE_URL", &url);
        let said = run(command).await.with_code(78);
        assert!(said.err.contains(expected), "{url}: {}", said.err);
        assert!(!said.err.contains("hush"), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_that_cannot_be_read_ends_with_78_and_usage_with_2() {
    let vhost = users_vhost().await;
    let place = Place::new();
    let bad = [
        ("AMQP_URL", "amqp://ann:s3cret@[::1]:5672/"),
        ("AMQP_URL", "http://ann:s3cret@localhost"),
        ("RUST_LOG", "=loud="),
    ];
    for (name, value) in bad {
        let mut command = worker(&vhost, &place);
        command.env(name, value);
        let said = run(command).await.with_code(78);
        assert!(said.err.contains(name) && !said.err.contains("s3cret"), "{}", said.err);
    }
    for arguments in [&["--commands", "delete"][..], &["--batch-max", "0"], &["--loud"]] {
        let mut command = worker(&vhost, &place);
        command.args(arguments);
        run(command).await.with_code(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_may_stand_in_files() {
    let mut stage = Stage::set().await;
    let login = Login::new(&stage.vhost, ".*", ".*", ".*");
    let (amqp, database) = (stage.place.file("amqp-url"), stage.place.file("database-url"));
    fs::write(&amqp, format!("{}\n", login.url)).unwrap();
    fs::write(&database, format!("{}\n", stage.place.store().url)).unwrap();
    let mut command = worker(&stage.vhost, &stage.place);
    command.env_remove("AMQP_URL").env_remove("DATABASE_URL");
    command.env("AMQP_URL_FILE", &amqp).env("DATABASE_URL_FILE", &database);
    let worker = WorkerProcess::spawn(command, &stage.place);
    assert_eq!(stage.ask("create", new_user("ann", 0)).await.0, 201);
    assert_eq!(points(stage.place.store(), "ann"), 0);
    let log = stage.end(worker, &[]).await;
    assert!(!log.contains(Login::PASSWORD), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_named() {
    let vhost = users_vhost().await;
    let place = Place::new();
    for name in ["AMQP_URL", "DATABASE_URL"] {
        let mut command = worker(&vhost, &place);
        command.env_remove(name).env(format!("{name}_FILE"), place.file("nowhere"));
        let said = run(command).await.with_code(78);
        assert!(said.err.contains("nowhere"), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_bad_url_is_named() {
    let vhost = users_vhost().await;
    let place = Place::new();
    let cases = [
        ("AMQP_URL", " \n", "is empty"),
        ("AMQP_URL", "nonsense", "nonsense"),
        ("DATABASE_URL", "", "is empty"),
        ("DATABASE_URL", "nonsense", "names no known store"),
        ("DATABASE_URL", "postgres://ann:hush@127.0.0.1/users?sslmode=perhaps", "sslmode is"),
    ];
    for (name, text, expected) in cases {
        let file = place.file("url");
        fs::write(&file, text).unwrap();
        let mut command = worker(&vhost, &place);
        command.env_remove(name).env(format!("{name}_FILE"), &file);
        let said = run(command).await.with_code(78);
        let named = format!("{name}_FILE ({})", file.display());
        assert!(said.err.contains(&named), "{name}={text}: {}", said.err);
        assert!(name == "AMQP_URL" || said.err.contains(expected), "{text}: {}", said.err);
        assert!(!said.err.contains("hush"), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_help_shows_defaults_as_they_are_written() {
    let (vhost, place) = (users_vhost().await, Place::new());
    let mut command = worker(&vhost, &place);
    command.arg("--help");
    let help = run(command).await.with_code(0).out;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for default in ["[default: amq.gen-*,amq_*,reply.*,*.reply.*]", "[default: all]"] {
        assert!(help.contains(default), "{help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_a_broker_that_is_not_there_and_stops_when_asked() {
    let stage = Stage::set().await;
    let mut command = worker(&stage.vhost, &stage.place);
    // Nobody listens on the port of a socket that was just closed.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    command.env("AMQP_URL", format!("amqp://ann:s3cret@127.0.0.1:{port}/x"));
    let worker = WorkerProcess::spawn(command, &stage.place);
    worker.wait_for_log("waiting for the broker").await;
    let log = worker.stop().await;
    assert!(!log.contains("s3cret"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_few_rights_is_enough() {
    let mut stage = Stage::set().await;
    let write = "^(amq\\.default|users\\.dead|users\\.store.*)$";
    let login = Login::new(&stage.vhost, "^users\\.store", write, "^users\\.");
    let mut command = worker(&stage.vhost, &stage.place);
    command.env("AMQP_URL", &login.url);
    let worker = WorkerProcess::spawn(command, &stage.place);
    assert_eq!(stage.ask("create", new_user("ann", 0)).await.0, 201);
    stage.send("award", &json!("nonsense"), lapin::BasicProperties::default()).await;
    eventually("it is set aside", async || stage.vhost.ready("users.dead").await == 1).await;
    let log = stage.end(worker, &[("users.dead", 1)]).await;
    assert!(!log.contains("session ended"), "{log}");
}
