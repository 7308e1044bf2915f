//! Headers that are forged, too long, or too deep.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable},
};
use serde_json::json;

use super::properties::with_header;
use crate::support::{
    frames::publish_with_properties,
    process::{WorkerProcess, cli, run, worker},
    users::{Stage, new_user, points, status},
    vhost::{header, header_text},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_delivery_count_makes_no_message_a_suspect() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    for n in 0..3 {
        let forged = with_header(stage.asking("forged"), "x-delivery-count", AMQPValue::LongLongInt(100));
        stage.send("create", &new_user(&format!("user{n}"), 0), forged).await;
        assert_eq!(status(&stage.replies.next().await), 201);
    }
    let log = stage.end(worker, &[]).await;
    assert!(!log.contains("one by one"), "{log}");
}

/// The broker drops a message that it takes for one that goes round in circles by this header, when it moves it to the
/// dead-letter queue itself. What a worker moves there is safe.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_history_of_dead_letters_loses_nothing_that_a_worker_dead_letters() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let mut death = FieldTable::default();
    for (name, value) in [("queue", "users.dead"), ("exchange", "users.dead"), ("reason", "expired")] {
        death.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    death.insert("count".into(), AMQPValue::LongLongInt(3));
    let history = FieldArray::from(vec![AMQPValue::FieldTable(death)]);
    let forged = with_header(BasicProperties::default(), "x-death", AMQPValue::FieldArray(history));
    stage.send("create", &json!({"odd": true}), forged).await;
    stage.vhost.wait_for_messages("users.dead", 1).await;
    let dead = stage.vhost.take("users.dead").await.delivery;
    assert_eq!(header_text(&dead, "code"), "invalid");
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_context_of_any_size_and_type_costs_no_reply() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    let long = |bytes: usize| AMQPValue::LongString("x".repeat(bytes).into());
    let mut table = FieldTable::default();
    table.insert("a".into(), AMQPValue::Void);
    let usual = AMQPValue::LongString("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    for value in [usual.clone(), long(130_900), AMQPValue::FieldTable(table), AMQPValue::Float(1.0)] {
        let properties = with_header(stage.asking("traced"), "traceparent", value.clone());
        stage.send("award", &json!({"username": "ann", "points": 1}), properties).await;
        let reply = stage.replies.next().await;
        assert_eq!(status(&reply), 200);
        let echoed = header(&reply, "traceparent");
        assert!(echoed.is_none() || echoed == Some(value.clone()), "cut or changed: {echoed:?}");
        assert_eq!(echoed.is_some(), value == usual);
    }
    let log = stage.end(worker, &[]).await;
    assert!(!log.contains("was lost"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_too_long_for_a_dead_letter_are_left_out_and_the_reason_is_not() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    for bytes in [100, 60_000, 70_000, 130_900] {
        let value = AMQPValue::LongString("x".repeat(bytes).into());
        let properties = with_header(BasicProperties::default().with_message_id("m".into()), "long", value);
        stage.vhost.publish("users.create", b"{", properties).await;
        let dead = stage.vhost.take("users.dead").await.delivery;
        assert_eq!(header_text(&dead, "code"), "malformed");
        assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), "m");
        assert_eq!(header(&dead, "headers-dropped").is_some(), bytes > 65_536);
        assert_eq!(header(&dead, "long").is_some(), bytes < 65_536);
    }
    let log = stage.end(worker, &[]).await;
    assert!(!log.contains("was lost"), "{log}");
}

/// Arrays in an array in a header, this deep.
fn deep(levels: u32) -> Vec<u8> {
    let mut value = Vec::new();
    for level in (0..levels).rev() {
        value.push(b'A');
        value.extend((level * 5).to_be_bytes());
    }
    // Bit 13 of the flags: headers, with one of the name "d".
    let length = u32::try_from(value.len()).unwrap() + 2;
    [&[0x20, 0x00][..], &length.to_be_bytes(), &[1, b'd'], &value].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_as_deep_as_a_frame_holds_harm_nobody() {
    let mut stage = Stage::set().await;
    let mut worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    // Once with a command that is executed, and once with one that is set aside.
    for body in [&b"{\"username\":\"ann\",\"points\":7}"[..], b"{"] {
        publish_with_properties(&stage.vhost, "users.award", &deep(26_000), body);
    }
    let dead = stage.vhost.take("users.dead").await.delivery;
    assert_eq!(header_text(&dead, "code"), "malformed");
    assert!(header(&dead, "headers-dropped").is_some());
    assert_eq!(points(stage.place.store(), "ann"), 7);
    assert!(worker.is_running());
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_with_headers_as_deep_as_a_frame_holds_are_shown_and_dropped() {
    let stage = Stage::set().await;
    publish_with_properties(&stage.vhost, "users.dead", &deep(26_000), b"{}");
    let dead_letters = |arguments: &[&str]| {
        let command = cli(&stage.vhost, &stage.place, &[&["dead-letters"], arguments].concat());
        async { run(command).await.with_code(0) }
    };
    let list = dead_letters(&["list", "--json"]).await;
    let id = list.json()["letters"][0]["id"].as_str().unwrap().to_owned();
    dead_letters(&["show", &id]).await;
    dead_letters(&["drop", "--id", &id, "--yes"]).await;
    assert_eq!(stage.vhost.ready("users.dead").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_its_worker_is_set_aside_and_its_neighbours_are_done() {
    let mut stage = Stage::set().await;
    // More than the neighbours need, and fewer than the usual 20, as each delivery is a start of the program.
    stage.limit_deliveries("users.award", 10);
    let first = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    first.stop().await;
    for n in 0..20 {
        if n == 10 {
            // Headers are read by recursion, and the stacks of these workers are not this deep.
            let body = b"{\"username\":\"ann\",\"points\":1000}";
            publish_with_properties(&stage.vhost, "users.award", &deep(10_000), body);
        }
        let id = format!("good-{n}");
        let properties = stage.asking(&id).with_message_id(id.as_str().into());
        stage.send("award", &json!({"username": "ann", "points": 1}), properties).await;
    }
    let mut deaths = 0;
    let worker = loop {
        // It may die before it says that it consumes.
        let mut command = worker(&stage.vhost, &stage.place);
        command.env("RUST_MIN_STACK", "2097152");
        let mut worker = WorkerProcess::spawn(command, &stage.place);
        // Either it dies, or the broker has set the message aside.
        while worker.is_running() && stage.vhost.ready("users.dead").await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        if worker.is_running() {
            break worker;
        }
        deaths += 1;
        assert!(deaths < 20, "the message is delivered for ever");
    };
    // Those before it may have answered everything, and a signal ends a program that has just been started.
    worker.wait_for_log("consuming").await;
    let ids = (0..20).map(|n| format!("good-{n}")).collect();
    let mut answers = std::collections::BTreeMap::new();
    stage.answers("award", &json!({"username": "ann", "points": 1}), &ids, &mut answers).await;
    assert!(answers.values().all(|reply| status(reply) == 200));
    assert_eq!(points(stage.place.store(), "ann"), 20);
    stage.end(worker, &[("users.dead", 1)]).await;
}
