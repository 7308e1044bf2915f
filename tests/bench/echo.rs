//! What the worker is compared with: everything that it does with messages, and nothing of what it does for commands.
//!
//! Same client library, same connections, prefetch, chunks and acknowledgements; no JSON, no store, no checks.

use anyhow::{Context, Result};
use futures::{StreamExt, future::join_all};
use lapin::{
    BasicProperties, Channel, Connection,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions},
    types::FieldTable,
};
use rabbitry::{
    amqp::connection::{BrokerUrl, connect},
    limits::BATCH_MAX,
    shutdown,
};

/// Answers every message with its own body, until it is told to stop.
pub(crate) async fn run(url: &BrokerUrl, queue: &str) -> Result<()> {
    let stop = shutdown::on_signal()?;
    let consuming = connect(url, "bench echo").await?;
    let replying = connect(url, "bench echo (replies)").await?;
    let channel = consuming.create_channel().await?;
    let replies = replying.create_channel().await?;
    channel.basic_qos(BATCH_MAX * 2, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "echo".into(), options, FieldTable::default()).await?;
    let mut chunks = consumer.ready_chunks(usize::from(BATCH_MAX));
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

async fn answer(channel: &Channel, replies: &Channel, chunk: Vec<Delivery>) -> Result<()> {
    let all = chunk.iter().map(|delivery| {
        let asked = &delivery.properties;
        let reply_to = asked.reply_to().clone().unwrap_or_default();
        let id = asked.correlation_id().clone().unwrap_or_default();
        let properties = BasicProperties::default().with_correlation_id(id);
        replies.basic_publish("".into(), reply_to, BasicPublishOptions::default(), &delivery.data, properties)
    });
    for published in join_all(all).await {
        published?;
    }
    let last = chunk.last().context("a chunk holds a message")?.delivery_tag;
    channel.basic_ack(last, BasicAckOptions { multiple: true }).await?;
    Ok(())
}

async fn close(connection: &Connection) -> Result<()> {
    Ok(connection.close(200, "done".into()).await?)
}
