//! The management UI's way: its publish forms send what is tested here to the management API.

use serde_json::{Value, json};

use crate::support::{
    eventually,
    users::{Stage, new_user, user},
    vhost::{Vhost, request},
};

/// What the form "Publish message" of the page of an exchange (or, with the default exchange, of a queue) sends.
fn publish(vhost: &Vhost, exchange: &str, key: &str, properties: &Value, payload: &str) {
    let path = format!("/api/exchanges/{}/{exchange}/publish", vhost.name());
    // The form sends the virtual host, the name and the delivery mode along, and the headers apart.
    let form = json!({
        "vhost": vhost.name(), "name": exchange, "properties": properties, "routing_key": key, "delivery_mode": "1",
        "payload": payload, "headers": {}, "props": {}, "payload_encoding": "string",
    });
    let routed = request(vhost.management_url(), "POST", &path, Some(&form));
    assert_eq!(routed, json!({"routed": true}), "{exchange} {key}");
}

/// What the form "Get messages" of a queue's page sends.
fn get(vhost: &Vhost, queue: &str) -> Vec<Value> {
    let path = format!("/api/queues/{}/{queue}/get", vhost.name());
    let form = json!({"count": 10, "ackmode": "ack_requeue_false", "encoding": "auto", "truncate": 50_000});
    request(vhost.management_url(), "POST", &path, Some(&form)).as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_nothing_but_a_body_is_executed() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    let plain = new_user("ann", 120).to_string();
    publish(&stage.vhost, "amq.default", "users.create", &json!({}), &plain);
    let pretty = format!("{:#}\n", new_user("bob", 0)).replace('\n', "\r\n");
    publish(&stage.vhost, "amq.default", "users.create", &json!({}), &pretty);
    publish(&stage.vhost, "users.commands", "create", &json!({}), &new_user("cleo", 0).to_string());
    for name in ["ann", "bob", "cleo"] {
        let mut asked = 0;
        while stage.ask("get", json!({"username": name})).await.0 != 200 {
            asked += 1;
            assert!(asked < 1000, "{name} is not created");
        }
    }
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reply_is_read_in_the_console_queue() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let asking = |id: &str| json!({"reply_to": "reply.console", "correlation_id": id, "delivery_mode": 2});
    let commands = [
        ("create", new_user("ann", 120).to_string(), 201, user("ann", 120, "Bronze")),
        ("promote", "{\n  \"username\": \"ann\"\n}\n".to_owned(), 200, user("ann", 120, "Gold")),
    ];
    for (command, payload, status, expected) in commands {
        publish(&stage.vhost, "amq.default", &format!("users.{command}"), &asking(command), &payload);
        eventually("the reply is there", async || stage.vhost.ready("reply.console").await == 1).await;
        let messages = get(&stage.vhost, "reply.console");
        let [reply] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!(reply["payload_encoding"], "string", "a person can read it");
        assert_eq!(serde_json::from_str::<Value>(reply["payload"].as_str().unwrap()).unwrap(), expected);
        let properties = &reply["properties"];
        assert_eq!(properties["correlation_id"], command);
        assert_eq!(properties["headers"]["status"], status);
        assert_eq!(properties["content_type"], "application/json");
        assert_eq!(properties["type"], format!("users.{command}.reply"));
    }
    publish(&stage.vhost, "amq.default", "users.create", &asking("again"), &new_user("ann", 1).to_string());
    eventually("the refusal is there", async || stage.vhost.ready("reply.console").await == 1).await;
    let refusal = get(&stage.vhost, "reply.console").remove(0);
    assert_eq!(refusal["properties"]["content_type"], "application/problem+json");
    assert!(refusal["payload"].as_str().unwrap().contains("\"code\":\"user_exists\""), "{refusal}");
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_a_person_types_are_understood() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    // The form's headers are text unless a person chooses "Number".
    for (deadline, status) in
        [(json!("4102444800000"), 201), (json!(4_102_444_800_000_i64), 409), (json!("1"), 504)]
    {
        let properties =
            json!({"reply_to": "reply.console", "correlation_id": "c", "headers": {"deadline": deadline}});
        publish(&stage.vhost, "amq.default", "users.create", &properties, &new_user("ann", 0).to_string());
        eventually("the reply is there", async || stage.vhost.ready("reply.console").await == 1).await;
        assert_eq!(get(&stage.vhost, "reply.console")[0]["properties"]["headers"]["status"], status);
    }
    stage.end(worker, &[]).await;
}
