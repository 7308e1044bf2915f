//! What a worker logs: lines that machines read, without payloads and secrets.

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::{
    eventually,
    process::{WorkerProcess, worker},
    users::{Login, Stage},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_json_and_none_tells_a_payload_or_a_secret() {
    let bytes = Login::PASSWORD.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    for filter in ["debug", "trace", "info,rabbitry=trace,users_worker=trace"] {
        let mut stage = Stage::set().await;
        let login = Login::new(&stage.vhost, ".*", ".*", ".*");
        let mut command = worker(&stage.vhost, &stage.place);
        command.env("AMQP_URL", &login.url).env("RUST_LOG", filter);
        let worker = WorkerProcess::spawn(command, &stage.place);
        let ann = json!({"username": "canary-name", "email": "canary@example.com", "points": 31337});
        assert_eq!(stage.ask("create", ann.clone()).await.0, 201);
        assert_eq!(stage.ask("create", ann).await.0, 409);
        assert_eq!(stage.ask("award", json!({"username": "canary-name", "points": -999_999})).await.0, 409);
        let properties = || BasicProperties::default().with_message_id("id-of-the-bad-one".into());
        // Refused for its content, with the content in the problem's text, and set aside.
        stage.send("create", &json!({"canary-field": "canary-value"}), properties()).await;
        let distrusted = properties().with_reply_to("users.create".into());
        stage.send("create", &json!({"username": "canary-two", "email": "canary"}), distrusted).await;
        worker.wait_for_log("id-of-the-bad-one").await;
        eventually("both are set aside", async || stage.vhost.ready("users.dead").await == 2).await;
        let log = stage.end(worker, &[("users.dead", 2)]).await;
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert!(lines.len() > 8, "{log}");
        for line in &lines {
            for member in ["timestamp", "level", "target"] {
                assert!(line[member].is_string(), "{line}");
            }
        }
        for secret in ["canary", "31337", Login::PASSWORD, &bytes] {
            assert!(!log.contains(secret), "{filter}: the log tells {secret}:\n{log}");
        }
        let aside: Vec<_> = lines.iter().filter(|line| line["message"] == "message is set aside").collect();
        assert_eq!(aside.len(), 2);
        for line in aside {
            assert_eq!((&line["level"], &line["queue"]), (&json!("WARN"), &json!("users.create")));
            assert_eq!(
                (&line["message_id"], &line["code"]),
                (&json!("id-of-the-bad-one"), &json!("invalid"))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_usual_level_is_one_line_for_each_change_of_state() {
    let mut stage = Stage::set().await;
    let mut command = worker(&stage.vhost, &stage.place);
    command.env_remove("RUST_LOG").env_remove("LOG_FORMAT");
    let worker = WorkerProcess::spawn(command, &stage.place);
    for n in 0..20 {
        stage.ask("create", crate::support::users::new_user(&format!("user{n}"), 0)).await;
    }
    let log = stage.end(worker, &[]).await;
    assert!(log.lines().count() < 10, "{log}");
    assert!(!log.contains('\u{1b}'), "no colours in a file: {log}");
}
