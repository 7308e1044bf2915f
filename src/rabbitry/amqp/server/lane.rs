//! The loop that turns deliveries into batches.
//!
//! A lane takes *whatever has arrived* while its last batch was committing, from its ready queues in turn, and hands
//! it over as one slice. There is no timer: an idle lane adds no latency, a busy one commits in groups. Three batches
//! are under way at a time: one is read, one commits, one is replied to and acknowledged.

use std::{
    collections::VecDeque,
    future::{Future, pending, ready},
    sync::Arc,
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::try_join_all,
    stream::{self, BoxStream, SelectAll},
};
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace, warn};

use super::{
    Context,
    answer::{Answered, Arrived, Opened, answer, came_before, open},
    end::{End, Pace, SessionError},
    settle::{Outlet, Settler, Settling},
};
use crate::{
    amqp::{
        connection::{is_about_a_queue, process_name},
        queue, short,
    },
    failpoints::mutant,
    limits::{BATCH_BYTES_MAX, CLOSE_TIMEOUT, CONSUME_TIMEOUT, QUARANTINE_IDLE, QUARANTINE_SUCCESSES},
    service::{Access, Service, command::Entry},
};

/// Some of a service's queues, each on a channel of its own, handled by one loop.
pub(super) struct Lane<S: Service> {
    context: Arc<Context<S>>,
    /// What its commands have in common.
    access: Access,
    sources: Vec<Source<S>>,
    incoming: SelectAll<BoxStream<'static, Incoming>>,
    pace: Pace,
    drain: CancellationToken,
    /// What has arrived while the batch before it commits.
    waiting: VecDeque<Opened<S>>,
    settler: Settler<S>,
    /// Deliveries that are suspected, kept until nothing else is in hand.
    withheld: Vec<Arrived>,
    /// Successes since the last delivery that was suspected.
    successes: u32,
    ending: Option<End>,
}

/// A queue that a lane consumes.
struct Source<S: Service> {
    command: &'static Entry<S>,
    queue: String,
    channel: Channel,
    consumer: Consumer,
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
        access: Access,
        commands: &[&'static Entry<S>],
        pace: Pace,
        drain: CancellationToken,
    ) -> Result<Self, SessionError> {
        let mut sources = Vec::new();
        let mut streams = SelectAll::new();
        // Consumers are made anew, and a selection that was empty once would count as ended.
        streams.push(stream::pending().boxed());
        for (index, &command) in commands.iter().enumerate() {
            let channel = connection.create_channel().await?;
            let queue = queue(S::NAME, command.spec.name);
            let source = Source { command, queue, channel, consumer: Consumer::Probing };
            streams.push(source.consume(index, 1).await?);
            sources.push(source);
        }
        let outlets = sources.iter().map(|source| Outlet::new(source.queue.clone(), source.channel.clone()));
        Ok(Self {
            incoming: streams,
            settler: Settler::start(Arc::clone(&context), outlets.collect()),
            context,
            access,
            sources,
            pace,
            drain,
            waiting: VecDeque::new(),
            withheld: Vec::new(),
            successes: 0,
            ending: None,
        })
    }

    /// Its channels.
    pub(super) fn channels(&self) -> impl Iterator<Item = Channel> {
        self.sources.iter().map(|source| source.channel.clone())
    }

    /// Handles batches until asked to drain, or until a message is suspected, or (one by one) until all is quiet.
    pub(super) async fn run(mut self) -> Result<End, SessionError> {
        let batch_max = usize::from(self.context.batch_max);
        let mut committing = None;
        let mut idle_at = Instant::now() + QUARANTINE_IDLE;
        loop {
            if let Some(end) = self.ending
                && committing.is_none()
                && self.waiting.is_empty()
                && self.sources.iter().all(|source| source.consumer == Consumer::Ended)
            {
                return self.finish(end).await;
            }
            let running = self.ending.is_none();
            tokio::select! {
                biased;
                () = self.drain.cancelled(), if running => self.end(End::Shutdown).await?,
                error = self.settler.failure() => return Err(error),
                answered = committed(&mut committing), if committing.is_some() => {
                    committing = None;
                    self.answered(answered?).await?;
                    idle_at = Instant::now() + QUARANTINE_IDLE;
                }
                incoming = self.incoming.next(), if self.waiting.len() < batch_max => {
                    self.take(incoming).await?;
                    idle_at = Instant::now() + QUARANTINE_IDLE;
                }
                // Last, so that a batch holds everything that has arrived.
                () = ready(()), if committing.is_none() && !self.waiting.is_empty() => {
                    let batch = next_batch(&mut self.waiting, batch_max);
                    trace!(batch.size = batch.len(), "batch begins");
                    committing = Some(Box::pin(answer(Arc::clone(&self.context), self.access, batch)));
                }
                () = sleep_until(idle_at), if running && self.pace == Pace::OneByOne && committing.is_none() => {
                    self.end(End::Recovered).await?;
                }
            }
        }
    }

