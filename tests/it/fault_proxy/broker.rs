//! Faults between lapin and the real broker: what each of them looks like to a client.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, PublisherConfirm,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use tokio::time::Instant;
use wildmatch::WildMatch;

use super::{
    peers::pattern,
    proxy::{Class, Counters, Direction, Proxy, Rule},
};
use crate::support::{eventually, soon, vhost::Vhost};

/// A virtual host with the queues `a` and `b`, and a client that reaches it through the proxy.
struct Scene {
    vhost: Vhost,
    proxy: Proxy,
}

struct Client {
    connection: Connection,
    channel: Channel,
}

impl Scene {
    async fn start() -> Self {
        let vhost = Vhost::create().await;
        for queue in ["a", "b"] {
            vhost.declare_queue(queue, FieldTable::default()).await;
        }
        let proxy = Proxy::before(&vhost.url_text(), 1).await;
        Self { vhost, proxy }
    }

    async fn client(&self) -> Client {
        self.client_with("").await
    }

    async fn client_with(&self, query: &str) -> Client {
        let url = self.proxy.url(&self.vhost.url_text()) + query;
        let connect = Connection::connect(&url, ConnectionProperties::default());
        let connection = soon("a connection", connect).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Client { connection, channel }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Counters) -> bool) {
        eventually(what, async || holds(&self.proxy.counters())).await;
    }

    /// Publishes directly, past the proxy.
    async fn put(&self, queue: &str, body: &[u8]) {
        self.vhost.publish(queue, body, BasicProperties::default()).await;
    }
}

impl Client {
    async fn publish(&self, queue: &str, body: &[u8]) -> PublisherConfirm {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        self.channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap()
    }

    async fn consume(&self, queue: &str, no_ack: bool) -> Consumer {
        let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
        self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
    }

    /// Asks the broker something on the same connection: what it sent before has come when it answers.
    async fn round_trip(&self) {
        let ask = self.channel.confirm_select(ConfirmSelectOptions::default());
        soon("an answer of the broker", ask).await.unwrap();
    }

    async fn until_lost(&self) {
        eventually("the connection is lost", async || !self.connection.status().connected()).await;
    }
}

