//! What becomes of a batch: answer, reply, set aside, acknowledge, in this order.

use std::{collections::BTreeSet, sync::Arc};

use lapin::{
    message::Delivery,
    options::{BasicAckOptions, BasicRejectOptions},
};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info, warn};

use super::{
    Context,
    lane::{Arrived, Source},
    session::SessionError,
};
use crate::{
    amqp::{envelope::Envelope, replies::OutgoingReply},
    backoff::Backoff,
    failpoints::{failpoint, mutant},
    service::{Code, Problem, Reply, Request, Service},
};

/// Handles a batch. When it returns, every delivery of it is settled.
pub(super) async fn handle<S: Service>(
    context: &Context<S>,
    sources: &mut [Source],
    batch: &[Arrived],
) -> Result<(), SessionError> {
    let began = Instant::now();
    let envelopes: Vec<_> = batch
        .iter()
        .map(|arrived| {
            Envelope::open(sources[arrived.source].command, &arrived.delivery.properties, &context.trust)
        })
        .collect();
    if mutant!(AckBeforeCommit) {
        acknowledge(sources, batch, &BTreeSet::new()).await?;
    }
    let replies = answer(context, batch, &envelopes).await?;
    let committed = began.elapsed();
    // Replies go first: a crash between the two means a second reply, the other way round none.
    failpoint!(BeforeReply, deliveries(batch), await ?);
    send_replies(context, &envelopes, &replies).await;
    failpoint!(AfterReply, deliveries(batch), await ?);
    let rejected = set_aside(context, sources, batch, &envelopes, &replies).await;
    failpoint!(BeforeAck, deliveries(batch), await ?);
    if !mutant!(AckBeforeCommit) {
        acknowledge(sources, batch, &rejected).await?;
    }
    failpoint!(AfterAck, deliveries(batch), await ?);
    debug!(
        batch.size = batch.len(),
        batch.commit_us = committed.as_micros(),
        batch.total_us = began.elapsed().as_micros(),
        "batch done"
    );
    Ok(())
}

/// What was delivered, as moments of failure are told.
fn deliveries(batch: &[Arrived]) -> impl Iterator<Item = &Delivery> {
    batch.iter().map(|arrived| &arrived.delivery)
}

/// Answers what is a command by the service, and the rest by what is wrong with it.
async fn answer<S: Service>(
    context: &Context<S>,
    batch: &[Arrived],
    envelopes: &[Envelope],
) -> Result<Vec<Reply>, SessionError> {
    let mut replies: Vec<Option<Reply>> = Vec::with_capacity(batch.len());
    let mut requests = Vec::with_capacity(batch.len());
    for (arrived, envelope) in batch.iter().zip(envelopes) {
        match envelope.request(&*context.service, &arrived.delivery) {
            Ok(request) => {
                requests.push(request);
                replies.push(None);
            }
            Err(problem) => replies.push(Some(Reply::unexecuted(problem))),
        }
    }
    let mut answers = ask_until_answered(context, requests.into()).await?.into_iter();
    let replies = replies.into_iter().map(|reply| reply.or_else(|| answers.next()));
    // A service that breaks its contract is a bug; what it did not answer must not be acknowledged.
    replies.collect::<Option<Vec<_>>>().ok_or(SessionError::Panicked)
}

/// Keeps the batch while the store is not there; nothing is acknowledged meanwhile, and the prefetch is the brake.
async fn ask_until_answered<S: Service>(
    context: &Context<S>,
    requests: Arc<[Request<S::Command>]>,
) -> Result<Vec<Reply>, SessionError> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let deadline = Instant::now() + context.store_patience;
    let mut backoff = Backoff::of_store();
    let mut warned = false;
    loop {
        match timeout_at(deadline, context.service.answer(Arc::clone(&requests))).await {
            Err(_) => return Err(SessionError::StoreSilent),
            Ok(Ok(replies)) => {
                if warned {
                    info!("the store answers again");
                }
                return Ok(replies);
            }
            Ok(Err(unavailable)) => {
                if !warned {
                    warn!(error = %unavailable, "keeping a batch of {} and trying again", requests.len());
                    warned = true;
                }
                if timeout_at(deadline, backoff.wait()).await.is_err() {
                    return Err(SessionError::StoreSilent);
                }
            }
        }
    }
}

async fn send_replies<S: Service>(context: &Context<S>, envelopes: &[Envelope], replies: &[Reply]) {
    let mut outgoing = Vec::with_capacity(replies.len());
    for (envelope, reply) in envelopes.iter().zip(replies) {
        if let Some(reply_to) = &envelope.reply_to {
            let properties = envelope.reply_properties(context.service.name(), reply);
            outgoing.push(OutgoingReply { reply_to: reply_to.clone(), properties, body: reply.body.clone() });
        }
        if envelope.distrusted {
            warn!(
                command = envelope.command.name,
                message_id = envelope.id,
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
    sources: &[Source],
    batch: &[Arrived],
    envelopes: &[Envelope],
    replies: &[Reply],
) -> BTreeSet<usize> {
    let mut indexes = Vec::new();
    let mut letters = Vec::new();
    for (index, (envelope, reply)) in envelopes.iter().zip(replies).enumerate() {
        if let Some(reason) = reason_to_set_aside(envelope, reply) {
            let arrived = &batch[index];
            let queue = sources[arrived.source].queue.as_str();
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
    sources: &mut [Source],
    batch: &[Arrived],
    rejected: &BTreeSet<usize>,
) -> Result<(), SessionError> {
    for (index, source) in sources.iter_mut().enumerate() {
        let mut up_to = None;
        let own = batch.iter().enumerate().filter(|(_, arrived)| arrived.source == index);
        for (position, arrived) in own {
            let tag = arrived.delivery.delivery_tag;
            let contiguous = tag == source.contiguous + 1 || mutant!(AckOverGap);
            source.contiguous += u64::from(contiguous);
            if rejected.contains(&position) {
                source.channel.basic_reject(tag, BasicRejectOptions { requeue: false }).await?;
            } else if contiguous {
                up_to = Some(tag);
            } else {
                source.channel.basic_ack(tag, BasicAckOptions { multiple: false }).await?;
            }
        }
        // Zero as a tag would acknowledge whatever is outstanding; the broker counts from 1.
        if let Some(tag) = up_to {
            source.channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
    }
    Ok(())
}
