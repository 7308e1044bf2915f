//! Connections and replies that are lost while the CLI waits: it sends again with the same id.

use lapin::{message::Delivery, types::AMQPValue};

use crate::support::{
    eventually,
    process::{Process, WorkerProcess, cli},
    users::{Stage, is_replayed, points, user},
    vhost::header,
};

async fn stage_with_ann() -> Stage {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.rabbitry(&["users", "create", "ann", "--email", "ann@example.com"]).await.with_code(0);
    worker.stop().await;
    stage
}

fn award(stage: &Stage) -> Process {
    let args = ["users", "award", "ann", "5", "--timeout", "60", "--message-id", "pay-day", "-v"];
    Process::start(cli(&stage.vhost, &stage.place, &args))
}

async fn taken(stage: &Stage) -> Delivery {
    stage.vhost.take("users.award").await.delivery
}

fn same_deadline(one: &Delivery, other: &Delivery) {
    let deadline = header(one, "deadline");
    assert!(matches!(deadline, Some(AMQPValue::LongLongInt(_))), "{deadline:?}");
    assert_eq!(header(other, "deadline"), deadline, "a second try gets no longer than the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_opened_again_and_the_command_is_done_once() {
    let stage = stage_with_ann().await;
    let waiting = award(&stage);
    eventually("it has sent its command", async || stage.vhost.ready("users.award").await == 1).await;
    assert_eq!(stage.vhost.close_connections("rabbitry ").await, 1);
    eventually("it has sent it again", async || stage.vhost.ready("users.award").await >= 2).await;
    let worker = stage.worker().await;
    let said = waiting.end().await.with_code(0);
    assert_eq!(said.json(), user("ann", 5, "Bronze"));
    assert_eq!(points(stage.place.store(), "ann"), 5);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_vanished_with_its_worker_is_sent_again() {
    let stage = stage_with_ann().await;
    let waiting = award(&stage);
    // Taken and acknowledged by somebody who never answers.
    let first = taken(&stage).await;
    let second = taken(&stage).await;
    for message in [&first, &second] {
        assert_eq!(message.properties.message_id().as_ref().unwrap().as_str(), "pay-day");
    }
    same_deadline(&first, &second);
    let worker = stage.worker().await;
    let said = waiting.end().await.with_code(0);
    assert_eq!(said.json(), user("ann", 5, "Bronze"));
    assert!(!said.err.contains("given before"), "it was executed for the first time: {}", said.err);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_was_lost_is_fetched_by_sending_again() {
    let mut stage = stage_with_ann().await;
    let waiting = award(&stage);
    let first = taken(&stage).await;
    let worker = stage.worker().await;
    // The command is executed, and its reply goes elsewhere.
    let properties = first.properties.clone().with_reply_to("reply.test".into());
    stage.vhost.publish("users.award", &first.data, properties).await;
    assert!(!is_replayed(&stage.replies.next().await));
    let said = waiting.end().await.with_code(0);
    assert_eq!(said.json(), user("ann", 5, "Bronze"));
    assert!(said.err.contains("given before"), "{}", said.err);
    assert_eq!(points(stage.place.store(), "ann"), 5);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_with_the_command_in_hand_costs_nothing_but_time() {
    let stage = stage_with_ann().await;
    let worker = stage.worker().await;
    let foreign = crate::support::users::ForeignWriter::begin(stage.place.store());
    let waiting = award(&stage);
    worker.wait_for_log("keeping a batch").await;
    worker.kill();
    foreign.end();
    let worker = WorkerProcess::consuming(&stage.vhost, &stage.place).await;
    let said = waiting.end().await.with_code(0);
    assert_eq!(said.json(), user("ann", 5, "Bronze"));
    assert_eq!(points(stage.place.store(), "ann"), 5);
    stage.end(worker, &[]).await;
}
