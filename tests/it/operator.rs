//! The operator's tools against the real broker: topology, status, dead letters.

use std::{collections::BTreeSet, process::Output, time::Duration};

use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicRejectOptions},
    types::{AMQPValue, FieldTable},
};
use rabbitry::{
    amqp::{
        dead_letter_queue::{
            DeadLetterQueue, Filter,
            requeue::{Publisher, Rules, requeue},
        },
        dead_letters, exchange, queue,
    },
    clock::unix_ms,
    management::topology::Definitions,
};
use regex::Regex;
use serde_json::{Value, json};
use tokio::process::Command;

use super::support::{
    eventually,
    frames::publish_with_properties,
    soon,
    users::COMMANDS,
    vhost::{Vhost, header, header_text, request},
};

const DEAD: &str = "users.dead";
const PATIENCE: Duration = Duration::from_secs(10);
/// Minted on 22 February 2022.
const OLD_ID: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";

/// What a run of `rabbitry` came to.
struct Run {
    code: i32,
    json: Value,
    errors: String,
}

async fn rabbitry(vhost: &Vhost, arguments: &[&str]) -> Run {
    rabbitry_as(vhost, vhost.management_url().as_str(), arguments).await
}

async fn rabbitry_as(vhost: &Vhost, management: &str, arguments: &[&str]) -> Run {
    let run = Command::new(env!("CARGO_BIN_EXE_rabbitry"))
        .args(arguments)
        .env("AMQP_URL", vhost.url_text())
        .env("AMQP_MANAGEMENT_URL", management)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let Output { status, stdout, stderr } = soon("rabbitry ends", run).await.unwrap();
    Run {
        code: status.code().unwrap(),
        json: serde_json::from_slice(&stdout).unwrap_or(Value::Null),
        errors: String::from_utf8(stderr).unwrap(),
    }
}

/// A virtual host with the topology as the program applies it.
async fn applied() -> Vhost {
    let vhost = Vhost::create().await;
    let run = rabbitry(&vhost, &["topology", "apply"]).await;
    assert_eq!(run.code, 0, "{}", run.errors);
    vhost
}

fn states(run: &Run) -> BTreeSet<&str> {
    run.json["objects"].as_array().unwrap().iter().map(|object| object["state"].as_str().unwrap()).collect()
}

fn put(vhost: &Vhost, path: &str, body: &Value) {
    request(vhost.management_url(), "PUT", path, Some(body));
}

// ---- topology ----