async fn next(consumer: &mut Consumer) -> lapin::message::Delivery {
    soon("a delivery", consumer.next()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_connections_work() {
    let scene = Scene::start().await;
    let (by, jitter) = (Duration::from_millis(5), Duration::from_millis(10));
    for rule in [
        Rule::Pass,
        Rule::Delay { by, jitter },
        Rule::Throttle { bytes_per_second: 100_000 },
        Rule::Slices { bytes: 1 },
    ] {
        scene.proxy.set(Direction::Both, &rule);
        let before = scene.proxy.counters();
        let client = scene.client().await;
        let (body, begun) = (pattern(20_000), Instant::now());
        let confirm = soon("a confirm", client.publish("a", &body).await).await.unwrap();
        assert_eq!(confirm, Confirmation::Ack(None), "{rule:?}");
        let mut consumer = client.consume("a", false).await;
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.data, body, "{rule:?}");
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        soon("closing", client.connection.close(200, "done".into())).await.unwrap();
        let counters = scene.proxy.counters();
        let bytes = counters.bytes_to_client - before.bytes_to_client;
        match rule {
            Rule::Throttle { .. } => assert!(begun.elapsed() >= Duration::from_millis(380)),
            Rule::Slices { .. } => assert_eq!(counters.packets_to_client - before.packets_to_client, bytes),
            _ => {}
        }
        assert!(bytes >= 20_000, "{counters:?}");
    }
    assert_eq!(scene.proxy.counters().frames_dropped, 0);
    scene.vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_confirm_a_message_is_in_the_queue_and_its_publisher_waits() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    scene.proxy.set(Direction::ToClient, &Rule::Drop(Class::Confirms));
    let mut confirm = client.publish("a", b"one").await;
    scene.until("the confirm is dropped", |counters| counters.confirms_dropped == 1).await;
    client.round_trip().await;
    assert!((&mut confirm).now_or_never().is_none());
    scene.proxy.heal();
    assert!(client.publish("a", b"two").await.await.unwrap().is_ack());
    assert_eq!(scene.vhost.take("a").await.data, b"one");
    assert_eq!(scene.vhost.take("a").await.data, b"two");
    scene.vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_ack_a_message_is_delivered_again_after_the_connection() {
    let scene = Scene::start().await;
    scene.put("a", b"one").await;
    let client = scene.client().await;
    let mut consumer = client.consume("a", false).await;
    scene.proxy.set(Direction::ToServer, &Rule::Drop(Class::Acks));
    next(&mut consumer).await.ack(BasicAckOptions::default()).await.unwrap();
    scene.until("the ack is dropped", |counters| counters.acks_dropped == 1).await;
    assert_eq!(scene.vhost.ready("a").await, 0);
    scene.proxy.reset();
    client.until_lost().await;
    let again = scene.vhost.take("a").await;
    assert_eq!((&again.data[..], again.redelivered), (&b"one"[..], true));
    scene.vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_vanish_with_all_their_frames() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    let (mut a, mut b) = (client.consume("a", true).await, client.consume("b", true).await);
    scene.proxy.set(Direction::ToClient, &Rule::Drop(Class::DeliveriesTo(WildMatch::new("a*"))));
    let large = pattern(400_000);
    scene.put("a", &large).await;
    scene.put("b", &large).await;
    assert_eq!(next(&mut b).await.data, large);
    scene.until("the delivery is dropped", |counters| counters.deliveries_dropped == 1).await;
    scene.proxy.set(Direction::ToClient, &Rule::Drop(Class::Deliveries));
    scene.put("b", b"small").await;
    scene.until("the other is dropped", |counters| counters.deliveries_dropped == 2).await;
    // Method, header, and a body of several frames; method, header, body.
    scene.until("content is dropped", |counters| counters.frames_dropped >= 4 + 3).await;
    scene.proxy.heal();
    for consumer in [&mut a, &mut b] {
        scene.put(consumer.queue().as_str(), b"after").await;
        assert_eq!(next(consumer).await.data, b"after");
    }
    scene.vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_vanish_by_their_routing_key() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    let replies = Class::PublishesTo(WildMatch::new("b"));
    scene.proxy.set(Direction::ToServer, &Rule::Drop(replies));
    let lost = client.publish("b", &pattern(400_000)).await;
    client.publish("a", b"one").await;
    scene.until("the publish is dropped", |counters| counters.publishes_dropped == 1).await;
    assert_eq!(scene.vhost.take("a").await.data, b"one");
    // What the rule says of itself: the broker's first confirm is taken for that of the message it never got.
    assert!(soon("a confirm", lost).await.unwrap().is_ack());
    scene.proxy.set(Direction::ToServer, &Rule::Drop(Class::Publishes));
    client.publish("a", b"two").await;
    scene.until("the other is dropped", |counters| counters.publishes_dropped == 2).await;
    scene.vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_noticed_by_heartbeats() {
    let scene = Scene::start().await;
    // Silence in one direction is enough; it is the client that notices that of the broker.
    for direction in [Direction::Both, Direction::ToClient] {
        let client = scene.client_with("?heartbeat=1").await;
        client.round_trip().await;
        scene.proxy.set(direction, &Rule::Blackhole);
        let begun = Instant::now();
        assert!(client.connection.status().connected());
        client.until_lost().await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(1) && took <= Duration::from_secs(3), "{took:?}");
        scene.proxy.heal();
    }
    // In the other the broker notices, and tells.
    let client = scene.client_with("?heartbeat=1").await;
    scene.proxy.set(Direction::ToServer, &Rule::Blackhole);
    client.until_lost().await;
    scene.proxy.heal();
    scene.client().await.round_trip().await;
    scene.until("only the last is open", |counters| counters.open <= 1).await;
    assert_eq!(scene.proxy.counters().connections, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_cut_in_the_middle_is_not_in_the_queue() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    let body = pattern(100_000);
    scene.proxy.cut_after(Direction::ToServer, 50_000);
    let confirm = client.publish("a", &body).await;
    assert!(soon("an error", confirm).await.is_err());
    client.until_lost().await;
    assert_eq!(scene.proxy.counters().cuts, 1);
    let client = scene.client().await;
    assert!(client.publish("a", &body).await.await.unwrap().is_ack());
    assert_eq!(scene.vhost.take("a").await.data, body);
    scene.vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_and_a_refused_connection_are_errors() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    scene.proxy.close();
    client.until_lost().await;
    scene.proxy.refuse(true);
    let url = scene.proxy.url(&scene.vhost.url_text());
    let refused = Connection::connect(&url, ConnectionProperties::default());
    assert!(soon("a refusal", refused).await.is_err());
    assert!(scene.proxy.counters().refused >= 1);
    scene.proxy.heal();
    scene.client().await.round_trip().await;
}
