//! What the worker is compared with: two programs that answer every message with its own body. No JSON, no store, no
//! checks.
//!
//! * The echo does everything that the worker does with messages: same client library, same connections, prefetch,
//!   chunks and acknowledgements. What is left are the commands.
//! * The loop is what one writes by hand, message by message.

use anyhow::{Context, Result};
use futures::{StreamExt, future::join_all};
use lapin::{
    BasicProperties, Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions},
    types::FieldTable,
};
use rabbitry::{
    amqp::connection::{BrokerUrl, connect},
    limits::BATCH_MAX,
    shutdown,
};

/// Answers chunk by chunk, until it is told to stop.
pub(crate) async fn run(url: &BrokerUrl, queue: &str) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let consuming = connect(url, "bench echo").await?;
    let replying = connect(url, "bench echo (replies)").await?;
    let channel = consuming.create_channel().await?;
    let replies = replying.create_channel().await?;
    let mut chunks = consume(&channel, queue).await?.ready_chunks(usize::from(BATCH_MAX));
    loop {
        let chunk = tokio::select! {
            () = stop.cancelled() => break,
            chunk = chunks.next() => chunk.context("the consumer was cancelled")?,
        };
        answer(&channel, &replies, chunk.into_iter().collect::<lapin::Result<_>>()?).await?;
    }
    close(&consuming).await?;
    close(&replying).await
}

/// Answers one by one, until it is told to stop.
pub(crate) async fn run_by_hand(url: &BrokerUrl, queue: &str) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let connection = connect(url, "bench loop").await?;
    let channel = connection.create_channel().await?;
    let mut consumer = consume(&channel, queue).await?;
    loop {
        let delivery = tokio::select! {
            () = stop.cancelled() => break,
            delivery = consumer.next() => delivery.context("the consumer was cancelled")??,
        };
        reply(&channel, &delivery).await?;
        delivery.ack(BasicAckOptions::default()).await?;
    }
    close(&connection).await
}

async fn consume(channel: &Channel, queue: &str) -> Result<Consumer> {
    channel.basic_qos(BATCH_MAX * 2, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    Ok(channel.basic_consume(queue.into(), "echo".into(), options, FieldTable::default()).await?)
}

async fn answer(channel: &Channel, replies: &Channel, chunk: Vec<Delivery>) -> Result<()> {
    for published in join_all(chunk.iter().map(|delivery| reply(replies, delivery))).await {
        published?;
    }
    let last = chunk.last().context("a chunk holds a message")?.delivery_tag;
    channel.basic_ack(last, BasicAckOptions { multiple: true }).await?;
    Ok(())
}

async fn reply(channel: &Channel, delivery: &Delivery) -> lapin::Result<()> {
    let asked = &delivery.properties;
    let reply_to = asked.reply_to().clone().unwrap_or_default();
    let id = asked.correlation_id().clone().unwrap_or_default();
    let properties = BasicProperties::default().with_correlation_id(id);
    let options = BasicPublishOptions::default();
    channel.basic_publish("".into(), reply_to, options, &delivery.data, properties).await.map(drop)
}

async fn close(connection: &Connection) -> Result<()> {
    Ok(connection.close(200, "done".into()).await?)
}
