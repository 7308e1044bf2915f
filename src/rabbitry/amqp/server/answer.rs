//! From deliveries to replies: read them, and ask the store.

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
    service::{Access, Problem, Reply, Request, Service, command::Entry},
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

/// A delivery whose effect is durable, and its reply.
pub(super) struct Answered {
    pub(super) arrived: Arrived,
    pub(super) envelope: Envelope,
    pub(super) reply: Reply,
}

/// Reads a delivery.
pub(super) fn open<S: Service>(context: &Context<S>, command: &Entry<S>, arrived: Arrived) -> Opened<S> {
    let envelope = Envelope::open(command.spec, &arrived.delivery.properties, &context.trust);
    let request = envelope.request(command, &arrived.delivery);
    Opened { arrived, envelope, request }
}

/// Answers what is a command by the store, and the rest by what is wrong with it.
pub(super) async fn answer<S: Service>(
    context: Arc<Context<S>>,
    access: Access,
    batch: Vec<Opened<S>>,
) -> Result<Vec<Answered>, SessionError> {
    if mutant!(AckBeforeCommit) {
        for Opened { arrived, .. } in &batch {
            arrived.delivery.ack(BasicAckOptions::default()).await?;
        }
    }
    let (began, size) = (Instant::now(), batch.len());
    // The store takes the requests alone, as it may have them for longer than this session lasts.
    let mut requests = Vec::with_capacity(size);
    let mut ask = |opened: Opened<S>| {
        let problem = opened.request.map(|request| requests.push(request)).err();
        (opened.arrived, opened.envelope, problem)
    };
    let asked: Vec<_> = batch.into_iter().map(&mut ask).collect();
    let mut replies = ask_until_answered(&context, access, requests.into()).await?.into_iter();
    debug!(batch.size = size, batch.commit_us = began.elapsed().as_micros(), "batch is durable");
    let answered = asked.into_iter().map(|(arrived, envelope, problem)| {
        let reply = problem.map(Reply::unexecuted).or_else(|| replies.next())?;
        Some(Answered { arrived, envelope, reply })
    });
    // A store that breaks its contract is a bug; what it did not answer must not be acknowledged.
    answered.collect::<Option<_>>().ok_or(SessionError::Panicked)
}

/// Keeps the batch while the store is not there; nothing is acknowledged meanwhile, and the prefetch is the brake.
async fn ask_until_answered<S: Service>(
    context: &Context<S>,
    access: Access,
    requests: Arc<[Request<S>]>,
) -> Result<Vec<Reply>, SessionError> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let deadline = Instant::now() + context.store_patience;
    let mut backoff = Backoff::of_store();
    let mut warned = false;
    loop {
        match timeout_at(deadline, context.store.apply(access, Arc::clone(&requests))).await {
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
        let command = crate::Spec::read("mock");
        let envelope = Envelope::open(
            command,
            &arrived.delivery.properties,
            &crate::amqp::reply_to::Trust::new(&[], Vec::new()),
        );
        Self { arrived, envelope, request: Err(Problem::invalid_field("mock", "no command")) }
    }
}
