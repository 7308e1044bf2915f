//! Stores, connections and queues that go away, and workers that stop.

use std::sync::atomic::Ordering;

use lapin::{
    BasicProperties,
    options::{BasicCancelOptions, BasicConsumeOptions, QueueDeclareOptions},
    types::FieldTable,
};
use rabbitry::{
    amqp::server::{Settings, StartError, Stopped},
    limits::QUARANTINE_SUCCESSES,
};

use super::Scene;
use crate::support::{
    eventually, soon,
    toys::{COMMANDS, Toys, Worker, impatient},
    vhost::{Replies, Vhost},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_kept_while_the_store_is_away() {
    let mut scene = Scene::start().await;
    scene.toys.memory.there.store(false, Ordering::SeqCst);
    scene.add(1, scene.asking()).await;
    eventually("the batch is tried again", async || scene.toys.memory.begun.load(Ordering::SeqCst) >= 3)
        .await;
    scene.toys.memory.there.store(true, Ordering::SeqCst);
    assert_eq!(scene.replies.next().await.data, b"{\"total\":1}");
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_consumed_while_the_store_is_away_for_long() {
    let vhost = Vhost::with_service("toys", &["add", "total"]).await;
    let toys = Toys::new();
    let worker = Worker::start_with(&toys, vhost.url(), impatient());
    vhost.wait_for_consumers("toys.add", 1).await;
    toys.memory.there.store(false, Ordering::SeqCst);
    vhost.publish("toys.add", b"{\"n\":1}", BasicProperties::default()).await;
    vhost.wait_for_consumers("toys.add", 0).await;
    assert_eq!(vhost.ready("toys.add").await, 1);
    toys.memory.there.store(true, Ordering::SeqCst);
    eventually("the command is done", async || toys.total() == (1, 1)).await;
    worker.stop().await;
    vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_never_answers_does_not_hold_the_messages_for_ever() {
    let vhost = Vhost::with_service("toys", &["add", "total"]).await;
    let toys = Toys::new();
    toys.close_gate();
    let worker = Worker::start_with(&toys, vhost.url(), impatient());
    vhost.publish("toys.add", b"{\"n\":1}", BasicProperties::default()).await;
    eventually("the batch is begun again after its session was given up", async || {
        toys.memory.begun.load(Ordering::SeqCst) >= 2
    })
    .await;
    toys.memory.gate.add_permits(100);
    eventually("the command is done", async || toys.total().1 >= 1).await;
    worker.stop().await;
    vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_after_the_commit_is_answered_from_the_inbox() {
    let vhost = Vhost::with_service("toys", &["add", "total"]).await;
    let toys = Toys::new();
    let mut replies = Replies::listen(&vhost, "reply.test").await;
    let first = Worker::start(&toys, vhost.url());
    toys.close_gate();
    let asking = BasicProperties::default().with_reply_to("reply.test".into()).with_message_id("m1".into());
    vhost.publish("toys.add", b"{\"n\":7}", asking).await;
    eventually("the batch has begun", async || toys.memory.begun.load(Ordering::SeqCst) == 1).await;
    // What the killed worker was about to do has happened, as after a kill between commit and reply.
    let done = toys.clone();
    let second = Worker::start(&done, vhost.url());
    first.kill().await;
    toys.memory.gate.add_permits(100);
    assert_eq!(replies.next().await.data, b"{\"total\":7}");
    assert_eq!(toys.total(), (7, 1));
    second.stop().await;
    vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_is_opened_again_and_nothing_is_done_twice() {
    let mut scene = Scene::start().await;
    scene.toys.close_gate();
    for n in 0..50 {
        scene.add(1, scene.asking().with_message_id(format!("m{n}").into())).await;
    }
    scene.vhost.close_connections("(commands)").await;
    scene.toys.memory.gate.add_permits(1000);
    for _ in 0..50 {
        scene.replies.next().await;
    }
    assert_eq!(scene.toys.total(), (50, 50));
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_connection_is_closed_while_it_stops_says_that_work_was_left() {
    let mut scene = Scene::start().await;
    scene.toys.close_gate();
    scene.add(7, scene.asking().with_message_id("m".into())).await;
    eventually("the batch has begun", async || scene.toys.memory.begun.load(Ordering::SeqCst) == 1).await;
    scene.worker.stop.cancel();
    scene.vhost.close_connections("(commands)").await;
    scene.toys.memory.gate.add_permits(100);
    let stopped = soon("the worker stops", &mut scene.worker.task).await.unwrap();
    assert_eq!(stopped.unwrap(), Stopped::Unfinished, "nothing could be acknowledged");
    scene.worker = Worker::start(&scene.toys, scene.vhost.url());
    for _ in 0..2 {
        assert_eq!(scene.replies.next().await.data, b"{\"total\":7}");
    }
    assert_eq!(scene.toys.total(), (7, 1));
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_reply_connection_harms_nothing_else() {
    let mut scene = Scene::start().await;
    let consuming = |scene: &Scene| -> Vec<String> {
        let named = |connection: &serde_json::Value| {
            let name = connection["client_properties"]["connection_name"].as_str()?;
            name.contains("(commands)").then(|| connection["name"].as_str().unwrap().to_owned())
        };
        scene.vhost.connections().iter().filter_map(named).collect()
    };
    eventually("the connection is listed", async || consuming(&scene).len() == 1).await;
    let before = consuming(&scene);
    scene.vhost.close_connections("(replies)").await;
    scene.add(1, scene.asking()).await;
    assert_eq!(scene.replies.next().await.data, b"{\"total\":1}");
    assert_eq!(consuming(&scene), before);
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_deleted_is_consumed_again_when_it_is_back() {
    let mut scene = Scene::start().await;
    scene.add(1, scene.asking()).await;
    scene.replies.next().await;
    scene.vhost.delete_queue("toys.add").await;
    // The broker tells, and serves a queue that is made anew before it has told to nobody (tried: 3.10.8).
    eventually("the other queue has a connection of its own", async || connected(&scene, "(total") == 1)
        .await;
    scene.read(1).await;
    scene.vhost.declare_service("toys", &["add"], 20).await;
    scene.add(1, scene.asking()).await;
    assert_eq!(scene.replies.next().await.data, b"{\"total\":2}");
    scene.end(&[]).await;
}

/// How many connections have this in their names.
fn connected(scene: &Scene, named: &str) -> usize {
    scene.vhost.connections().iter().filter(|connection| connection.to_string().contains(named)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_cannot_be_consumed_does_not_keep_the_others() {
    let vhost = Vhost::with_service("toys", &["add"]).await;
    let replies = Replies::listen(&vhost, "reply.test").await;
    // A quorum queue would not mind a consumer that wants it for itself.
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    vhost.channel.queue_declare("toys.total".into(), durable, FieldTable::default()).await.unwrap();
    let alone = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let consume =
        vhost.channel.basic_consume("toys.total".into(), "alone".into(), alone, FieldTable::default());
    let consumer = consume.await.unwrap();
    let toys = Toys::new();
    let worker = Worker::start(&toys, vhost.url());
    let mut scene = Scene { vhost, toys, worker, replies };
    // More than it takes until a queue goes at full pace again, which this one can and the other one cannot.
    let adds = 3 * i64::from(QUARANTINE_SUCCESSES);
    for n in 1..=adds {
        scene.add(1, scene.asking()).await;
        assert_eq!(scene.replies.next().await.data, format!("{{\"total\":{n}}}").as_bytes());
    }
    scene.vhost.channel.basic_cancel("alone".into(), BasicCancelOptions::default()).await.unwrap();
    drop(consumer);
    scene.read(adds).await;
    eventually("one connection serves all queues again", async || {
        ["(commands)", "(add", "(total"].map(|named| connected(&scene, named)) == [1, 0, 0]
    })
    .await;
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_was_delivered_and_leaves_the_rest() {
    let mut scene = Scene::start().await;
    // The first success lets the worker prefetch.
    scene.add(1, scene.asking()).await;
    scene.replies.next().await;
    scene.toys.close_gate();
    for n in 0..2000 {
        scene.add(1, scene.asking().with_message_id(format!("m{n}").into())).await;
    }
    scene.worker.stop.cancel();
    scene.toys.memory.gate.add_permits(1000);
    scene.worker.stop().await;
    let done = scene.toys.total().1;
    assert!(done < 2001, "more was published than a worker prefetches");
    // What was on its way to the cancelled consumer comes back some moments later.
    eventually("everything is done or left", async || {
        done + usize::try_from(scene.vhost.ready("toys.add").await).unwrap() == 2001
    })
    .await;
    for _ in 0..done - 1 {
        scene.replies.next().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_a_queue() {
    let vhost = Vhost::with_service("toys", &["add", "total"]).await;
    let toys = Toys::new();
    let workers = [Worker::start(&toys, vhost.url()), Worker::start(&toys, vhost.url())];
    vhost.wait_for_consumers("toys.add", 2).await;
    toys.close_gate();
    for _ in 0..100 {
        vhost.publish("toys.add", b"{\"n\":1}", BasicProperties::default()).await;
    }
    eventually("both have begun a batch", async || toys.memory.begun.load(Ordering::SeqCst) >= 2).await;
    toys.memory.gate.add_permits(1000);
    eventually("all is done", async || toys.total() == (100, 100)).await;
    for worker in workers {
        worker.stop().await;
    }
    vhost.assert_left(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_that_arrive_during_a_commit_become_one_batch() {
    let mut scene = Scene::start().await;
    scene.add(1, scene.asking()).await;
    scene.replies.next().await;
    scene.toys.close_gate();
    for _ in 0..200 {
        scene.add(1, scene.asking()).await;
    }
    scene.toys.memory.gate.add_permits(1000);
    for _ in 0..200 {
        scene.replies.next().await;
    }
    assert!(scene.toys.memory.longest.load(Ordering::SeqCst) > 50);
    scene.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_at_the_start_is_told_with_the_command_that_makes_it() {
    let vhost = Vhost::with_service("toys", &["add"]).await;
    let error = Worker::start(&Toys::new(), vhost.url()).task.await.unwrap().unwrap_err();
    assert!(matches!(&error, StartError::Missing { what, .. } if what.contains("toys.total")), "{error}");
    assert!(error.to_string().contains("rabbitry topology apply"), "{error}");
    // A worker that does not serve the command does not need its queue.
    let settings = Settings { commands: COMMANDS[..1].to_vec(), ..Settings::new(COMMANDS) };
    let worker = Worker::start_with(&Toys::new(), vhost.url(), settings);
    vhost.wait_for_consumers("toys.add", 1).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_ends_the_start() {
    let vhost = Vhost::with_service("toys", &["add", "total"]).await;
    let mut url = url::Url::parse(&vhost.url_text()).unwrap();
    url.set_password(Some("wrong-secret")).unwrap();
    let error = Worker::start(&Toys::new(), url.as_str().parse().unwrap()).task.await.unwrap().unwrap_err();
    assert!(matches!(error, StartError::NotPermitted(_)), "{error}");
    assert!(!error.to_string().contains("wrong-secret"), "{error}");
}
