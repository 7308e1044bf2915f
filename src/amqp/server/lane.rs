//! The loop that turns deliveries into batches.
//!
//! A lane takes *whatever has arrived* while its last batch was committing, from its ready queues in turn, and hands
//! it over as one slice. There is no timer: an idle lane adds no latency, a busy one commits in groups.

use std::{future::pending, sync::Arc};

use futures::{
    Stream, StreamExt,
    future::join_all,
    stream::{self, BoxStream, ReadyChunks, SelectAll},
};
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Context,
    session::{End, Pace, SessionError},
    settle,
};
use crate::{
    amqp::{connection::process_name, envelope::delivery_count, queue, short},
    failpoints::mutant,
    limits::{BATCH_BYTES_MAX, CLOSE_TIMEOUT, QUARANTINE_IDLE, QUARANTINE_SUCCESSES, SUSPECT_DELIVERY_COUNT},
    service::{CommandSpec, Service},
};

/// Some of a service's queues, each on a channel of its own, handled by one loop.
pub(super) struct Lane<S> {
    context: Arc<Context<S>>,
    sources: Vec<Source>,
    incoming: ReadyChunks<SelectAll<BoxStream<'static, Incoming>>>,
    pace: Pace,
    drain: CancellationToken,
    /// Deliveries that are suspected, kept until nothing else is in hand.
    withheld: Vec<Arrived>,
    /// Successes since the last delivery that was suspected.
    successes: u32,
}

/// A queue that a lane consumes.
pub(super) struct Source {
    pub(super) command: CommandSpec,
    pub(super) queue: String,
    pub(super) channel: Channel,
    consumer: Consumer,
    /// The last delivery up to which every one has been seen and is being settled: an acknowledgement of several may
    /// cover these. What the broker delivered and nobody saw (to a consumer that was cancelled meanwhile), or what is
    /// withheld, leaves a gap that no later acknowledgement may cover.
    pub(super) contiguous: u64,
}

/// The prefetch of a live consumer cannot be changed, so it grows by making the consumer anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consumer {
    /// Holds one delivery: the first may be one that kills workers (some do when they are read, before anything can
    /// be done about it), and then takes no neighbour along.
    Probing,
    /// Cancelled; consumes at full prefetch once the old consumer has ended.
    Growing,
    /// Holds as many deliveries as the pace allows.
    Full,
    /// Cancelled for good, or ended.
    Ended,
}

/// A delivery and the source it came from.
pub(super) struct Arrived {
    pub(super) source: usize,
    pub(super) delivery: Delivery,
}

#[expect(clippy::large_enum_variant, reason = "nearly all of them are deliveries")]
enum Incoming {
    Delivery(Arrived),
    Failed(lapin::Error),
    Ended(usize),
}

impl<S: Service> Lane<S> {
    /// Opens a channel and a consumer for each command.
    pub(super) async fn open(
        connection: &Connection,
        context: Arc<Context<S>>,
        commands: &[CommandSpec],
        pace: Pace,
        drain: CancellationToken,
    ) -> Result<Self, SessionError> {
        let mut sources = Vec::new();
        let mut streams = SelectAll::new();
        // Consumers are made anew, and a selection that was empty once would count as ended.
        streams.push(stream::pending().boxed());
        for (index, &command) in commands.iter().enumerate() {
            let channel = connection.create_channel().await?;
            let queue = queue(context.service.name(), command.name);
            let source = Source { command, queue, channel, consumer: Consumer::Probing, contiguous: 0 };
            streams.push(source.consume(index, 1).await?);
            sources.push(source);
        }
        let incoming = streams.ready_chunks(usize::from(context.batch_max));
        Ok(Self { context, sources, incoming, pace, drain, withheld: Vec::new(), successes: 0 })
    }

    /// Its channels.
    pub(super) fn channels(&self) -> impl Iterator<Item = Channel> {
        self.sources.iter().map(|source| source.channel.clone())
    }