    /// Takes in what has arrived, at most a batch of it.
    async fn take(&mut self, first: Option<Incoming>) -> Result<(), SessionError> {
        let mut deliveries = 0;
        let mut next = first;
        while let Some(incoming) = next {
            deliveries += usize::from(matches!(incoming, Incoming::Delivery(_)));
            self.take_one(incoming).await?;
            let room = self.waiting.len() < usize::from(self.context.batch_max);
            next = if room { self.incoming.next().now_or_never().flatten() } else { None };
        }
        trace!(deliveries, "deliveries have come");
        Ok(())
    }

    async fn take_one(&mut self, incoming: Incoming) -> Result<(), SessionError> {
        match incoming {
            Incoming::Delivery(arrived) if mutant!(StaleAck) && came_before(&arrived) => {
                arrived.delivery.ack(BasicAckOptions::default()).await?;
            }
            Incoming::Delivery(arrived) if self.pace == Pace::Full && arrived.is_suspect() => {
                self.withhold(arrived);
                self.end(End::Suspect).await?;
            }
            Incoming::Delivery(arrived) => {
                let command = self.sources[arrived.source].command;
                self.waiting.push_back(open(&self.context, command, arrived));
            }
            Incoming::Failed(error) => return Err(error.into()),
            Incoming::Ended(source) => self.consumer_ended(source).await?,
        }
        Ok(())
    }

    /// Hands over a batch whose effects are durable, and quickens the pace after a success.
    async fn answered(&mut self, batch: Vec<Answered>) -> Result<(), SessionError> {
        for Answered { arrived, .. } in &batch {
            self.successes = if arrived.is_suspect() { 0 } else { self.successes + 1 };
        }
        if self.pace == Pace::Full && self.ending.is_none() {
            self.grow(&batch).await?;
        }
        self.settler.settle(batch).await?;
        if self.pace == Pace::OneByOne && self.successes >= QUARANTINE_SUCCESSES {
            self.end(End::Recovered).await?;
        }
        Ok(())
    }

    /// Asks for no more deliveries. What has arrived is still handled.
    async fn end(&mut self, end: End) -> Result<(), SessionError> {
        if self.ending.is_none() {
            self.ending = Some(end);
            for source in &self.sources {
                if !matches!(source.consumer, Consumer::Growing | Consumer::Ended) {
                    source.cancel().await?;
                }
            }
        }
        Ok(())
    }

    /// Settles what is left and closes the channels: the broker answers when it has taken in every acknowledgement
    /// before it, which closing the whole connection at once does not promise.
    async fn finish(self, end: End) -> Result<End, SessionError> {
        let settling = self.settler.finish().await?;
        handle_withheld(&self.context, &self.sources, settling, self.withheld).await?;
        let all = self.sources.iter().map(|source| source.channel.close(200, "done".into()));
        match timeout(CLOSE_TIMEOUT, try_join_all(all)).await {
            Ok(Ok(_)) => Ok(end),
            // Another session begins as the end says. After the last one nobody would hear of what comes again.
            _ if end != End::Shutdown => Ok(end),
            _ => Err(SessionError::Unanswered),
        }
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

    /// After a first success, makes the consumers that hold one delivery anew. While that one is not acknowledged they
    /// are given no other, which might come to nobody: lapin drops what comes for a consumer that it knows no more.
    async fn grow(&mut self, successes: &[Answered]) -> Result<(), SessionError> {
        for Answered { arrived, .. } in successes {
            let source = &mut self.sources[arrived.source];
            if source.consumer == Consumer::Probing {
                source.consumer = Consumer::Growing;
                source.cancel().await?;
            }
        }
        Ok(())
    }

    async fn consumer_ended(&mut self, index: usize) -> Result<(), SessionError> {
        let source = &mut self.sources[index];
        match source.consumer {
            _ if self.ending.is_some() => source.consumer = Consumer::Ended,
            // Only now has every delivery of the old consumer been taken in, so that acknowledgements keep their order.
            Consumer::Growing => {
                source.consumer = Consumer::Full;
                let stream = source.consume(index, self.context.batch_max.saturating_mul(2)).await?;
                debug!(queue = source.queue, "consuming at full prefetch");
                self.incoming.push(stream);
            }
            _ if mutant!(StreamEndSwallowed) => {}
            _ => return Err(SessionError::Cancelled(source.queue.clone())),
        }
        Ok(())
    }
}

impl<S: Service> Source<S> {
    /// Begins to consume; the stream tells of every way in which it can end.
    async fn consume(
        &self,
        index: usize,
        prefetch: u16,
    ) -> Result<BoxStream<'static, Incoming>, SessionError> {
        // The prefetch counts for consumers that begin after it.
        self.channel.basic_qos(prefetch, BasicQosOptions { global: false }).await?;
        let options = BasicConsumeOptions::default();
        let consume =
            self.channel.basic_consume(short(&self.queue), self.tag(), options, FieldTable::default());
        // A quorum queue without a leader answers after a minute, if ever.
        match timeout(CONSUME_TIMEOUT, consume).await {
            Ok(Ok(consumer)) => Ok(tagged(consumer, index).boxed()),
            Ok(Err(error)) if is_about_a_queue(&error) => Err(self.not_served(error.to_string())),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(self.not_served(format!("no answer within {CONSUME_TIMEOUT:?}"))),
        }
    }

