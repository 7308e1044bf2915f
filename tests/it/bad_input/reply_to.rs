//! Hostile reply addresses.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{FutureExt, StreamExt};
use lapin::{BasicProperties, options::BasicConsumeOptions, types::FieldTable};
use serde_json::json;

use crate::support::{
    SOON,
    users::{Stage, new_user, points, wait_for_points},
};

/// A well-formed direct reply-to address (Erlang External Term Format: a process id) of a node that there is not.
fn unknown_node() -> String {
    let node = b"rabbit@nowhere.invalid";
    let pid = [
        &[0x83, 0x58, 119, u8::try_from(node.len()).unwrap()],
        &node[..],
        &[0, 0, 3, 1, 0, 0, 0, 0, 1, 2, 3, 4],
    ]
    .concat();
    format!("amq.rabbitmq.reply-to.{}.{}", STANDARD.encode(pid), STANDARD.encode("key"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_to_be_trusted_gets_no_reply_and_its_command_is_done() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    let replies = worker_connection(&stage, "(replies)").await;
    stage.ask("create", new_user("ann", 0)).await;
    let hostile = [
        "users.award",
        "users.create",
        "users.dead",
        "nothing-that-exists",
        "amq.rabbitmq.reply-to.a.b",
        "amq.rabbitmq.reply-to.!!!.x",
        "amq.rabbitmq.reply-to.",
        "reply",
        " ",
    ];
    for reply_to in hostile {
        let properties = BasicProperties::default().with_reply_to(reply_to.into());
        stage.send("award", &json!({"username": "ann", "points": 1}), properties).await;
    }
    // Trusted by its name, and nobody listens: the broker drops the reply.
    let gone = BasicProperties::default().with_reply_to("reply.gone".into());
    stage.send("award", &json!({"username": "ann", "points": 1}), gone).await;
    let all = i64::try_from(hostile.len()).unwrap() + 1;
    wait_for_points(stage.place.store(), "ann", all).await;
    assert_eq!(stage.ask("get", json!({"username": "ann"})).await.1["points"], json!(all));
    assert_eq!(worker_connection(&stage, "(replies)").await, replies, "the reply connection was not harmed");
    let log = stage.end(worker, &[]).await;
    assert_eq!(log.matches("reply_to names a queue that is not trusted").count(), hostile.len());
    assert!(log.contains(r#""reply_to":"nothing-that-exists""#), "{log}");
}

/// The broker's name of a worker's connection.
async fn worker_connection(stage: &Stage, purpose: &str) -> String {
    let find = || {
        stage.vhost.connections().into_iter().find_map(|connection| {
            let name = connection["client_properties"]["connection_name"].as_str()?;
            name.ends_with(purpose).then(|| connection["name"].as_str().unwrap().to_owned())
        })
    };
    crate::support::eventually(&format!("the {purpose} connection is listed"), async || find().is_some())
        .await;
    find().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_an_unknown_node_costs_its_own_reply_and_nothing_else() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    let hostile = unknown_node();
    for round in 1..=5 {
        let properties = BasicProperties::default().with_reply_to(hostile.as_str().into());
        stage.send("award", &json!({"username": "ann", "points": 1}), properties).await;
        wait_for_points(stage.place.store(), "ann", round).await;
        let (status, user) = stage.ask("get", json!({"username": "ann"})).await;
        assert_eq!((status, user["points"].as_i64()), (200, Some(round)));
    }
    crate::support::eventually("it is acknowledged", async || stage.vhost.ready("users.award").await == 0)
        .await;
    assert_eq!(points(stage.place.store(), "ann"), 5);
    let log = stage.end(worker, &[]).await;
    assert!(!log.contains("session ended") && !log.contains("reply connection was lost"), "{log}");
}

/// RabbitMQ 3.10.8 closes the connection that publishes to such an address.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_an_unknown_node_cost_others_no_reply() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    let direct = "amq.rabbitmq.reply-to";
    let channel = &stage.vhost.channel;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consume = channel.basic_consume(direct.into(), "".into(), options, FieldTable::default());
    let mut answers = consume.await.unwrap();
    let (hostile, get) = (unknown_node(), json!({"username": "ann"}));
    let (asked, mut answered) = (300, 0);
    let mut pace = tokio::time::interval(Duration::from_millis(25));
    for n in 0..asked {
        pace.tick().await;
        if n % 10 == 0 {
            stage.send("get", &get, BasicProperties::default().with_reply_to(hostile.as_str().into())).await;
        }
        stage.send("get", &get, BasicProperties::default().with_reply_to(direct.into())).await;
        while let Some(Some(answer)) = answers.next().now_or_never() {
            answer.unwrap();
            answered += 1;
        }
    }
    while answered < asked {
        let answer = tokio::time::timeout(SOON, answers.next()).await;
        let missing = asked - answered;
        answer.unwrap_or_else(|_| panic!("{missing} of {asked} replies are missing")).unwrap().unwrap();
        answered += 1;
    }
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_aside_keeps_its_reason_beside_a_hostile_address() {
    let mut stage = Stage::set().await;
    let worker = stage.warm_worker().await;
    let hostile = unknown_node();
    let cases: Vec<_> = (0..10)
        .map(|n| match n % 2 {
            0 => super::case(
                &format!("hostile {n}"),
                "create",
                new_user(&format!("user{n}"), 0).to_string(),
                super::Done(201),
            )
            .with(|properties| properties.with_reply_to(hostile.as_str().into())),
            _ => super::case(&format!("malformed {n}"), "create", "{", super::Refused("malformed", 400)),
        })
        .collect();
    stage.send_in_one_batch(&worker, &cases).await;
    let mut names = std::collections::BTreeSet::new();
    // A confirm that was lost with the connection may mean a second copy, but never one without its reason.
    while names.len() < 5 {
        let dead = stage.vhost.take("users.dead").await.delivery;
        assert_eq!(crate::support::vhost::header_text(&dead, "code"), "malformed");
        names.insert(crate::support::users::correlation(&dead));
    }
    let log = worker.stop().await;
    assert!(!log.contains("dead letters could not be published"), "{log}");
    while stage.vhost.ready("users.dead").await > 0 {
        let dead = stage.vhost.take("users.dead").await.delivery;
        assert_eq!(crate::support::vhost::header_text(&dead, "code"), "malformed");
    }
    stage.vhost.assert_left(&[]).await;
}