    /// Handles batches until asked to drain, or until a message is suspected, or (one by one) until all is quiet.
    pub(super) async fn run(mut self) -> Result<End, SessionError> {
        let mut ending: Option<End> = None;
        let mut idle_at = Instant::now() + QUARANTINE_IDLE;
        loop {
            if let Some(end) = ending
                && self.sources.iter().all(|source| source.consumer == Consumer::Ended)
            {
                self.handle_withheld().await?;
                self.close().await;
                return Ok(end);
            }
            let quiet = async {
                match self.pace {
                    Pace::OneByOne => sleep_until(idle_at).await,
                    Pace::Full => pending().await,
                }
            };
            let chunk = tokio::select! {
                biased;
                () = self.drain.cancelled(), if ending.is_none() => {
                    ending = Some(End::Shutdown);
                    self.cancel_consumers().await?;
                    continue;
                }
                chunk = self.incoming.next() => chunk.unwrap_or_default(),
                () = quiet, if ending.is_none() => {
                    ending = Some(End::Recovered);
                    self.cancel_consumers().await?;
                    continue;
                }
            };
            let reason = self.handle(chunk, ending.is_some()).await?;
            idle_at = Instant::now() + QUARANTINE_IDLE;
            if let Some(reason) = reason.filter(|_| ending.is_none()) {
                ending = Some(reason);
                self.cancel_consumers().await?;
            }
        }
    }

    /// Handles what has arrived; returns why the lane should end, if it should.
    async fn handle(&mut self, chunk: Vec<Incoming>, ending: bool) -> Result<Option<End>, SessionError> {
        let mut batch = Vec::with_capacity(chunk.len());
        let mut ended = Vec::new();
        let mut reason = None;
        for incoming in chunk {
            match incoming {
                Incoming::Delivery(arrived) => {
                    // The count of a first delivery is whatever the producer wrote into the header.
                    let suspect = arrived.delivery.redelivered
                        && delivery_count(&arrived.delivery.properties) >= SUSPECT_DELIVERY_COUNT;
                    if suspect && self.pace == Pace::Full && !mutant!(SuspectsNotAlone) {
                        self.withhold(arrived);
                        reason = Some(End::Suspect);
                        continue;
                    }
                    self.successes = if suspect { 0 } else { self.successes + 1 };
                    batch.push(arrived);
                }
                Incoming::Failed(error) => return Err(error.into()),
                Incoming::Ended(source) => ended.push(source),
            }
        }
        if !batch.is_empty() {
            for part in parts(&batch) {
                settle::handle(&self.context, &mut self.sources, part).await?;
            }
            if self.pace == Pace::Full && !ending && reason.is_none() {
                self.grow(&batch).await?;
            }
        }
        for source in ended {
            self.consumer_ended(source, ending || reason.is_some()).await?;
        }
        if self.pace == Pace::OneByOne && self.successes >= QUARANTINE_SUCCESSES {
            reason = Some(End::Recovered);
        }
        Ok(reason)
    }

    /// Keeps a delivery for the end of the session.
    fn withhold(&mut self, arrived: Arrived) {
        let source = &self.sources[arrived.source];
        let message_id = arrived.delivery.properties.message_id().as_ref().map(|id| id.as_str());
        warn!(
            queue = source.queue,
            message_id, "message was delivered before and not acknowledged; handling it alone"
        );
        self.withheld.push(arrived);
    }

    /// Handles what was suspected, one by one, when everything else is settled and no more is delivered.
    ///
    /// To give it back instead would count as a delivery, and as the broker puts it behind what it gets back, a message
    /// that kills workers could always be the next one: its neighbour would be given back until the broker sets it
    /// aside, without having been tried once. In random order, so that after a few deaths of workers every neighbour
    /// has been handled before the one that kills, whichever it is.
    async fn handle_withheld(&mut self) -> Result<(), SessionError> {
        let mut withheld = std::mem::take(&mut self.withheld);
        fastrand::shuffle(&mut withheld);
        for arrived in withheld {
            settle::handle(&self.context, &mut self.sources, std::slice::from_ref(&arrived)).await?;
        }
        Ok(())
    }

    /// After a first success, makes the consumers that hold one delivery anew.
    async fn grow(&mut self, batch: &[Arrived]) -> Result<(), SessionError> {
        for arrived in batch {
            let source = &mut self.sources[arrived.source];
            if source.consumer == Consumer::Probing {
                source.consumer = Consumer::Growing;
                source.cancel().await?;
            }
        }
        Ok(())
    }

