//! What becomes of an answered batch: reply, set aside, acknowledge, in this order.

use std::{collections::BTreeSet, sync::Arc};

use lapin::{
    Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicRejectOptions},
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, warn};

use super::{Context, answer::Answered, end::SessionError};
use crate::{
    amqp::{envelope::Envelope, replies::OutgoingReply},
    failpoints::{failpoint, mutant},
    service::{Code, Problem, Reply, Service},
};

/// The task that settles a lane's batches, one after another, while the next one commits.
pub(super) struct Settler<S> {
    /// Room for one batch: a lane that is faster waits.
    batches: mpsc::Sender<Vec<Answered>>,
    task: AbortOnDropHandle<Result<Settling<S>, SessionError>>,
}

/// What settling needs and knows.
pub(super) struct Settling<S> {
    context: Arc<Context<S>>,
    outlets: Vec<Outlet>,
}

/// A queue's way back.
pub(super) struct Outlet {
    pub(super) queue: String,
    pub(super) channel: Channel,
    /// The last delivery up to which every one has been seen and is being settled: an acknowledgement of several may
    /// cover these. What the broker delivered and nobody saw (to a consumer that was cancelled meanwhile), or what is
    /// withheld, leaves a gap that no later acknowledgement may cover.
    contiguous: u64,
}

impl Outlet {
    pub(super) fn new(queue: String, channel: Channel) -> Self {
        Self { queue, channel, contiguous: 0 }
    }
}

impl<S: Service> Settler<S> {
    /// Starts the task; it ends when this is dropped.
    pub(super) fn start(context: Arc<Context<S>>, outlets: Vec<Outlet>) -> Self {
        let (batches, mut queue) = mpsc::channel(1);
        let mut settling = Settling { context, outlets };
        let task = tokio::spawn(async move {
            while let Some(batch) = queue.recv().await {
                settling.settle(batch).await?;
            }
            Ok(settling)
        });
        Self { batches, task: AbortOnDropHandle::new(task) }
    }

    /// Hands over a batch.
    pub(super) async fn settle(&mut self, batch: Vec<Answered>) -> Result<(), SessionError> {
        match self.batches.send(batch).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Waits until a batch cannot be settled.
    pub(super) async fn failure(&mut self) -> SessionError {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) | Err(_) => SessionError::Panicked,
        }
    }

    /// Waits until everything that was handed over is settled.
    pub(super) async fn finish(self) -> Result<Settling<S>, SessionError> {
        drop(self.batches);
        self.task.await.unwrap_or(Err(SessionError::Panicked))
    }
}

impl<S: Service> Settling<S> {
    /// Replies to a batch and acknowledges it. When it returns, every delivery of it is settled.
    pub(super) async fn settle(&mut self, mut batch: Vec<Answered>) -> Result<(), SessionError> {
        // Replies go first: a crash between the two means a second reply, the other way round none.
        failpoint!(BeforeReply, deliveries(&batch), await ?);
        send_replies(&self.context, &mut batch).await;
        failpoint!(AfterReply, deliveries(&batch), await ?);
        let rejected = set_aside(&self.context, &self.outlets, &batch).await;
        failpoint!(BeforeAck, deliveries(&batch), await ?);
        if !mutant!(AckBeforeCommit) {
            acknowledge(&mut self.outlets, &batch, &rejected).await?;
        }
        failpoint!(AfterAck, deliveries(&batch), await ?);
        debug!(batch.size = batch.len(), "batch done");
        Ok(())
    }
}

/// What was delivered, as moments of failure are told.
fn deliveries(batch: &[Answered]) -> impl Iterator<Item = &Delivery> {
    batch.iter().map(|answered| &answered.arrived.delivery)
}

/// Sends the replies; their bodies are gone afterwards, as they may be large.
async fn send_replies<S: Service>(context: &Context<S>, batch: &mut [Answered]) {
    let mut outgoing = Vec::with_capacity(batch.len());
    for Answered { envelope, reply, .. } in batch {
        if let Some(reply_to) = &envelope.reply_to {
            let properties = envelope.reply_properties(S::NAME, reply);
            let body = std::mem::take(&mut reply.body);
            outgoing.push(OutgoingReply { reply_to: reply_to.clone(), properties, body });
        }
        if let Some(reply_to) = &envelope.distrusted {
            warn!(
                command = envelope.command.name,
                message_id = envelope.id,
                reply_to,
                "reply_to names a queue that is not trusted; the command was handled without a reply"
            );
        }
    }
    let lost = context.replies.send(outgoing).await;
    if lost > 0 {
        warn!(lost, "replies were dropped; their callers get them by asking again with the same message id");
    }
}

/// Sets aside what nobody would hear of otherwise. Returns the deliveries (by index) that the broker has to move, as
/// no copy could be published.
async fn set_aside<S: Service>(
    context: &Context<S>,
    outlets: &[Outlet],
    batch: &[Answered],
) -> BTreeSet<usize> {
    let mut indexes = Vec::new();
    let mut letters = Vec::new();
    for (index, Answered { arrived, envelope, reply }) in batch.iter().enumerate() {
        if let Some(reason) = reason_to_set_aside(envelope, reply) {
            let queue = outlets[arrived.source].queue.as_str();
            warn!(queue, message_id = envelope.id, code = reason.code.name, "message is set aside");
            letters.push((&arrived.delivery, queue, reason));
            indexes.push(index);
        }
    }
    let unsafe_ones = context.dead_letters.publish(&letters).await;
    failpoint!(AfterSetAside, letters.iter().map(|(delivery, ..)| *delivery), await);
    if !unsafe_ones.is_empty() {
        error!(
            count = unsafe_ones.len(),
            "dead letters could not be published; rejecting the messages, so that the broker moves them"
        );
    }
    unsafe_ones.into_iter().map(|letter| indexes[letter]).collect()
}

fn reason_to_set_aside<'a>(envelope: &Envelope, reply: &'a Reply) -> Option<&'a Problem> {
    let reason = reply.unexecuted.as_ref()?;
    (reason.code == Code::INTERNAL || envelope.reply_to.is_none()).then_some(reason)
}

/// Settles a batch: one acknowledgement of several for each queue, as far as its deliveries have come without a gap,
/// and single ones beyond.
async fn acknowledge(
    outlets: &mut [Outlet],
    batch: &[Answered],
    rejected: &BTreeSet<usize>,
) -> Result<(), SessionError> {
    for (index, outlet) in outlets.iter_mut().enumerate() {
        let mut up_to = None;
        let own = batch.iter().enumerate().filter(|(_, answered)| answered.arrived.source == index);
        for (position, answered) in own {
            let tag = answered.arrived.delivery.delivery_tag;
            let contiguous = tag == outlet.contiguous + 1 || mutant!(AckOverGap);
            outlet.contiguous += u64::from(contiguous);
            if rejected.contains(&position) {
                outlet.channel.basic_reject(tag, BasicRejectOptions { requeue: false }).await?;
            } else if contiguous {
                up_to = Some(tag);
            } else {
                outlet.channel.basic_ack(tag, BasicAckOptions { multiple: false }).await?;
            }
        }
        // Zero as a tag would acknowledge whatever is outstanding; the broker counts from 1.
        if let Some(tag) = up_to {
            outlet.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
    }
    Ok(())
}
