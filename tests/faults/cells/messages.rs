//! Hostile messages in the middle of the load.

use std::time::Duration;

use futures::FutureExt;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldArray, FieldTable},
};

use serde_json::json;
use tokio::{
    task::block_in_place,
    time::{Instant, sleep, timeout},
};

use super::Cell;
use crate::{stage::Stage, support::vhost::request};

const SET_ASIDE_MAX: Duration = Duration::from_secs(60);

pub fn cells() -> Vec<Cell> {
    vec![
        cell("hostile messages", |stage| hostile(stage).boxed_local()).quick(),
        cell("dead-letter queue full", |stage| dead_letters_full(stage).boxed_local()),
    ]
}

const fn cell(name: &'static str, fault: super::Fault) -> Cell {
    Cell::new("message", name, fault)
}

async fn hostile(stage: &mut Stage) {
    let mut sent = 0;
    let publish = async |stage: &mut Stage| {
        for command in ["create", "get", "award", "promote", "list"] {
            let (body, properties) = message(stage);
            stage.vhost.publish(&format!("users.{command}"), &body, properties).await;
            sent += 1;
        }
    };
    stage.until_over(Duration::from_millis(50), publish).await;
    all_set_aside(stage, sent).await;
}

/// The dead-letter queue takes nothing for a while. What cannot be set aside must not be acknowledged meanwhile: it is
/// rejected, and the broker keeps it until it can move it, which it tries every three minutes. The queue is one that no
/// client uses, so that what is in it can be counted.
async fn dead_letters_full(stage: &mut Stage) {
    let full = json!({"max-length": 3, "overflow": "reject-publish"});
    stage.set_policy("full", "^users\\.dead$", Some(full));
    let mut sent = 0_u32;
    let publish = async |stage: &mut Stage| {
        stage.vhost.publish("users.list", b"{\"limit\":-1}", BasicProperties::default()).await;
        sent += 1;
    };
    stage.until_over(Duration::from_millis(100), publish).await;
    stage.set_policy("full", "^users\\.dead$", None);
    let until = Instant::now() + SET_ASIDE_MAX;
    loop {
        let (kept, dead) = (messages(stage, "users.list"), stage.vhost.ready("users.dead").await);
        if kept + u64::from(dead) == u64::from(sent) {
            return;
        }
        if Instant::now() > until {
            let told = format!(
                "of {sent} messages that nobody can answer {dead} are set aside, and {kept} are kept"
            );
            stage.wrong(told);
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// All messages of a queue, also those that wait to be moved, as the broker's statistics count them every few seconds.
fn messages(stage: &Stage, queue: &str) -> u64 {
    let path = format!("/api/queues/{}?disable_stats=true&enable_queue_totals=true", stage.vhost.name());
    let queues = block_in_place(|| request(stage.vhost.management_url(), "GET", &path, None));
    let found = queues.as_array().into_iter().flatten().find(|found| found["name"] == queue);
    found.and_then(|found| found["messages"].as_u64()).expect("the broker counts the queue's messages")
}

async fn all_set_aside(stage: &mut Stage, sent: u32) {
    let set_aside = async {
        while stage.vhost.ready("users.dead").await < sent {
            sleep(Duration::from_millis(50)).await;
        }
    };
    if timeout(SET_ASIDE_MAX, set_aside).await.is_err() {
        let dead = stage.vhost.ready("users.dead").await;
        stage.wrong(format!("{sent} messages that nobody can answer were sent, and {dead} are set aside"));
    }
}

/// A message that is no command, and has no reply address: it has to be set aside.
fn message(stage: &mut Stage) -> (Vec<u8>, BasicProperties) {
    let rng = &mut stage.rng;
    let properties = BasicProperties::default();
    match rng.u8(..9) {
        0 => (Vec::new(), properties),
        1 => ((0..rng.usize(1..5000)).map(|_| rng.u8(..)).chain([0]).collect(), properties),
        2 => (b"[".repeat(rng.usize(1..20_000)), properties),
        3 => (br#"{"username":"u1","points":1.5,"email":"a@b.c"}"#.to_vec(), properties),
        4 => (vec![b' '; rng.usize(65_537..300_000)], properties),
        5 => (br#"{"username":"u\u0000\ud800"}"#.to_vec(), properties.with_message_id("a\0b".into())),
        6 => (b"[{},{},[[]]]".to_vec(), properties.with_priority(255)),
        7 => (b"\xef\xbb\xbf{}".to_vec(), properties.with_headers(table(rng.usize(1..20)))),
        _ => {
            let mut headers = FieldTable::default();
            headers.insert("deadline".into(), AMQPValue::LongString("soon".into()));
            headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(i64::MAX));
            (br#"{"username":"u1"}"#.to_vec(), properties.with_headers(headers))
        }
    }
}

/// A table with values of many kinds, nested.
fn table(depth: usize) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("void".into(), AMQPValue::Void);
    table.insert("bytes".into(), AMQPValue::ByteArray(vec![0xff; 100].into()));
    table.insert("float".into(), AMQPValue::Double(-0.5));
    table.insert("list".into(), AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Boolean(true)])));
    if depth > 0 {
        table.insert("inner".into(), AMQPValue::FieldTable(self::table(depth - 1)));
    }
    table
}