    async fn consumer_ended(&mut self, index: usize, ending: bool) -> Result<(), SessionError> {
        let source = &mut self.sources[index];
        match source.consumer {
            // Only now are all deliveries of the old consumer handled, so that acknowledgements keep their order.
            Consumer::Growing if !ending => {
                let stream = source.consume(index, self.context.batch_max.saturating_mul(2)).await?;
                source.consumer = Consumer::Full;
                debug!(queue = source.queue, "consuming at full prefetch");
                self.incoming.get_mut().push(stream);
            }
            _ if ending => source.consumer = Consumer::Ended,
            _ if mutant!(StreamEndSwallowed) => {}
            _ => return Err(SessionError::Cancelled(source.queue.clone())),
        }
        Ok(())
    }

    /// Closes the channels: the broker answers when it has taken in every acknowledgement before it, which closing
    /// the whole connection at once does not promise.
    async fn close(self) {
        let all = self.sources.iter().map(|source| source.channel.close(200, "done".into()));
        // If it does not answer, what it has not taken in is delivered again.
        let _ = timeout(CLOSE_TIMEOUT, join_all(all)).await;
    }

    /// Asks for no more deliveries. What has arrived is still handled.
    async fn cancel_consumers(&mut self) -> Result<(), SessionError> {
        for source in &self.sources {
            if !matches!(source.consumer, Consumer::Growing | Consumer::Ended) {
                source.cancel().await?;
            }
        }
        Ok(())
    }
}

impl Source {
    /// Begins to consume; the stream tells of every way in which it can end.
    async fn consume(
        &self,
        index: usize,
        prefetch: u16,
    ) -> Result<BoxStream<'static, Incoming>, SessionError> {
        // The prefetch counts for consumers that begin after it.
        self.channel.basic_qos(prefetch, BasicQosOptions { global: false }).await?;
        let consumer = self
            .channel
            .basic_consume(
                short(&self.queue),
                self.tag(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        Ok(tagged(consumer, index).boxed())
    }

    async fn cancel(&self) -> Result<(), SessionError> {
        self.channel.basic_cancel(self.tag(), BasicCancelOptions::default()).await?;
        Ok(())
    }

    fn tag(&self) -> lapin::types::ShortString {
        short(&format!("{}@{}", self.queue, process_name()))
    }
}

/// Cuts what has arrived into batches of bounded size: arrays make a message a thousand times as large as a command,
/// and a transaction holds up other writers for as long as it takes.
fn parts(arrived: &[Arrived]) -> impl Iterator<Item = &[Arrived]> {
    let mut bytes = 0;
    arrived.chunk_by(move |before, _| {
        bytes += before.delivery.data.len();
        let fits = bytes < BATCH_BYTES_MAX;
        if !fits {
            bytes = 0;
        }
        fits
    })
}

/// The stream's end is told too: it means that the broker cancelled the consumer.
fn tagged(
    deliveries: impl Stream<Item = lapin::Result<Delivery>> + Send + 'static,
    source: usize,
) -> impl Stream<Item = Incoming> + Send {
    deliveries
        .map(move |delivery| match delivery {
            Ok(delivery) => Incoming::Delivery(Arrived { source, delivery }),
            Err(error) => Incoming::Failed(error),
        })
        .chain(stream::iter([Incoming::Ended(source)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(bytes: usize) -> Arrived {
        let delivery = Delivery::mock(1, "".into(), "".into(), false, vec![b' '; bytes]);
        Arrived { source: 0, delivery }
    }

    #[test]
    fn batches_are_cut_by_size_and_keep_their_order() {
        let sizes = |arrived: &[Arrived]| -> Vec<usize> { parts(arrived).map(<[_]>::len).collect() };
        let small: Vec<_> = (0..300).map(|_| arrived(100)).collect();
        assert_eq!(sizes(&small), [300]);
        let large: Vec<_> =
            [1, BATCH_BYTES_MAX, 1, BATCH_BYTES_MAX / 2, BATCH_BYTES_MAX / 2, 7].map(arrived).into();
        assert_eq!(sizes(&large), [2, 3, 1]);
    }
}