#[test]
fn the_definitions_have_what_the_commands_need() {
    let checked_in = include_str!("../../rabbitmq/definitions.json");
    let own = Definitions::of(&[("users", COMMANDS)]);
    assert_eq!(own.to_file(), checked_in, "it is stale; `make definitions` writes it anew");
    let own = Definitions::parse(checked_in).unwrap();
    let policy = |name: &str| own.policies.iter().find(|policy| policy.name == name).unwrap();
    let pattern = Regex::new(&policy("users-commands").pattern).unwrap();
    for command in COMMANDS {
        let name = queue("users", command.name);
        let queue = own.queues.iter().find(|queue| queue.name == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((queue.kind(), queue.durable), ("quorum", true), "{name}");
        assert!(pattern.is_match(&name), "{name}");
        assert_eq!(own.policy_of(queue).unwrap().name, "users-commands", "{name}");
        let bound = own.bindings.iter().any(|binding| {
            (&binding.source, &binding.routing_key, &binding.destination)
                == (&exchange("users"), &command.name.to_owned(), &name)
        });
        assert!(bound, "{name}");
    }
    assert_eq!(own.queues.len(), COMMANDS.len() + 2, "nothing but commands, dead letters and reply.console");
    assert!(own.queues.iter().any(|queue| queue.name == "reply.console"));
    assert!(!pattern.is_match(&dead_letters("users")));
    let dead = own.queues.iter().find(|queue| queue.name == dead_letters("users")).unwrap();
    assert_eq!((dead.kind(), own.policy_of(dead).unwrap().name.as_str()), ("quorum", "users-dead"));
    // Dead letters are looked at again and again, and must neither expire nor be dropped for it.
    assert!(!policy("users-dead").definition.contains_key("message-ttl"));
    assert!(policy("users-dead").definition["delivery-limit"].as_u64() > Some(1_000_000));
}

#[tokio::test]
async fn applying_twice_changes_nothing_the_second_time() {
    let vhost = Vhost::create().await;
    let missing = rabbitry(&vhost, &["topology", "check"]).await;
    assert_eq!((missing.code, states(&missing)), (78, BTreeSet::from(["missing"])));
    let first = rabbitry(&vhost, &["topology", "apply"]).await;
    assert_eq!((first.code, states(&first)), (0, BTreeSet::from(["created"])), "{}", first.errors);
    for action in ["apply", "check"] {
        let again = rabbitry(&vhost, &["topology", action]).await;
        assert_eq!((again.code, states(&again)), (0, BTreeSet::from(["was there"])), "{}", again.errors);
    }
}

#[tokio::test]
async fn a_queue_of_another_type_under_the_same_name_fails_the_apply() {
    let vhost = Vhost::create().await;
    put(&vhost, &format!("/api/queues/{}/users.get", vhost.name()), &json!({"durable": true}));
    let run = rabbitry(&vhost, &["topology", "apply"]).await;
    assert_eq!(run.code, 78);
    assert!(run.errors.contains("queue users.get: type: expected quorum, found classic"), "{}", run.errors);
    assert_eq!(run.errors.matches("expected").count(), 1, "everything else is as wanted: {}", run.errors);
}

#[tokio::test]
async fn a_changed_policy_is_found_and_mended() {
    let vhost = applied().await;
    let changed = json!({"pattern": "^users\\.get$", "apply-to": "queues", "priority": 10,
        "definition": {"delivery-limit": 3}});
    put(&vhost, &format!("/api/policies/{}/users-commands", vhost.name()), &changed);
    let check = rabbitry(&vhost, &["topology", "check"]).await;
    assert_eq!(check.code, 78);
    for line in ["users-commands: delivery-limit: expected 20, found 3", "users-commands: pattern: expected"]
    {
        assert!(check.errors.contains(line), "{line}: {}", check.errors);
    }
    assert!(
        check.errors.contains(
            "queue users.create: policy in force: expected users-commands (priority 10), found none"
        )
    );
    let apply = rabbitry(&vhost, &["topology", "apply"]).await;
    assert_eq!(
        (apply.code, states(&apply)),
        (0, BTreeSet::from(["updated", "was there"])),
        "{}",
        apply.errors
    );
}

#[tokio::test]
async fn a_policy_that_shadows_ours_is_found() {
    let vhost = applied().await;
    let shadow =
        json!({"pattern": "^users", "apply-to": "queues", "priority": 99, "definition": {"max-length": 5}});
    put(&vhost, &format!("/api/policies/{}/shadow", vhost.name()), &shadow);
    for action in ["check", "apply"] {
        let run = rabbitry(&vhost, &["topology", action]).await;
        assert_eq!(run.code, 78);
        let line = "queue users.dead: policy in force: expected users-dead (priority 10), found shadow (priority 99)";
        assert!(run.errors.contains(line), "{}", run.errors);
    }
}

#[tokio::test]
async fn a_missing_right_a_wrong_password_and_a_missing_virtual_host_are_told_apart() {
    let vhost = Vhost::create().await;
    let user = Login::create(&vhost, "management");
    let run = rabbitry_as(&vhost, user.url.as_str(), &["topology", "apply"]).await;
    assert_eq!(run.code, 77, "{}", run.errors);
    assert!(run.errors.contains("administrator") && !run.errors.contains("secret"), "{}", run.errors);
    let mut wrong = user.url.clone();
    wrong.set_password(Some("secret-but-wrong")).unwrap();
    let run = rabbitry_as(&vhost, wrong.as_str(), &["topology", "check"]).await;
    assert_eq!(run.code, 77, "{}", run.errors);
    assert!(!run.errors.contains("secret"), "{}", run.errors);
    let run = rabbitry(&vhost, &["topology", "check", "--vhost", "no-such-host"]).await;
    assert_eq!(run.code, 78, "{}", run.errors);
    let run = rabbitry_as(&vhost, "http://guest:secret@127.0.0.1:1", &["topology", "check"]).await;
    assert_eq!(run.code, 69, "{}", run.errors);
    assert!(!run.errors.contains("secret"), "{}", run.errors);
}

#[tokio::test]
async fn a_virtual_host_that_the_check_cannot_mean_does_not_pass_it() {
    let vhost = applied().await;
    for name in ["", ".", "..", "a\nb", "\n", "/\t"] {
        let run = rabbitry(&vhost, &["topology", "check", "--vhost", name]).await;
        assert_eq!((run.code, &run.json), (2, &Value::Null), "{name:?}: {}", run.errors);
    }
    for name in [" ", "%2E", "%2e%2e", "../queues", "./.", "no such/host?x#y"] {
        let run = rabbitry(&vhost, &["topology", "check", "--vhost", name]).await;
        assert_eq!((run.code, &run.json), (78, &Value::Null), "{name:?}: {}", run.errors);
    }
}

/// A login of the broker, with all rights on a virtual host and these tags; deleted when dropped.
struct Login {
    name: String,
    management: url::Url,
    url: url::Url,
}

impl Login {
    fn create(vhost: &Vhost, tags: &str) -> Self {
        let name = format!("{}-user", vhost.name());
        put(vhost, &format!("/api/users/{name}"), &json!({"password": "secret", "tags": tags}));
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        put(vhost, &format!("/api/permissions/{}/{name}", vhost.name()), &all);
        let mut url = vhost.management_url().clone();
        url.set_username(&name).unwrap();
        url.set_password(Some("secret")).unwrap();
        Self { name, management: vhost.management_url().clone(), url }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        request(&self.management, "DELETE", &format!("/api/users/{}", self.name), None);
    }
}

// ---- status ----

#[tokio::test]
async fn status_tells_which_queues_are_missing() {
    let vhost = Vhost::create().await;
    let run = rabbitry(&vhost, &["status"]).await;
    assert_eq!(run.code, 0, "{}", run.errors);
    let queues = run.json["queues"].as_array().unwrap();
    assert_eq!(queues.len(), COMMANDS.len() + 1);
    assert!(queues.iter().all(|queue| queue["missing"] == true), "{}", run.json);
    assert_eq!((&run.json["dead_letters"], &run.json["workers"]), (&Value::Null, &json!([])));
}

#[tokio::test]
async fn status_tells_depths_consumers_workers_and_the_broker() {
    let vhost = applied().await;
    for _ in 0..3 {
        vhost.publish("users.create", b"{}", BasicProperties::default()).await;
    }
    vhost.publish(DEAD, b"{}", BasicProperties::default()).await;
    let mut worker = Vec::new();
    for purpose in ["commands", "replies"] {
        let name = format!("users worker host:7 ({purpose})");
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        worker.push(Connection::connect(&vhost.url_text(), properties).await.unwrap());
    }
    let channel = worker[0].create_channel().await.unwrap();
    let _consumer = channel
        .basic_consume("users.get".into(), "".into(), Default::default(), FieldTable::default())
        .await
        .unwrap();
    // Numbers are statistics of the broker, up to 5 seconds old.
    eventually("the state is told", async || {
        let status = rabbitry(&vhost, &["status"]).await.json;
        let queue = |name: &str| {
            status["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == name).unwrap().clone()
        };
        queue("users.create")["ready"] == 3
            && queue("users.get")["consumers"] == 1
            && status["dead_letters"] == 1
            && status["workers"][0]["process"] == "host:7"
            && status["workers"][0]["connections"].as_object().unwrap().len() == 2
    })
    .await;
    let status = rabbitry(&vhost, &["status"]).await.json;
    assert!(status["broker"]["version"].as_str().unwrap().contains('.'), "{status}");
    assert_eq!(status["broker"]["alarms"], json!([]));
    assert!(status["queues"].as_array().unwrap().iter().all(|queue| queue["type"] == "quorum"), "{status}");
}

#[tokio::test]
async fn watching_prints_again_and_again() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let vhost = Vhost::create().await;
    let mut watching = Command::new(env!("CARGO_BIN_EXE_rabbitry"))
        .args(["status", "--watch=0.1"])
        .env("AMQP_URL", vhost.url_text())
        .env("AMQP_MANAGEMENT_URL", vhost.management_url().as_str())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line = soon("the next line", lines.next_line()).await.unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["vhost"], vhost.name());
    }
}

