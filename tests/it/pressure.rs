//! More load than there is capacity: bounded queues, producers that slow down, nothing starved, nothing lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use rabbitry::{
    amqp::{
        client::{CallError, Client, Command},
        server::{Server, Settings, Stopped},
    },
    limits::CONFIRM_WINDOW,
    store::{self, Options},
};
use serde_json::json;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use users::Users;

use crate::support::{
    database::Database,
    eventually, soon, toys,
    toys::{Toys, Worker},
    users::COMMANDS,
    vhost::{Vhost, request},
};

const QUEUE_MAX: u32 = 100;

/// Long enough for everything that is not refused.
const PATIENT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn twice_the_load_fills_a_bounded_queue_slows_producers_down_and_loses_nothing() {
    let vhost = Vhost::with_service("toys", &["add", "total"]).await;
    let bound = json!({"pattern": "^toys\\.add$", "apply-to": "queues",
        "definition": {"max-length": QUEUE_MAX, "overflow": "reject-publish"}});
    let path = format!("/api/policies/{}/bound", vhost.name());
    request(vhost.management_url(), "PUT", &path, Some(&bound));
    let toys = Toys::new();
    // Ten commands in each twenty milliseconds: a capacity of 500 a second.
    toys.memory.pause_ms.store(20, Ordering::SeqCst);
    let settings = Settings { batch_max: 10, ..Settings::new(toys::COMMANDS) };
    let worker = Worker::start_with(&toys, vhost.url(), settings);
    vhost.wait_for_consumers("toys.add", 1).await;
    let client = Client::connect(vhost.url(), "toys", "pressure").await.unwrap();

    let deepest = Arc::new(AtomicU32::new(0));
    let mut calls = FuturesUnordered::new();
    let mut ticks = interval(Duration::from_millis(1));
    for n in 0..2000_u32 {
        ticks.tick().await;
        if n % 50 == 0 {
            deepest.fetch_max(vhost.ready("toys.add").await, Ordering::SeqCst);
        }
        let caller = client.clone();
        calls.push(tokio::spawn(async move {
            let command = Command::new("add", r#"{"n":1}"#);
            let first = caller.call(&command, Duration::from_secs(2)).await;
            let refused = matches!(first, Err(CallError::Refused(_)));
            // Who was told that the outcome is not known, or to try again, does so with the same id.
            let last = match first {
                Ok(answer) if answer.status == 200 => Ok(answer),
                // Refused, outcome unknown, or taken too late for the deadline.
                _ => caller.call(&command, PATIENT).await,
            };
            (refused, last)
        }));
        // What was read under load goes on while the flood does.
        if n % 200 == 0 {
            let reads = Command::new("total", "{}");
            soon("a read is not starved", client.call(&reads, PATIENT)).await.unwrap();
        }
    }
    let mut refused = 0;
    while let Some(call) = calls.next().await {
        let (was_refused, last) = call.unwrap();
        refused += u32::from(was_refused);
        assert_eq!(last.unwrap().status, 200);
    }
    assert_eq!(toys.total(), (2000, 2000));
    assert!(refused > 0, "the load was more than the queue takes");
    // The bound is soft: what a publisher has on its way when the queue is full is still taken.
    let on_its_way = u32::try_from(CONFIRM_WINDOW).unwrap();
    let deepest = deepest.load(Ordering::SeqCst);
    assert!((QUEUE_MAX / 2..=QUEUE_MAX + on_its_way).contains(&deepest), "the deepest queue held {deepest}");

    let again = client.call(&Command::new("add", r#"{"n":1}"#), PATIENT).await.unwrap();
    assert_eq!(again.body, b"{\"total\":2001}");
    client.close().await;
    worker.stop().await;
    vhost.assert_left(&[]).await;
}

/// Sends the same kind of command all the time, many at once, until stopped; returns how many were done.
async fn flood(client: &Client, name: &str, payload: impl Fn(u32) -> String, stop: &AtomicBool) -> u32 {
    let count = AtomicU32::new(0);
    let one = || async {
        while !stop.load(Ordering::SeqCst) {
            let command = Command::new(name, payload(count.fetch_add(1, Ordering::SeqCst)));
            client.call(&command, PATIENT).await.unwrap();
        }
    };
    let all: FuturesUnordered<_> = (0..400).map(|_| one()).collect();
    all.collect::<Vec<()>>().await;
    count.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_command_starves_no_other() {
    let vhost = Vhost::with_service("users", &["create", "get", "award", "promote", "list"]).await;
    let database = Database::new();
    let store = store::open::<Users>(&database.url, Options::default()).await.unwrap();
    let stop_worker = CancellationToken::new();
    let server = Server::<Users>::new(store, vhost.url(), Settings::new(COMMANDS));
    let worker = tokio::spawn(server.run(stop_worker.clone()));
    vhost.wait_for_consumers("users.create", 1).await;
    let client = Client::connect(vhost.url(), "users", "flood").await.unwrap();
    let ann = json!({"username": "ann", "email": "ann@example.com"}).to_string();
    client.call(&Command::new("create", ann), PATIENT).await.unwrap();

    let create = |n: u32| json!({"username": format!("u{n}"), "email": "u@example.com"}).to_string();
    let get = |_: u32| json!({"username": "ann"}).to_string();
    for (flooding, payload, others) in [
        ("create", &create as &dyn Fn(u32) -> String, ["get", "promote"]),
        ("get", &get, ["promote", "list"]),
    ] {
        let stop = AtomicBool::new(false);
        let asking = async {
            for other in others {
                for _ in 0..25 {
                    let payload = if other == "list" { "{}" } else { r#"{"username":"ann"}"# };
                    let answer = client.call(&Command::new(other, payload), PATIENT).await.unwrap();
                    assert_eq!(answer.status, 200, "{other}");
                }
            }
            stop.store(true, Ordering::SeqCst);
        };
        let (flooded, ()) = tokio::join!(flood(&client, flooding, payload, &stop), asking);
        assert!(flooded > 400, "{flooding}: {flooded}");
    }
    client.close().await;
    stop_worker.cancel();
    assert_eq!(soon("the worker stops", worker).await.unwrap().unwrap(), Stopped::Finished);
    eventually("the queues are empty", async || vhost.ready("users.create").await == 0).await;
    vhost.assert_left(&[]).await;
}
