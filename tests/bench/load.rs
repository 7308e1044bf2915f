//! The load generator: a closed loop with a fixed number of commands in flight.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, future::try_join_all, stream::ReadyChunks};
use hdrhistogram::Histogram;
use lapin::{
    BasicProperties, Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, BasicPublishOptions},
    types::{AMQPValue, FieldTable},
};
use rabbitry::amqp::{
    client::new_id,
    connection::{BrokerUrl, connect},
};
use tokio::time::timeout;

use crate::{
    proc::{Cost, Processes},
    work::Work,
};

/// Longest wait for a reply.
const PATIENCE: Duration = Duration::from_secs(30);
const EXCHANGE: &str = "users.commands";

/// How long to load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// What is not counted.
    pub(crate) lead: Duration,
    pub(crate) length: Duration,
}

/// What was measured in one window.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) commands: u64,
    pub(crate) seconds: f64,
    /// In microseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) cost: Cost,
}

impl Window {
    pub(crate) fn per_second(&self) -> f64 {
        self.commands as f64 / self.seconds
    }

    pub(crate) fn p50(&self) -> f64 {
        self.latency.value_at_quantile(0.5) as f64
    }
}

/// Latencies from 1 µs to a minute with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are sound")
}

/// One connection, one channel, direct replies.
pub(crate) struct Generator {
    _connection: Connection,
    channel: Channel,
    replies: ReadyChunks<Consumer>,
    routing_key: String,
}

impl Generator {
    pub(crate) async fn connect(url: &BrokerUrl, routing_key: &str) -> Result<Self> {
        let connection = connect(url, "bench load").await?;
        let channel = connection.create_channel().await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let replies = channel
            .basic_consume("amq.rabbitmq.reply-to".into(), "replies".into(), options, FieldTable::default())
            .await?
            .ready_chunks(1024);
        Ok(Self { _connection: connection, channel, replies, routing_key: routing_key.to_owned() })
    }

    /// Keeps `in_flight` commands under way for a span, then waits until all are answered.
    pub(crate) async fn window(
        &mut self,
        work: &Work,
        in_flight: usize,
        span: Span,
        processes: &Processes,
    ) -> Result<Window> {
        let mut sent = vec![Instant::now(); in_flight];
        let mut latency = histogram();
        let mut begin = None;
        let mut commands = 0;
        let due = Instant::now() + span.lead;
        self.publish(work, &mut sent, 0..in_flight).await?;
        let measured = loop {
            let slots = self.answered().await?;
            let now = Instant::now();
            match begin {
                None if now >= due => begin = Some((now, processes.read()?)),
                None => {}
                Some((since, reading)) => {
                    commands += slots.len() as u64;
                    for slot in &slots {
                        latency.saturating_record(micros(now - *sent.get(*slot).context("a foreign reply")?));
                    }
                    let elapsed = now - since;
                    if elapsed >= span.length {
                        let cost = reading.until(processes.read()?, elapsed.as_secs_f64());
                        let seconds = elapsed.as_secs_f64();
                        self.drain(in_flight - slots.len()).await?;
                        break Window { commands, seconds, latency, cost };
                    }
                }
            }
            self.publish(work, &mut sent, slots).await?;
        };
        Ok(measured)
    }

    /// Sends one command and returns its reply.
    pub(crate) async fn ask(&mut self, routing_key: &str, body: &[u8]) -> Result<Delivery> {
        self.send(routing_key, 0, body).await?;
        let mut replies = self.next().await?;
        match replies.pop() {
            Some(reply) if replies.is_empty() => Ok(reply),
            _ => bail!("one command has one reply"),
        }
    }

    async fn publish(
        &self,
        work: &Work,
        sent: &mut [Instant],
        slots: impl IntoIterator<Item = usize>,
    ) -> Result<()> {
        let now = Instant::now();
        let all = slots.into_iter().map(|slot| {
            sent[slot] = now;
            let body = work.body();
            async move { self.send(&self.routing_key, slot, &body).await }
        });
        try_join_all(all.collect::<Vec<_>>()).await?;
        Ok(())
    }

    async fn send(&self, routing_key: &str, slot: usize, body: &[u8]) -> Result<()> {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id(new_id().into())
            .with_correlation_id(slot.to_string().into())
            .with_reply_to("amq.rabbitmq.reply-to".into())
            .with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        self.channel.basic_publish(EXCHANGE.into(), routing_key.into(), options, body, properties).await?;
        Ok(())
    }

    /// The slots of the replies that have come.
    async fn answered(&mut self) -> Result<Vec<usize>> {
        let replies = self.next().await?;
        replies.iter().map(slot).collect()
    }

    async fn drain(&mut self, mut open: usize) -> Result<()> {
        while open > 0 {
            open = open.checked_sub(self.next().await?.len()).context("more replies than commands")?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Vec<Delivery>> {
        let chunk = timeout(PATIENCE, self.replies.next()).await;
        let chunk = chunk.context("no reply")?.context("the channel was closed")?;
        let replies = chunk.into_iter().collect::<lapin::Result<Vec<_>>>()?;
        match replies.iter().find(|reply| is_refusal(reply)) {
            Some(refusal) => bail!("a command was refused: {}", String::from_utf8_lossy(&refusal.data)),
            None => Ok(replies),
        }
    }
}

fn slot(reply: &Delivery) -> Result<usize> {
    let id = reply.properties.correlation_id().as_ref().context("a reply without a correlation id")?;
    Ok(id.as_str().parse()?)
}

/// Refusals are cheaper than what is to be measured.
fn is_refusal(reply: &Delivery) -> bool {
    let headers = reply.properties.headers().as_ref();
    let status = headers.and_then(|headers| headers.inner().get("status"));
    matches!(status, Some(AMQPValue::LongInt(status)) if *status >= 400)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
