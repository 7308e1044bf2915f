//! The wire contract: properties, replies, refusals, dead letters.

use lapin::{
    BasicProperties,
    types::{AMQPValue, DecimalValue, FieldArray, FieldTable},
};
use rabbitry::clock::unix_ms;
use serde_json::Value;

use super::Scene;
use crate::support::{
    toys::{PANIC, REFUSED},
    vhost::{header, header_text},
};

fn with_deadline(properties: BasicProperties, deadline: AMQPValue) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("deadline".into(), deadline);
    properties.with_headers(headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_answered_with_the_properties_of_the_contract() {
    let mut scene = Scene::start().await;
    scene.add(5, scene.asking().with_correlation_id("call-7".into())).await;
    let reply = scene.replies.next().await;
    assert_eq!(reply.data, b"{\"total\":5}");
    assert_eq!(reply.properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(reply.properties.kind().as_ref().unwrap().as_str(), "toys.add.reply");
    assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), "call-7");
    assert_eq!(header(&reply, "status"), Some(AMQPValue::LongInt(200)));
    assert_eq!(header(&reply, "replayed"), None);
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_gets_the_same_reply_and_has_no_effect() {
    let mut scene = Scene::start().await;
    for correlation in ["a", "b"] {
        let properties = scene.asking().with_message_id("m1".into()).with_correlation_id(correlation.into());
        scene.add(5, properties).await;
        let reply = scene.replies.next().await;
        assert_eq!(reply.data, b"{\"total\":5}");
        assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), correlation);
        let replayed = (correlation == "b").then_some(AMQPValue::Boolean(true));
        assert_eq!(header(&reply, "replayed"), replayed);
    }
    assert_eq!(scene.toys.total(), (5, 1));
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_with_another_content_is_refused_without_effect() {
    let mut scene = Scene::start().await;
    scene.add(5, scene.asking().with_message_id("m1".into())).await;
    scene.replies.next().await;
    scene.add(6, scene.asking().with_message_id("m1".into())).await;
    let reply = scene.replies.next().await;
    assert_eq!(header(&reply, "status"), Some(AMQPValue::LongInt(422)));
    assert_eq!(problem(&reply.data)["code"], "idempotency_conflict");
    assert_eq!(scene.toys.total(), (5, 1));
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_problem_and_acknowledged_like_a_success() {
    let mut scene = Scene::start().await;
    scene.add(REFUSED, scene.asking()).await;
    let reply = scene.replies.next().await;
    assert_eq!(reply.properties.content_type().as_ref().unwrap().as_str(), "application/problem+json");
    assert_eq!(header(&reply, "status"), Some(AMQPValue::LongInt(409)));
    let problem = problem(&reply.data);
    assert_eq!(problem["code"], "unlucky");
    assert_eq!(problem["type"], "urn:rabbitry:problem:unlucky");
    assert_eq!(problem["status"], 409);
    assert_eq!(problem["retryable"], false);
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_executed_is_answered_or_set_aside_with_the_reason() {
    let mut scene = Scene::start().await;
    scene.vhost.publish("toys.add", b"{\"n\":", scene.asking()).await;
    assert_eq!(problem(&scene.replies.next().await.data)["code"], "malformed");
    scene
        .vhost
        .publish("toys.add", b"{\"m\":1}", BasicProperties::default().with_message_id("m9".into()))
        .await;
    let dead = scene.vhost.take("toys.dead").await.delivery;
    assert_eq!(dead.data, b"{\"m\":1}");
    assert_eq!(header_text(&dead, "code"), "invalid");
    assert_eq!(header_text(&dead, "queue"), "toys.add");
    assert!(header_text(&dead, "detail").contains("unknown field `m`"));
    assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str(), "m9");
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_answered_and_set_aside_and_its_neighbours_live() {
    let mut scene = Scene::start().await;
    scene.toys.close_gate();
    for n in [1, PANIC, 2, 3] {
        scene.add(n, scene.asking()).await;
    }
    scene.toys.memory.gate.add_permits(100);
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(problem(&scene.replies.next().await.data)["code"].as_str().unwrap_or("done").to_owned());
    }
    assert_eq!(codes, ["done", "internal", "done", "done"]);
    assert_eq!(scene.toys.total(), (6, 3));
    scene.end(&[("toys.dead", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_deadline_stops_a_command_and_a_malformed_one_is_invalid() {
    let mut scene = Scene::start().await;
    let codes = [
        (AMQPValue::LongLongInt(unix_ms() - 1), "deadline_exceeded"),
        (AMQPValue::LongString("1".into()), "deadline_exceeded"),
        (AMQPValue::Double(1e15), "invalid"),
        (AMQPValue::LongString("tomorrow".into()), "invalid"),
        (AMQPValue::LongLongInt(unix_ms() + 60_000), "done"),
    ];
    for (deadline, expected) in codes {
        scene.add(1, with_deadline(scene.asking(), deadline)).await;
        let reply = scene.replies.next().await;
        assert_eq!(problem(&reply.data)["code"].as_str().unwrap_or("done"), expected);
    }
    assert_eq!(scene.toys.total(), (1, 1));
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_done_in_time_gets_its_reply_after_the_deadline() {
    let mut scene = Scene::start().await;
    scene.add(1, scene.asking().with_message_id("m1".into())).await;
    let first = scene.replies.next().await.data;
    let late = with_deadline(scene.asking().with_message_id("m1".into()), AMQPValue::LongLongInt(1));
    scene.add(1, late).await;
    assert_eq!(scene.replies.next().await.data, first);
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_older_than_replies_are_remembered_is_refused() {
    let mut scene = Scene::start().await;
    scene.add(1, scene.asking().with_message_id("017f22e2-79b0-7cc3-98c4-dc0c0c07398f".into())).await;
    assert_eq!(problem(&scene.replies.next().await.data)["code"], "id_expired");
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_every_type_do_no_harm_and_are_kept_by_a_dead_letter() {
    let mut scene = Scene::start().await;
    let mut inner = FieldTable::default();
    inner.insert("deep".into(), AMQPValue::Boolean(true));
    let values = [
        AMQPValue::Boolean(true),
        AMQPValue::ShortShortInt(-1),
        AMQPValue::ShortShortUInt(1),
        AMQPValue::ShortInt(-1),
        AMQPValue::ShortUInt(1),
        AMQPValue::LongInt(-1),
        AMQPValue::LongUInt(1),
        AMQPValue::LongLongInt(-1),
        AMQPValue::Float(1.5),
        AMQPValue::Double(1.5),
        AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 150 }),
        AMQPValue::LongString("text".into()),
        AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void, AMQPValue::LongInt(1)])),
        AMQPValue::Timestamp(1_700_000_000),
        AMQPValue::FieldTable(inner),
        AMQPValue::ByteArray(vec![0, 255].into()),
        AMQPValue::Void,
    ];
    let mut headers = FieldTable::default();
    for (index, value) in values.iter().enumerate() {
        headers.insert(format!("h{index}").into(), value.clone());
    }
    scene.add(1, scene.asking().with_headers(headers.clone())).await;
    assert_eq!(scene.replies.next().await.data, b"{\"total\":1}");
    scene.vhost.publish("toys.add", b"x", BasicProperties::default().with_headers(headers)).await;
    let dead = scene.vhost.take("toys.dead").await.delivery;
    assert_eq!(header(&dead, "h11"), Some(AMQPValue::LongString("text".into())));
    assert!(header(&dead, "h14").is_some());
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_reply_to_is_not_answered_and_its_command_is_done() {
    let mut scene = Scene::start().await;
    let hostile = [
        "toys.add",
        "toys.dead",
        "nothing-that-exists",
        "amq.rabbitmq.reply-to.a.b",
        "amq.rabbitmq.reply-to.!!!.x",
    ];
    for reply_to in hostile {
        scene.add(1, BasicProperties::default().with_reply_to(reply_to.into())).await;
    }
    // A trusted name of a queue that does not exist: the reply is dropped by the broker.
    scene.add(1, BasicProperties::default().with_reply_to("reply.gone".into())).await;
    scene.add(1, scene.asking()).await;
    let total = hostile.len() + 2;
    assert_eq!(scene.replies.next().await.data, format!("{{\"total\":{total}}}").as_bytes());
    assert_eq!(scene.vhost.ready("toys.add").await, 0);
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_one_message_with_one_reply_in_the_same_order() {
    let mut scene = Scene::start().await;
    let properties = scene.asking().with_message_id("m1".into());
    let body = format!("[{{\"n\":1}},{{\"n\":{REFUSED}}},{{\"m\":1}},{{\"n\":2}}]");
    for _ in 0..2 {
        scene.vhost.publish("toys.add", body.as_bytes(), properties.clone()).await;
        let reply = scene.replies.next().await;
        let items: Vec<Value> = serde_json::from_slice(&reply.data).unwrap();
        assert_eq!(items[0]["total"], 1);
        assert_eq!(items[1]["code"], "unlucky");
        assert_eq!(items[2]["code"], "invalid");
        assert_eq!(items[3]["total"], 3);
        assert_eq!(header(&reply, "status"), Some(AMQPValue::LongInt(200)));
    }
    assert_eq!(scene.toys.total(), (3, 2));
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_with_a_fault_takes_no_effect_at_all_and_is_set_aside() {
    let mut scene = Scene::start().await;
    let body = format!("[{{\"n\":1}},{{\"n\":{PANIC}}}]");
    scene.vhost.publish("toys.add", body.as_bytes(), scene.asking().with_message_id("m1".into())).await;
    assert_eq!(problem(&scene.replies.next().await.data)["code"], "internal");
    assert_eq!(scene.toys.total(), (0, 0));
    scene.end(&[("toys.dead", 1)]).await;
}

fn problem(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}
