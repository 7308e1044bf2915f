//! The producer's side, with a broker that fails it: what a caller is told of a command that may have been executed.

use std::time::Duration;

use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, ExchangeDeleteOptions, QueueBindOptions},
    types::FieldTable,
};
use rabbitry::{
    amqp::client::{CallError, Client, Command},
    limits::{ARRAY_BYTES_MAX, RESEND_AFTER},
};
use serde_json::json;

use crate::{
    fault_proxy::proxy::{Class, Direction, Proxy, Rule},
    support::{
        eventually, soon,
        vhost::{Vhost, request},
    },
};

const QUEUE: &str = "toys.add";
/// Gets a copy of whatever is published, also of what the command's queue refuses.
const TRIES: &str = "tries";

/// Long enough for whatever does not have to wait.
const PATIENT: Duration = Duration::from_secs(20);

/// A service whose queue nobody consumes.
async fn service() -> Vhost {
    let vhost = Vhost::with_service("toys", &["add"]).await;
    vhost.declare_queue(TRIES, FieldTable::default()).await;
    let options = QueueBindOptions::default();
    let bind = vhost.channel.queue_bind(
        TRIES.into(),
        "toys.commands".into(),
        "add".into(),
        options,
        FieldTable::default(),
    );
    bind.await.unwrap();
    vhost
}

fn add() -> Command {
    Command::new("add", r#"{"n":1}"#)
}

async fn fill(vhost: &Vhost) {
    let bound = json!({"pattern": "^toys\\.add$", "apply-to": "queues", "definition": {"max-length": 1}});
    let path = format!("/api/policies/{}/bound", vhost.name());
    request(vhost.management_url(), "PUT", &path, Some(&bound));
    eventually("the queue is full", async || {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let publish = vhost.channel.basic_publish("".into(), QUEUE.into(), options, b"filler", properties);
        publish.await.unwrap().await.unwrap().is_nack()
    })
    .await;
}

async fn unbind(vhost: &Vhost) {
    for queue in [QUEUE, TRIES] {
        let unbind = vhost.channel.queue_unbind(
            queue.into(),
            "toys.commands".into(),
            "add".into(),
            FieldTable::default(),
        );
        unbind.await.unwrap();
    }
}

async fn delete_exchange(vhost: &Vhost) {
    let options = ExchangeDeleteOptions::default();
    vhost.channel.exchange_delete("toys.commands".into(), options).await.unwrap();
}

/// What a caller is told whose first try somebody takes without an answer, and whose second one meets a broker that was
/// meddled with.
async fn told_after_a_taken_try(meddle: impl AsyncFnOnce(&Vhost)) -> CallError {
    let vhost = service().await;
    let client = Client::connect(vhost.url(), "toys", "taken").await.unwrap();
    let caller = client.clone();
    let timeout = RESEND_AFTER + Duration::from_secs(2);
    let calling = tokio::spawn(async move { caller.call(&add(), timeout).await });
    vhost.take(QUEUE).await;
    meddle(&vhost).await;
    let told = soon("the end of the call", calling).await.unwrap().unwrap_err();
    client.close().await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_may_have_been_executed_is_never_told_to_be_refused() {
    let full = told_after_a_taken_try(async |vhost| {
        fill(vhost).await;
        let fillers = vhost.ready(QUEUE).await;
        eventually("it is sent again", async || vhost.ready(TRIES).await >= 3).await;
        assert_eq!(vhost.ready(QUEUE).await, fillers, "what is sent again is refused");
    });
    let told = tokio::join!(full, told_after_a_taken_try(unbind), told_after_a_taken_try(delete_exchange));
    for told in [told.0, told.1, told.2] {
        assert!(matches!(told, CallError::Timeout { what: "reply", .. }), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_its_way_when_the_exchange_went_away_is_not_told_to_have_gone_nowhere() {
    let vhost = service().await;
    let proxy = Proxy::before(&vhost.url_text(), 1).await;
    let url = proxy.url(&vhost.url_text()).parse().unwrap();
    let client = Client::connect(url, "toys", "on its way").await.unwrap();
    client.send(&add(), PATIENT).await.unwrap();
    proxy.set(Direction::ToClient, &Rule::Drop(Class::Confirms));
    let sender = client.clone();
    let sending = tokio::spawn(async move { sender.send(&add(), Duration::from_secs(3)).await });
    eventually("the broker has it", async || vhost.ready(QUEUE).await == 2).await;
    delete_exchange(&vhost).await;
    let sent_after = client.send(&add(), Duration::from_secs(3)).await;
    for told in [sending.await.unwrap(), sent_after] {
        assert!(matches!(told, Err(CallError::Timeout { what: "confirm", .. })), "{told:?}");
    }
    let nowhere = soon("an error before the time-out", client.send(&add(), Duration::from_secs(600))).await;
    assert!(matches!(nowhere, Err(CallError::Unroutable(_))), "{nowhere:?}");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_is_soon_asked_for_again_however_often_the_queue_was_full_before() {
    let vhost = service().await;
    fill(&vhost).await;
    let client = Client::connect(vhost.url(), "toys", "refused").await.unwrap();
    let caller = client.clone();
    let calling = tokio::spawn(async move { caller.call(&add(), Duration::from_secs(600)).await });
    eventually("it was refused several times", async || vhost.ready(TRIES).await >= 6).await;
    // There is room once the queue is empty; then it is taken, twice, by somebody who never answers.
    let mut taken = 0;
    while taken < 2 {
        taken += usize::from(vhost.take(QUEUE).await.delivery.data == add().body);
    }
    calling.abort();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_no_worker_takes_is_not_sent_and_spoils_nothing() {
    let vhost = service().await;
    let client = Client::connect(vhost.url(), "toys", "large").await.unwrap();
    let of_length = |length| Command::new("add", " ".repeat(length));
    client.send(&of_length(ARRAY_BYTES_MAX), PATIENT).await.unwrap();
    let refused = client.send(&of_length(ARRAY_BYTES_MAX + 1), PATIENT).await.unwrap_err();
    assert!(matches!(refused, CallError::TooLarge(_)), "{refused}");
    assert!(refused.to_string().contains("more than the 1048576 bytes"), "{refused}");
    client.send(&add(), PATIENT).await.unwrap();
    assert_eq!(vhost.ready(TRIES).await, 2);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_closed_with_the_last_client() {
    let vhost = service().await;
    let client = Client::connect(vhost.url(), "toys", "dropped").await.unwrap();
    let clone = client.clone();
    let is_open = || {
        let connections = vhost.connections();
        connections.iter().any(|connection| connection["client_properties"]["connection_name"] == "dropped")
    };
    drop(client);
    clone.send(&add(), PATIENT).await.unwrap();
    // The management API learns of a connection some moments after it was opened.
    eventually("the connection is told of", async || is_open()).await;
    drop(clone);
    eventually("it is closed", async || !is_open()).await;
}
