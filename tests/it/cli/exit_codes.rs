//! Every exit code of the CLI, and what it says with it.

use std::time::{Duration, Instant};

use lapin::options::QueueDeleteOptions;
use lapin::types::FieldTable;
use serde_json::json;

use crate::support::{
    eventually,
    process::{Process, cli, run},
    users::{Login, Stage, new_user, user},
    vhost::request,
};

const CREATE: [&str; 5] = ["users", "create", "ann", "--email", "ann@example.com"];

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_ends_with_1_and_the_code() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.rabbitry(&CREATE).await.with_code(0);
    let refused: [(&[&str], &str); 6] = [
        (&CREATE, "user_exists (409)"),
        (&["users", "get", "bob"], "user_not_found (404)"),
        (&["users", "promote", "bob"], "user_not_found (404)"),
        (&["users", "award", "ann", "-1"], "insufficient_points (409)"),
        (&["users", "award", "bob", "-5"], "user_not_found (404)"),
        (&["send", "users.award", r#"{"username":"ann","points":0}"#], "invalid (422): points"),
    ];
    for (args, expected) in refused {
        let said = stage.rabbitry(args).await.with_code(1);
        assert!(said.err.starts_with("rabbitry: ") && said.err.contains(expected), "{args:?}: {}", said.err);
        assert_eq!((said.err.lines().count(), said.out.as_str()), (1, ""), "a refusal is no result");
    }
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_ends_with_2() {
    let stage = Stage::set().await;
    let long = "x".repeat(256);
    let wrong: [&[&str]; 15] = [
        &[],
        &["delete", "ann"],
        &["users", "create", "ann"],
        &["users", "create", "ann", "--email", "a@example.com", "--points", "1.5"],
        &["users", "create", "x", "--email", "x"],
        &["users", "create", "x", "--email", "x@example.com", "--points", "-5"],
        &["users", "award", "ann", "many"],
        &["users", "award", "ann", "0"],
        &["users", "get", "ann", "--timeout", "0"],
        &["users", "get", "ann", "--timeout", "100000"],
        &["users", "get", "ann", "--message-id", ""],
        &["users", "get", "ann", "--message-id", &long],
        &["users", "list", "--limit", "1001"],
        &["send", "users.delete", "{}"],
        &["import", "users.get", "users.csv"],
    ];
    for args in wrong {
        let said = stage.rabbitry(args).await.with_code(2);
        assert!(said.err.contains("Usage") || said.err.contains("--help"), "{args:?}: {}", said.err);
    }
    let both = ["send", "users.create", "-", "--message-id", "m"];
    assert!(stage.rabbitry(&both).await.with_code(2).err.contains("names one command"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_out_of_its_bounds_is_told_with_them() {
    let stage = Stage::set().await;
    let wrong: [(&[&str], &str); 5] = [
        (&["users", "get", "ann", "--timeout", "0"], "a time-out is above 0 and at most 86400 seconds"),
        (&["users", "get", "ann", "--timeout", "100000"], "a time-out is above 0 and at most 86400 seconds"),
        (&["status", "--watch=0"], "a period is above 0 and at most 86400 seconds"),
        (&["status", "--watch=often"], "not a number of seconds"),
        (&["dead-letters", "list", "--older-than", "x"], "an age looks like 10min, 2h or 3days"),
    ];
    for (args, expected) in wrong {
        let said = stage.rabbitry(args).await.with_code(2);
        assert!(said.err.contains(expected), "{args:?}: {}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_to_where_no_file_can_be_ends_with_2() {
    let stage = Stage::set().await;
    let said = stage.rabbitry(&["export", "users", "no/such/folder/users.csv"]).await.with_code(2);
    assert!(said.err.contains("cannot write the export to no/such/folder/users.csv"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_ends_with_69() {
    let stage = Stage::set().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = cli(&stage.vhost, &stage.place, &CREATE);
    command.env("AMQP_URL", format!("amqp://ann:s3cret@127.0.0.1:{port}"));
    let said = run(command).await.with_code(69);
    assert!(
        said.err.contains(&format!("no RabbitMQ broker answers at amqp://127.0.0.1:{port}")),
        "{}",
        said.err
    );
    assert!(said.err.contains("make up") && !said.err.contains("s3cret"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_goes_nowhere_ends_with_69_at_once() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let at_once = async |args: &[&str]| {
        let began = Instant::now();
        let said = stage.rabbitry(&[args, &["--timeout", "60"]].concat()).await.with_code(69);
        assert!(began.elapsed() < Duration::from_secs(20), "not by the time-out");
        assert!(said.err.contains("rabbitry topology apply"), "{}", said.err);
    };
    stage
        .vhost
        .channel
        .queue_unbind(
            "users.promote".into(),
            "users.commands".into(),
            "promote".into(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    at_once(&["users", "promote", "ann"]).await;
    at_once(&["users", "promote", "ann", "--no-wait"]).await;
    worker.stop().await;
    stage.vhost.channel.queue_delete("users.create".into(), QueueDeleteOptions::default()).await.unwrap();
    at_once(&CREATE).await;
    stage.vhost.channel.exchange_delete("users.commands".into(), Default::default()).await.unwrap();
    at_once(&["users", "get", "ann"]).await;
    at_once(&["users", "get", "ann", "--no-wait"]).await;
    stage.vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_ours_ends_with_70_and_the_message_is_set_aside() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.rabbitry(&CREATE).await.with_code(0);
    stage.rabbitry(&["users", "create", "bob", "--email", "bob@example.com"]).await.with_code(0);
    // A row that no version of the program has written.
    let change = "UPDATE users SET points = -7 WHERE username = 'ann'";
    stage.place.store().meddle(
        &format!("PRAGMA ignore_check_constraints = 1; {change}"),
        &format!("ALTER TABLE users DROP CONSTRAINT users_points_check; {change}"),
    );
    let said = stage.rabbitry(&["users", "award", "ann", "1"]).await.with_code(70);
    assert!(said.err.contains("internal (500)") && said.err.contains("dead-letter queue"), "{}", said.err);
    stage.rabbitry(&["users", "award", "bob", "1"]).await.with_code(0);
    assert_eq!(stage.place.store().number("SELECT points FROM users WHERE username = 'ann'"), -7);
    stage.end(worker, &[("users.dead", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_it_is_said_at_once_and_ends_with_75() {
    let stage = Stage::set().await;
    let said = stage
        .rabbitry(&[&CREATE[..], &["--timeout", "1", "--message-id", "m1"]].concat())
        .await
        .with_code(75);
    let lines: Vec<_> = said.err.lines().collect();
    assert!(lines[0].contains("no worker is consuming users.create"), "{}", said.err);
    assert!(lines[1].contains("no reply within 1 s") && lines[1].contains("--message-id m1"), "{}", said.err);
    // What has no effect is just asked again.
    for args in [&["users", "get", "ann", "--timeout", "0.5"][..], &["export", "users", "--timeout", "0.5"]] {
        let said = stage.rabbitry(args).await.with_code(75);
        let lines: Vec<_> = said.err.lines().collect();
        assert!(lines[0].contains("no worker is consuming users."), "{args:?}: {}", said.err);
        assert_eq!(lines[1], "rabbitry: no reply within 0.5 s; try again", "{args:?}");
    }
    let many =
        stage.rabbitry_fed(&["send", "users.create", "-", "--timeout", "1"], "{}\n{}\n".to_owned()).await;
    assert_eq!(many.code, 75, "{}", many.err);
    assert_eq!(many.err.matches("no worker is consuming users.create").count(), 1, "{}", many.err);
    // Nobody waits any more, so it is not executed when a worker comes.
    let worker = stage.worker().await;
    eventually("it is thrown away", async || stage.vhost.ready("users.create").await == 0).await;
    worker.wait_for_log("batch done").await;
    assert_eq!(stage.place.store().number("SELECT count(*) FROM users"), 0);
    // The same id, asked in time, is executed.
    stage.rabbitry(&[&CREATE[..], &["--message-id", "m1"]].concat()).await.with_code(0);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_ends_with_75() {
    let stage = Stage::set().await;
    let path = format!("/api/policies/{}/full", stage.vhost.name());
    let definition = json!({"max-length": 1, "overflow": "reject-publish"});
    let policy = json!({"pattern": "^users\\.create$", "definition": definition, "apply-to": "queues"});
    request(stage.vhost.management_url(), "PUT", &path, Some(&policy));
    let send = [&CREATE[..], &["--no-wait", "--timeout", "2"]].concat();
    let mut taken = 0;
    // The broker takes some more before it notices.
    let full = loop {
        let said = stage.rabbitry(&send).await;
        if said.code != 0 {
            break said.with_code(75);
        }
        taken += 1;
        assert!(taken < 20, "the queue is never full");
    };
    assert!(full.err.contains("its queue is full"), "{}", full.err);
    assert_eq!(stage.vhost.ready("users.create").await, taken);
    let waiting = stage.rabbitry(&[&CREATE[..], &["--timeout", "5"]].concat()).await.with_code(75);
    assert!(waiting.err.contains("its queue is full"), "{}", waiting.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_large_ends_with_1_and_its_neighbours_are_done() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    // More than the broker takes, which would close the channel over it.
    let large = json!([{"username": "x".repeat(3 << 20), "email": "x@example.com"}]);
    let lines = format!("{}\n{large}\n{}\n", new_user("ann", 0), new_user("bob", 0));
    let said = stage.rabbitry_fed(&["send", "users.create", "-"], lines).await.with_code(1);
    for part in ["more than the 1048576 bytes", "`rabbitry import`"] {
        assert!(said.err.contains(part), "{}", said.err);
    }
    let answers: Vec<serde_json::Value> =
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&answers[0], &answers[2]), (&user("ann", 0, "Bronze"), &user("bob", 0, "Bronze")));
    assert!(said.err.contains(answers[1]["error"].as_str().unwrap()), "{}", answers[1]);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_may_not_ends_with_77() {
    let stage = Stage::set().await;
    let mut url = url::Url::parse(&stage.vhost.url_text()).unwrap();
    url.set_password(Some("wr0ng-s3cret")).unwrap();
    let mut command = cli(&stage.vhost, &stage.place, &CREATE);
    command.env("AMQP_URL", url.as_str());
    let said = run(command).await.with_code(77);
    assert!(said.err.contains("refuses the login") && !said.err.contains("wr0ng-s3cret"), "{}", said.err);
    let login = Login::new(&stage.vhost, ".*", "^$", ".*");
    for more in [&["--timeout", "20"][..], &["--no-wait", "--timeout", "20"]] {
        let mut command = cli(&stage.vhost, &stage.place, &[&CREATE[..], more].concat());
        command.env("AMQP_URL", &login.url);
        let said = run(command).await.with_code(77);
        assert!(said.err.contains("does not permit"), "{}", said.err);
        assert!(!said.err.contains(Login::PASSWORD), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_may_only_publish_commands_is_enough() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let login = Login::new(&stage.vhost, "^$", "^users\\.commands$", "^$");
    let mut command = cli(&stage.vhost, &stage.place, &CREATE);
    command.env("AMQP_URL", &login.url);
    let said = run(command).await.with_code(0);
    assert_eq!(said.json()["username"], "ann");
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_ends_with_78() {
    let stage = Stage::set().await;
    for url in ["amqp://ann:s3cret@[::1]:5672", "http://ann:s3cret@127.0.0.1", "127.0.0.1:5672"] {
        let mut command = cli(&stage.vhost, &stage.place, &CREATE);
        command.env("AMQP_URL", url);
        let said = run(command).await.with_code(78);
        assert!(said.err.contains("AMQP_URL") && !said.err.contains("s3cret"), "{}", said.err);
    }
    let mut command = cli(&stage.vhost, &stage.place, &CREATE);
    command.env_remove("AMQP_URL").env("AMQP_URL_FILE", stage.place.file("nowhere"));
    assert!(run(command).await.with_code(78).err.contains("nowhere"));
    for (text, expected) in [("\n", "is empty"), ("http://ann:s3cret@127.0.0.1", "amqp://")] {
        let file = stage.place.file("amqp-url");
        std::fs::write(&file, text).unwrap();
        let mut command = cli(&stage.vhost, &stage.place, &CREATE);
        command.env_remove("AMQP_URL").env("AMQP_URL_FILE", &file);
        let said = run(command).await.with_code(78);
        let named = format!("AMQP_URL_FILE ({})", file.display());
        assert!(said.err.contains(&named) && said.err.contains(expected), "{}", said.err);
        assert!(!said.err.contains("s3cret"), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_whose_own_broker_is_down_ends_with_69() {
    let stage = Stage::set().await;
    std::fs::create_dir_all(stage.place.file("broker/data")).unwrap();
    // Without a fix they would read from a broker that is somebody else's; they change nothing there.
    for args in [&["users", "get", "ann", "--timeout", "1"][..], &["status"], &["topology", "check"]] {
        let mut command = cli(&stage.vhost, &stage.place, args);
        command.env_remove("AMQP_URL");
        let said = run(command).await.with_code(69);
        let home = stage.place.file("");
        let expected =
            format!("the broker of {} is not running", home.to_str().unwrap().trim_end_matches('/'));
        assert!(said.err.contains(&expected) && said.err.contains("`make up` starts it"), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_with_130() {
    let stage = Stage::set().await;
    let waiting =
        Process::start(cli(&stage.vhost, &stage.place, &[&CREATE[..], &["--timeout", "60"]].concat()));
    eventually("it has sent its command", async || stage.vhost.ready("users.create").await == 1).await;
    waiting.signal("INT");
    let said = waiting.end().await.with_code(130);
    assert!(said.err.contains("interrupted"), "{}", said.err);
    let worker = stage.worker().await;
    eventually("it was confirmed, so it is done", async || {
        stage.place.store().number("SELECT count(*) FROM users") == 1
    })
    .await;
    stage.end(worker, &[]).await;
}