    fn not_served(&self, reason: String) -> SessionError {
        SessionError::NotServed { queue: self.queue.clone(), reason }
    }

    async fn cancel(&self) -> Result<(), SessionError> {
        self.channel.basic_cancel(self.tag(), BasicCancelOptions::default()).await?;
        Ok(())
    }

    /// The consumer's name, another one when it is made anew: what the old one was given may not be acknowledged yet,
    /// and the broker would deliver it once more to a consumer of the same name, or fail and close the connection
    /// (tried: 3.10.8).
    fn tag(&self) -> lapin::types::ShortString {
        let full = if self.consumer == Consumer::Full { " (full prefetch)" } else { "" };
        short(&format!("{}@{}{full}", self.queue, process_name()))
    }
}

/// Handles what was suspected, one by one, when everything else is settled and no more is delivered.
///
/// To give it back instead would count as a delivery, and as the broker puts it behind what it gets back, a message
/// that kills workers could always be the next one: its neighbour would be given back until the broker sets it
/// aside, without having been tried once. In random order, so that after a few deaths of workers every neighbour
/// has been handled before the one that kills, whichever it is.
async fn handle_withheld<S: Service>(
    context: &Arc<Context<S>>,
    sources: &[Source<S>],
    mut settling: Settling<S>,
    mut withheld: Vec<Arrived>,
) -> Result<(), SessionError> {
    fastrand::shuffle(&mut withheld);
    for arrived in withheld {
        let command = sources[arrived.source].command;
        let opened = open(context, command, arrived);
        settling.settle(answer(Arc::clone(context), command.spec.access, vec![opened]).await?).await?;
    }
    Ok(())
}

/// The batch that commits, if there is one.
async fn committed<T>(batch: &mut Option<impl Future<Output = T> + Unpin>) -> T {
    match batch {
        Some(batch) => batch.await,
        None => pending().await,
    }
}

/// Cuts a batch of bounded size from what has arrived: arrays make a message a thousand times as large as a command,
/// and a transaction holds up other writers for as long as it takes.
fn next_batch<C>(waiting: &mut VecDeque<Opened<C>>, batch_max: usize) -> Vec<Opened<C>> {
    let mut bytes = 0;
    let sizes = waiting.iter().map(|opened| opened.arrived.delivery.data.len());
    let fitting = sizes.take_while(|size| {
        let fits = bytes < BATCH_BYTES_MAX;
        bytes += size;
        fits
    });
    let count = fitting.take(batch_max).count();
    waiting.drain(..count).collect()
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
    use std::iter::from_fn;

    use lapin::message::Delivery;

    use super::*;

    fn arrived(bytes: usize) -> Opened<()> {
        let delivery = Delivery::mock(1, "".into(), "".into(), false, vec![b' '; bytes]);
        Opened::mock(Arrived { source: 0, delivery })
    }

    #[test]
    fn batches_are_cut_by_size_and_keep_their_order() {
        let sizes = |messages: Vec<usize>| -> Vec<Vec<usize>> {
            let mut waiting: VecDeque<_> = messages.into_iter().map(arrived).collect();
            let batches = from_fn(|| Some(next_batch(&mut waiting, 200)).filter(|batch| !batch.is_empty()));
            let size = |opened: Opened<()>| opened.arrived.delivery.data.len();
            batches.map(|batch| batch.into_iter().map(size).collect()).collect()
        };
        assert_eq!(sizes(vec![100; 300]), [vec![100; 200], vec![100; 100]]);
        let half = BATCH_BYTES_MAX / 2;
        assert_eq!(
            sizes(vec![1, BATCH_BYTES_MAX, 1, half, half, 7]),
            [vec![1, BATCH_BYTES_MAX], vec![1, half, half], vec![7]]
        );
    }
}
