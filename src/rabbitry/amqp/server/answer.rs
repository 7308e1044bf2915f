//! From deliveries to replies: read them, and ask the service.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use lapin::{message::Delivery, options::BasicAckOptions};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::{Context, end::SessionError};
use crate::{
    amqp::envelope::{Envelope, delivery_count},
    backoff::Backoff,
    failpoints::mutant,
    limits::SUSPECT_DELIVERY_COUNT,
    service::{Problem, Reply, Request, Service, Spec},
};

/// A delivery and the source it came from.
pub(super) struct Arrived {
    pub(super) source: usize,
    pub(super) delivery: Delivery,
}

impl Arrived {
    /// Whether it may be what kills workers. The count of a first delivery is whatever the producer wrote into the
    /// header.
    pub(super) fn is_suspect(&self) -> bool {
        !mutant!(SuspectsNotAlone)
            && self.delivery.redelivered
            && delivery_count(&self.delivery.properties) >= SUSPECT_DELIVERY_COUNT
    }
}

/// Only for the mutant that takes what comes again for handled: whether it has come to this worker before.
pub(super) fn came_before(arrived: &Arrived) -> bool {
    static IDS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let id = arrived.delivery.properties.message_id().as_ref().map(ToString::to_string);
    let known = id.is_some_and(|id| !IDS.lock().unwrap_or_else(PoisonError::into_inner).insert(id));
    known && arrived.delivery.redelivered
}

/// A delivery that was read: what it asks for, or what is wrong with it.
pub(super) struct Opened<C> {
    pub(super) arrived: Arrived,
    envelope: Envelope,
    request: Result<Request<C>, Problem>,
}

/// A batch whose effects are durable.
pub(super) struct Answered {
    pub(super) arrived: Vec<Arrived>,
    pub(super) envelopes: Vec<Envelope>,
    pub(super) replies: Vec<Reply>,
}

impl Answered {
    /// What was delivered, as moments of failure are told.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = &Delivery> {
        self.arrived.iter().map(|arrived| &arrived.delivery)
    }
}

/// Reads a delivery.
pub(super) fn open<S: Service>(context: &Context<S>, command: Spec, arrived: Arrived) -> Opened<S> {
    let envelope = Envelope::open(command, &arrived.delivery.properties, &context.trust);
    let request = envelope.request(&arrived.delivery);
    Opened { arrived, envelope, request }
}

/// Answers what is a command by the service, and the rest by what is wrong with it.
pub(super) async fn answer<S: Service>(
    context: Arc<Context<S>>,
    batch: Vec<Opened<S>>,
) -> Result<Answered, SessionError> {
    let mut arrived = Vec::with_capacity(batch.len());
    let mut envelopes = Vec::with_capacity(batch.len());
    let mut problems = Vec::with_capacity(batch.len());
    let mut requests = Vec::with_capacity(batch.len());
    for opened in batch {
        arrived.push(opened.arrived);
        envelopes.push(opened.envelope);
        problems.push(opened.request.map(|request| requests.push(request)).err());
    }
    if mutant!(AckBeforeCommit) {
        for Arrived { delivery, .. } in &arrived {
            delivery.ack(BasicAckOptions::default()).await?;
        }
    }
    let began = Instant::now();
    let mut answers = ask_until_answered(&context, requests.into()).await?.into_iter();
    debug!(batch.size = arrived.len(), batch.commit_us = began.elapsed().as_micros(), "batch is durable");
    let replies =
        problems.into_iter().map(|problem| problem.map(Reply::unexecuted).or_else(|| answers.next()));
    // A service that breaks its contract is a bug; what it did not answer must not be acknowledged.
    let replies = replies.collect::<Option<_>>().ok_or(SessionError::Panicked)?;
    Ok(Answered { arrived, envelopes, replies })
}

/// Keeps the batch while the store is not there; nothing is acknowledged meanwhile, and the prefetch is the brake.
async fn ask_until_answered<S: Service>(
    context: &Context<S>,
    requests: Arc<[Request<S>]>,
) -> Result<Vec<Reply>, SessionError> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let deadline = Instant::now() + context.store_patience;
    let mut backoff = Backoff::of_store();
    let mut warned = false;
    loop {
        match timeout_at(deadline, context.store.apply(Arc::clone(&requests))).await {
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

#[cfg(test)]
impl<C> Opened<C> {
    /// Something in place of a delivery that was read.
    pub(super) fn mock(arrived: Arrived) -> Self {
        let command = Spec::read("mock");
        let envelope = Envelope::open(
            command,
            &arrived.delivery.properties,
            &crate::amqp::reply_to::Trust::new(&[], Vec::new()),
        );
        Self { arrived, envelope, request: Err(Problem::invalid_field("mock", "no command")) }
    }
}
