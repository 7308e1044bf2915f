//! The seam between messaging and a service.
//!
//! `amqp/` turns deliveries into [`Request`]s and [`Reply`]s into messages; a service turns the one into the
//! other and knows nothing of AMQP. What every service needs beside its own rules stands here too: how a body
//! is read ([`payload`]), what a repetition is answered ([`inbox`]), how a batch is run ([`batch`]).

pub mod batch;
pub mod command;
pub mod entity;
pub mod inbox;
pub mod payload;
mod problem;
pub mod rows;
pub mod value;

use std::{error::Error, future::Future, sync::Arc};

use serde::Serialize;

use crate::failpoints::mutant;

pub use command::Spec as CommandSpec;
pub use inbox::Fingerprint;
pub(crate) use problem::cut;
pub use problem::{Code, FieldError, Problem};

/// Answers requests in batches.
///
/// The contract of a batch, tested by the store contract and by properties:
/// * one reply per request, in the same order;
/// * requests act one after another: a later one sees what an earlier one did, and how requests are cut into
///   batches is invisible;
/// * when `Ok` returns, every effect is durable; a request may still have been *refused*: that is a reply;
/// * `Err(Unavailable)`: nothing is known to have happened. The caller asks again with the same batch; the inbox
///   makes the repetition harmless.
pub trait Service: Send + Sync + 'static {
    /// A parsed, valid command. Its JSON form is what the fingerprint is taken of, so a field added later must be
    /// left out of it while it has its default.
    type Command: Serialize + Send + Sync + 'static;

    /// The service's name: queues are called `<name>.<command>`.
    fn name(&self) -> &'static str;

    /// The closed list of commands. A test holds it against the topology.
    fn commands(&self) -> &'static [CommandSpec];

    /// Reads one payload of a command (never an array; see [`payload::decode`]).
    ///
    /// # Errors
    /// A [`Problem`] that names what is wrong, `malformed` or `invalid`.
    fn parse(&self, command: &str, payload: &[u8]) -> Result<Self::Command, Problem>;

    /// How many things a command returns at most; an array has room for a bounded number of them.
    fn weight(&self, _command: &Self::Command) -> usize {
        1
    }

    /// Runs a batch; see the trait's contract.
    ///
    /// Dropping the future is safe: the batch then may or may not have happened, as after `Unavailable`.
    ///
    /// # Errors
    /// [`Unavailable`] when the store could not be asked or its answer is not known.
    fn answer(
        &self,
        batch: Arc<[Request<Self::Command>]>,
    ) -> impl Future<Output = Result<Vec<Reply>, Unavailable>> + Send;

    /// Returns once the service could answer a batch.
    ///
    /// # Errors
    /// [`Unavailable`] while its store is not there.
    fn ready(&self) -> impl Future<Output = Result<(), Unavailable>> + Send;
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
    pub command: CommandSpec,
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
