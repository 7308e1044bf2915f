//! What a service is, and what stands between messaging and stores.
//!
//! `amqp/` turns deliveries into [`Request`]s and [`Reply`]s into messages; a [`Store`] turns the one into the other by the
//! service's rules. What every service needs beside these stands here too: how a body is read ([`payload`]), what a
//! repetition is answered ([`inbox`]), how a batch is run ([`batch`]).

pub mod batch;
pub mod command;
pub mod entity;
pub mod inbox;
pub mod list;
mod members;
pub mod payload;
mod problem;
pub mod rows;
pub mod value;

use std::{error::Error, sync::Arc};

use futures::future::BoxFuture;
use serde::Serialize;

use crate::failpoints::mutant;

pub use command::{Command, Service, Spec};
pub use entity::Entity;
pub use inbox::Fingerprint;
#[cfg(feature = "cli")]
pub(crate) use problem::cut;
pub use problem::{Code, FieldError, Problem};
pub use rows::{Needs, Rows};

/// Where a service keeps its entities: runs batches of requests, each in one transaction.
///
/// The contract of a batch, tested by the store contract and by properties:
/// * one reply per request, in the same order;
/// * requests act one after another: a later one sees what an earlier one did, and how requests are cut into
///   batches is invisible;
/// * when `Ok` returns, every effect is durable; a request may still have been *refused*: that is a reply;
/// * `Err(Unavailable)`: nothing is known to have happened. The caller asks again with the same batch; the inbox
///   makes the repetition harmless.
pub trait Store<S: Service>: Send + Sync + 'static {
    /// Runs a batch and commits it. A batch of reads, which has no effect, takes no write lock.
    ///
    /// Dropping the future does not stop the transaction, which then is as after `Unavailable`: its outcome is not
    /// known, and the inbox tells.
    fn apply(
        &self,
        access: Access,
        batch: Arc<[Request<S>]>,
    ) -> BoxFuture<'_, Result<Vec<Reply>, Unavailable>>;

    /// The same for all workers of the same store, however their URLs name it, and for no others; empty if no other can be
    /// meant.
    fn id(&self) -> &str;

    /// Returns once the store answers.
    fn ready(&self) -> BoxFuture<'_, Result<(), Unavailable>>;
}

/// Whether a command can have an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// No effect: never touches the inbox, never waits for a write lock, a repetition reads afresh.
    Read,
    /// An effect: at most once per message id.
    Write,
}

/// One message, as a service sees it.
#[derive(Debug)]
pub struct Request<C> {
    /// The command that the message's queue stands for.
    pub command: Spec,
    /// The idempotency key; without one the command is executed at least once.
    pub id: Option<String>,
    /// Do not execute after this moment, in milliseconds since the Unix epoch.
    pub deadline: Option<i64>,
    /// What the command's content is; the same id with another one is a conflict.
    pub fingerprint: Fingerprint,
    /// The command, or the commands of an array.
    pub payload: Payload<C>,
}

impl<C> Request<C> {
    /// The inbox's key, `(command, message id)`; none without an id, and none for a read.
    pub fn inbox_key(&self) -> Option<(&'static str, &str)> {
        if mutant!(NoInbox) {
            return None;
        }
        let command = if mutant!(InboxKeyWithoutCommand) { "" } else { self.command.name };
        let id = self.id.as_deref().filter(|_| self.command.access == Access::Write)?;
        Some((command, id))
    }
}

/// A message's content: one command, or an array of them.
#[derive(Debug)]
pub enum Payload<C> {
    /// A JSON object.
    One(C),
    /// A JSON array; items that are not valid are refused one by one.
    Many(Vec<Result<C, Problem>>),
}

impl<C> Payload<C> {
    /// How many commands it holds.
    pub fn commands(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(items) => items.len(),
        }
    }
}

/// What is sent back for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP-like status; 400 and above carry a problem.
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
    /// The reply was given before and is repeated from the inbox.
    pub replayed: bool,
    /// Why the command, or a part of an array, was not executed. Such a message must be seen by somebody: it is set
    /// aside if it cannot be answered, and in any case when the reason is `internal`.
    pub unexecuted: Option<Problem>,
}

impl Reply {
    /// A refusal that follows from the state (exists, not found): the command was judged, so it counts as executed.
    pub fn refusal(problem: &Problem) -> Self {
        Self { status: problem.code.status, body: to_json(problem), replayed: false, unexecuted: None }
    }

    /// The command was not executed, for a reason that lies in the message or in us.
    pub fn unexecuted(problem: Problem) -> Self {
        let reply = Self::refusal(&problem);
        Self { unexecuted: Some(problem), ..reply }
    }

    /// Whether the body is a problem (RFC 9457) and not a result.
    pub fn is_problem(&self) -> bool {
        self.status >= 400
    }
}

/// Serializes a value of our own types.
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Our types have string keys and no failing Serialize, which are the only ways this can fail.
    serde_json::to_vec(value).expect("our own types serialize to JSON")
}

/// The store could not be asked, or its answer is not known. The same batch may be tried again.
#[derive(Debug, thiserror::Error)]
#[error("the store is not available: {0}")]
pub struct Unavailable(#[source] pub Box<dyn Error + Send + Sync>);
