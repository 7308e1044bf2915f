//! Messages that kill the session that reads them.

use futures::StreamExt;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

use super::Scene;
use crate::support::{
    eventually,
    frames::{UNREADABLE, publish_with_properties},
    soon,
    toys::{Toys, Worker},
    vhost::{Vhost, header},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_read_is_set_aside_alone() {
    let vhost = Vhost::with_service("toys", &["add", "total"]).await;
    let toys = Toys::new();
    let workers = [Worker::start(&toys, vhost.url()), Worker::start(&toys, vhost.url())];
    vhost.wait_for_consumers("toys.add", 2).await;
    for n in 0..1000 {
        if n == 500 {
            publish_with_properties(&vhost, "toys.add", UNREADABLE, b"{\"n\":1000000}");
        }
        let properties = BasicProperties::default().with_message_id(format!("m{n}").into());
        vhost.publish("toys.add", b"{\"n\":1}", properties).await;
    }
    eventually("all good messages are done", async || toys.total() == (1000, 1000)).await;
    eventually("the bad one is set aside", async || vhost.ready("toys.dead").await == 1).await;
    // Afterwards the workers go on at full pace.
    vhost.publish("toys.add", b"{\"n\":1}", BasicProperties::default()).await;
    eventually("they work", async || toys.total() == (1001, 1001)).await;
    for worker in workers {
        worker.stop().await;
    }
    vhost.assert_left(&[("toys.dead", 1)]).await;
}

/// The broker counts deliveries in a header of its own, so a message that fits into a frame need not do so when it is
/// delivered again. lapin then closes the connection, at whatever the worker is doing: mostly while it opens a session.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_outgrows_a_frame_is_dead_lettered_and_its_neighbours_live() {
    let Scene { vhost, toys, worker, mut replies } = Scene::start().await;
    worker.stop().await;
    let mut headers = FieldTable::default();
    headers.insert("h".into(), AMQPValue::LongString(vec![b'x'; 131_039].into()));
    vhost.publish("toys.add", b"{\"n\":1000000}", BasicProperties::default().with_headers(headers)).await;
    deliver_without_acknowledging(&vhost, 1).await;
    let asking = BasicProperties::default().with_reply_to("reply.test".into());
    for _ in 0..5 {
        vhost.publish("toys.add", b"{\"n\":1}", asking.clone()).await;
    }
    let worker = Worker::start(&toys, vhost.url());
    vhost.publish("toys.total", b"{}", asking.clone()).await;
    for _ in 0..6 {
        replies.next().await;
    }
    eventually("the large one is dead-lettered", async || vhost.ready("toys.dead").await == 1).await;
    assert_eq!(toys.total(), (5, 5));
    worker.stop().await;
    vhost.assert_left(&[("toys.dead", 1)]).await;
}

/// Takes messages out of `toys.add` and gives them back by closing the connection.
async fn deliver_without_acknowledging(vhost: &Vhost, messages: u32) {
    let connection =
        lapin::Connection::connect(&vhost.url_text(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    // Not by `basic.get`, with which the broker counts a first delivery too.
    let consume =
        channel.basic_consume("toys.add".into(), "".into(), Default::default(), FieldTable::default());
    let mut deliveries = consume.await.unwrap();
    for _ in 0..messages {
        soon("a delivery", deliveries.next()).await.unwrap().unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
    eventually("they are back", async || vhost.ready("toys.add").await == messages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_delivered_before_is_handled_alone() {
    let scene = Scene::start().await;
    let Scene { vhost, toys, worker, mut replies } = scene;
    worker.stop().await;
    let asking = BasicProperties::default().with_reply_to("reply.test".into());
    for n in 0..5 {
        vhost.publish("toys.add", b"{\"n\":1}", asking.clone().with_message_id(format!("m{n}").into())).await;
    }
    // Five messages are delivered and returned until they are suspected.
    for _ in 0..2 {
        deliver_without_acknowledging(&vhost, 5).await;
    }
    let worker = Worker::start(&toys, vhost.url());
    for _ in 0..5 {
        let reply = replies.next().await;
        assert_eq!(header(&reply, "replayed"), None);
    }
    assert_eq!(toys.total(), (5, 5));
    assert_eq!(toys.memory.longest.load(std::sync::atomic::Ordering::SeqCst), 1);
    worker.stop().await;
    vhost.assert_left(&[]).await;
}