// ---- dead letters ----

/// The properties of a message that a worker set aside.
fn set_aside(command: &str, code: &str, id: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    let texts = [("queue", queue("users", command)), ("code", code.to_owned()), ("detail", "why".to_owned())];
    for (name, value) in texts {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default().with_headers(headers);
    if id.is_empty() { properties } else { properties.with_message_id(id.into()) }
}

/// Lets the broker move a message: it is rejected as a worker would.
async fn reject(vhost: &Vhost, command: &str, body: &[u8], properties: BasicProperties) {
    let queue = queue("users", command);
    let dead = vhost.ready(DEAD).await;
    vhost.publish(&queue, body, properties).await;
    let message = vhost
        .channel
        .basic_get(queue.as_str().into(), BasicGetOptions { no_ack: false })
        .await
        .unwrap()
        .unwrap();
    vhost
        .channel
        .basic_reject(message.delivery.delivery_tag, BasicRejectOptions { requeue: false })
        .await
        .unwrap();
    eventually("the broker moves it", async || vhost.ready(DEAD).await == dead + 1).await;
}

fn ids(run: &Run) -> Vec<&str> {
    run.json["letters"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn looking_leaves_everything_where_it_is_and_in_its_order() {
    let vhost = applied().await;
    let mut expected = Vec::new();
    for number in 0..60 {
        expected.push(format!("m{number}"));
        vhost.publish(DEAD, b"{}", set_aside("create", "internal", &expected[number])).await;
    }
    vhost.publish(DEAD, b"no id", set_aside("get", "malformed", "")).await;
    for _ in 0..10 {
        let list = rabbitry(&vhost, &["dead-letters", "list"]).await;
        assert_eq!((list.code, list.json["looked_at"].as_u64()), (0, Some(61)), "{}", list.errors);
        assert_eq!(ids(&list)[..60], expected);
    }
    let list = rabbitry(&vhost, &["dead-letters", "list"]).await;
    let unnamed = ids(&list)[60].to_owned();
    let show = rabbitry(&vhost, &["dead-letters", "show", &unnamed]).await;
    assert_eq!((show.code, &show.json["body"]), (0, &json!("no id")), "{}", show.errors);
    assert_eq!((&show.json["command"], &show.json["headers"]["detail"]), (&json!("get"), &json!("why")));
    let none = rabbitry(&vhost, &["dead-letters", "show", "m99"]).await;
    assert_eq!(none.code, 1, "{}", none.errors);
    let few = rabbitry(&vhost, &["dead-letters", "list", "--limit", "3"]).await;
    assert_eq!(ids(&few), expected[..3]);
    assert!(few.errors.contains("3 of 61"), "{}", few.errors);
    vhost.assert_left(&[(DEAD, 61)]).await;
}

#[tokio::test]
async fn a_letter_that_cannot_be_read_is_named_and_hides_none_before_it() {
    let vhost = applied().await;
    for id in ["one", "two"] {
        vhost.publish(DEAD, b"{}", set_aside("create", "invalid", id)).await;
    }
    // Bit 3 of the flags: the application's name, in Latin-1.
    publish_with_properties(&vhost, DEAD, b"\x00\x08\x06Z\xfcrich", b"{}");
    vhost.publish(DEAD, b"{}", set_aside("create", "invalid", "three")).await;
    let list = rabbitry(&vhost, &["dead-letters", "list"]).await;
    assert_eq!((list.code, ids(&list)), (70, vec!["one", "two"]), "{}", list.errors);
    assert!(list.errors.contains("letter 3 of queue users.dead cannot be read"), "{}", list.errors);
    let drop = rabbitry(&vhost, &["dead-letters", "drop", "--all", "--yes"]).await;
    assert_eq!(drop.code, 70, "{}", drop.errors);
    eventually("all are back", async || vhost.ready(DEAD).await == 4).await;
    let drop = rabbitry(&vhost, &["dead-letters", "drop", "--all", "--yes", "--limit", "2"]).await;
    assert_eq!((drop.code, vhost.ready(DEAD).await), (0, 2), "{}", drop.errors);
}

#[tokio::test]
async fn what_the_broker_moved_is_requeued_as_it_was_sent() {
    let vhost = applied().await;
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString("00-1".into()));
    let sent = BasicProperties::default()
        .with_message_id("m1".into())
        .with_correlation_id("c1".into())
        .with_reply_to("reply.console".into())
        .with_content_type("application/json".into())
        .with_headers(headers);
    reject(&vhost, "create", br#"{"username": "ann"}"#, sent).await;
    let list = rabbitry(&vhost, &["dead-letters", "list"]).await;
    let letter = &list.json["letters"][0];
    assert_eq!((&letter["reason"], &letter["command"]), (&json!("rejected"), &json!("create")));
    assert!(letter["time"].as_str().unwrap().starts_with("20"), "{letter}");
    let run = rabbitry(&vhost, &["dead-letters", "requeue", "--reason", "rejected"]).await;
    assert_eq!((run.code, &run.json["requeued"]), (0, &json!(1)), "{}", run.errors);
    let delivery = vhost.take("users.create").await.delivery;
    assert_eq!(delivery.data, br#"{"username": "ann"}"#);
    let properties = &delivery.properties;
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().unwrap().to_string();
    assert_eq!(
        (text(properties.message_id()), text(properties.correlation_id())),
        ("m1".into(), "c1".into())
    );
    assert_eq!((text(properties.reply_to()), properties.delivery_mode()), ("reply.console".into(), &Some(2)));
    assert_eq!(header_text(&delivery, "traceparent"), "00-1");
    for added in ["x-death", "x-first-death-queue", "x-first-death-reason", "code", "queue", "detail"] {
        assert_eq!(header(&delivery, added), None, "{added}");
    }
    vhost.assert_left(&[]).await;
}

#[tokio::test]
async fn an_interruption_between_publishing_and_removing_loses_nothing() {
    let vhost = applied().await;
    for id in ["m1", "m2"] {
        vhost.publish(DEAD, b"{}", set_aside("create", "internal", id)).await;
    }
    let mut queue = DeadLetterQueue::open(&vhost.url(), "users", PATIENCE).await.unwrap();
    let publisher = Publisher::open(&vhost.url(), "users", PATIENCE).await.unwrap();
    let rules = Rules { commands: COMMANDS, new_id: false, drop_deadline: false };
    let mut window = Vec::new();
    while let Some(letter) = queue.next().await.unwrap() {
        window.push((rules.prepare(&letter, unix_ms()).unwrap(), letter));
    }
    assert_eq!(publisher.publish(&window).await.unwrap(), [Ok(()), Ok(())]);
    // The process dies here, as far as the broker can see.
    assert_eq!(vhost.close_connections("users dead letters").await, 1);
    eventually("the letters are back", async || vhost.ready(DEAD).await == 2).await;
    assert_eq!(vhost.ready("users.create").await, 2);
    // What is written before this side has heard of the end is told by the close.
    let told = match queue.remove(window[0].1.held).await {
        Ok(()) => queue.close().await,
        lost => lost,
    };
    assert!(told.is_err(), "nothing can be removed any more");
    // What is done again is there twice, under the same id, which the inbox makes harmless.
    let again = rabbitry(&vhost, &["dead-letters", "requeue", "--all"]).await;
    assert_eq!(again.code, 0, "{}", again.errors);
    let mut requeued = Vec::new();
    for _ in 0..4 {
        let properties = vhost.take("users.create").await.delivery.properties;
        requeued.push(properties.message_id().as_ref().unwrap().to_string());
    }
    requeued.sort();
    assert_eq!(requeued, ["m1", "m1", "m2", "m2"]);
    vhost.assert_left(&[]).await;
}

#[tokio::test]
async fn a_publishing_connection_that_dies_loses_nothing() {
    let vhost = applied().await;
    for id in ["m1", "m2"] {
        vhost.publish(DEAD, b"{}", set_aside("create", "internal", id)).await;
    }
    let mut queue = DeadLetterQueue::open(&vhost.url(), "users", PATIENCE).await.unwrap();
    let publisher = Publisher::open(&vhost.url(), "users", PATIENCE).await.unwrap();
    assert_eq!(vhost.close_connections("users requeue").await, 1);
    let rules = Rules { commands: COMMANDS, new_id: false, drop_deadline: false };
    let mut sent = Vec::new();
    let any = Filter::default();
    let requeue = requeue(&mut queue, &publisher, &rules, &any, 10, &mut sent);
    assert!(soon("it fails", requeue).await.is_err() && sent.is_empty());
    queue.close().await.unwrap();
    vhost.assert_left(&[(DEAD, 2)]).await;
}

#[tokio::test]
async fn an_id_that_is_too_old_is_kept_unless_it_gets_a_new_one() {
    let vhost = applied().await;
    vhost.publish(DEAD, b"{}", set_aside("create", "internal", OLD_ID)).await;
    let kept = rabbitry(&vhost, &["dead-letters", "requeue", "--all"]).await;
    assert_eq!((kept.code, &kept.json["letters"][0]["kept"]), (1, &json!("id_expired")));
    assert!(kept.errors.contains("--new-id"), "{}", kept.errors);
    vhost.assert_left(&[(DEAD, 1)]).await;
    let sent = rabbitry(&vhost, &["dead-letters", "requeue", "--all", "--new-id"]).await;
    assert_eq!((sent.code, &sent.json["letters"][0]["new_id"]), (0, &json!(true)), "{}", sent.errors);
    let properties = vhost.take("users.create").await.delivery.properties;
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), format!("requeue-of-{OLD_ID}"));
    vhost.assert_left(&[]).await;
}

#[tokio::test]
async fn filters_choose_and_nothing_is_changed_without_one() {
    let vhost = applied().await;
    for (command, code, id) in
        [("create", "internal", "m1"), ("create", "invalid", "m2"), ("award", "internal", "m3")]
    {
        vhost.publish(DEAD, b"{}", set_aside(command, code, id).with_timestamp(1_000_000)).await;
    }
    let list = async |arguments: &[&str]| {
        let run = rabbitry(&vhost, &[&["dead-letters", "list"], arguments].concat()).await;
        assert_eq!(run.code, 0, "{}", run.errors);
        ids(&run).join(" ")
    };
    assert_eq!(list(&["--reason", "internal"]).await, "m1 m3");
    assert_eq!(list(&["--command", "users.create"]).await, "m1 m2");
    assert_eq!(list(&["--command", "users.create", "--reason", "internal"]).await, "m1");
    assert_eq!(list(&["--id", "m3", "--id", "m2"]).await, "m2 m3");
    assert_eq!(list(&["--older-than", "2h"]).await, "m1 m2 m3");
    assert_eq!(list(&["--newer-than", "2h"]).await, "");
    for action in ["requeue", "drop"] {
        let run = rabbitry(&vhost, &["dead-letters", action]).await;
        assert_eq!(run.code, 2, "{}", run.errors);
        let run = rabbitry(&vhost, &["dead-letters", action, "--all", "--dry-run"]).await;
        assert_eq!((run.code, &run.json["dry_run"]), (0, &json!(true)), "{}", run.errors);
        let run = rabbitry(&vhost, &["dead-letters", action, "--id", "m9", "--dry-run"]).await;
        assert!(run.code <= 1, "{}", run.errors);
    }
    vhost.assert_left(&[(DEAD, 3)]).await;
    let run =
        rabbitry(&vhost, &["dead-letters", "requeue", "--command", "users.create", "--reason", "invalid"])
            .await;
    assert_eq!((run.code, &run.json["requeued"]), (0, &json!(1)), "{}", run.errors);
    vhost.assert_left(&[(DEAD, 2), ("users.create", 1)]).await;
}

#[tokio::test]
async fn dropping_takes_a_confirmation_and_removes_what_is_meant() {
    let vhost = applied().await;
    for id in ["m1", "m2", "m3"] {
        vhost.publish(DEAD, b"{}", set_aside("create", "internal", id)).await;
    }
    let unasked = rabbitry(&vhost, &["dead-letters", "drop", "--id", "m2"]).await;
    assert_eq!((unasked.code, vhost.ready(DEAD).await), (2, 3), "{}", unasked.errors);
    let run = rabbitry(&vhost, &["dead-letters", "drop", "--id", "m2", "--yes"]).await;
    assert_eq!((run.code, &run.json["dropped"]), (0, &json!(1)), "{}", run.errors);
    let list = rabbitry(&vhost, &["dead-letters", "list"]).await;
    assert_eq!(ids(&list), ["m1", "m3"]);
    vhost.assert_left(&[(DEAD, 2)]).await;
    // A broker that is told to remove many at once forgets some, unless it is given time.
    for number in 0..200 {
        vhost.publish(DEAD, b"{}", set_aside("get", "internal", &number.to_string())).await;
    }
    let run = rabbitry(&vhost, &["dead-letters", "drop", "--command", "users.get", "--yes"]).await;
    assert_eq!((run.code, &run.json["dropped"]), (0, &json!(200)), "{}", run.errors);
    vhost.assert_left(&[(DEAD, 2)]).await;
}

#[tokio::test]
async fn many_letters_are_requeued_up_to_the_limit() {
    let vhost = applied().await;
    for number in 0..150 {
        let body = number.to_string();
        vhost.publish(DEAD, body.as_bytes(), set_aside("create", "internal", &format!("m{number}"))).await;
    }
    let run = rabbitry(&vhost, &["dead-letters", "requeue", "--all", "--limit", "100"]).await;
    assert_eq!((run.code, &run.json["requeued"]), (0, &json!(100)), "{}", run.errors);
    for number in 0..100 {
        assert_eq!(vhost.take("users.create").await.delivery.data, number.to_string().as_bytes());
    }
    vhost.assert_left(&[(DEAD, 50)]).await;
}

#[tokio::test]
async fn what_the_broker_does_not_take_stays() {
    let vhost = applied().await;
    vhost.publish(DEAD, b"{}", set_aside("create", "internal", "m1")).await;
    vhost.publish(DEAD, b"{}", set_aside("get", "internal", "m2")).await;
    vhost.publish(DEAD, b"{}", set_aside("drop", "internal", "m3")).await;
    vhost.delete_queue("users.create").await;
    let unroutable = rabbitry(&vhost, &["dead-letters", "requeue", "--command", "users.create"]).await;
    assert_eq!((unroutable.code, &unroutable.json["letters"][0]["kept"]), (69, &json!("unroutable")));
    let foreign = rabbitry(&vhost, &["dead-letters", "requeue", "--id", "m3"]).await;
    assert_eq!((foreign.code, &foreign.json["letters"][0]["kept"]), (1, &json!("unknown_origin")));
    let full = json!({"pattern": "^users.get$", "priority": 99, "definition": {"max-length": 1, "overflow": "reject-publish"}});
    put(&vhost, &format!("/api/policies/{}/full", vhost.name()), &full);
    // The limit is soft: the broker takes some more before it refuses.
    eventually("the queue is full", async || {
        let publish = vhost.channel.basic_publish(
            "".into(),
            "users.get".into(),
            Default::default(),
            b"{}",
            BasicProperties::default(),
        );
        publish.await.unwrap().await.unwrap().is_nack()
    })
    .await;
    let refused = rabbitry(&vhost, &["dead-letters", "requeue", "--command", "users.get"]).await;
    assert_eq!(
        (refused.code, &refused.json["letters"][0]["kept"]),
        (75, &json!("refused")),
        "{}",
        refused.errors
    );
    eventually("all three are back", async || vhost.ready(DEAD).await == 3).await;
}

#[tokio::test]
async fn no_queue_of_dead_letters_is_told() {
    let vhost = Vhost::create().await;
    let run = rabbitry(&vhost, &["dead-letters", "list"]).await;
    assert_eq!(run.code, 69);
    assert!(run.errors.contains("topology apply"), "{}", run.errors);
}
