//! How a batch is run: a pure function over what a store loaded.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use serde_json::value::RawValue;

use super::{
    Access, Code, Payload, Problem, Reply, Request,
    inbox::{Inbox, StoredReply, check_age},
    to_json,
};

/// What a service's commands are applied to.
pub trait State {
    /// The service's commands.
    type Command;

    /// Applies one command: its success (status and JSON), or a refusal that follows from the state.
    ///
    /// # Errors
    /// The refusal.
    fn apply(&mut self, command: &Self::Command) -> Result<(u16, Vec<u8>), Problem>;

    /// A mark for [`State::undo_after`].
    fn mark(&self) -> usize;

    /// Takes back what was applied since the mark.
    fn undo_after(&mut self, mark: usize);
}

/// Runs requests one after another. Nothing is durable before the store saves `state` and `inbox` and commits.
///
/// `now` is the worker's clock in milliseconds since the Unix epoch, read inside the transaction.
pub fn run<S: State>(
    requests: &[Request<S::Command>],
    state: &mut S,
    inbox: &mut Inbox,
    now: i64,
    retention: Duration,
) -> Vec<Reply> {
    requests.iter().map(|request| run_one(request, state, inbox, now, retention)).collect()
}

fn run_one<S: State>(
    request: &Request<S::Command>,
    state: &mut S,
    inbox: &mut Inbox,
    now: i64,
    retention: Duration,
) -> Reply {
    let id = request.id.as_deref().filter(|_| request.command.access == Access::Write);
    // The inbox comes before the deadline: a command that was executed in time gets its reply however late it is
    // asked for.
    if let Some(id) = id {
        match inbox.find(request.command.name, id, request.fingerprint) {
            Ok(None) => {}
            Ok(Some(row)) => {
                // A worker may have died between the commit and setting the message aside, so it is judged again.
                let unexecuted = unexecuted_items(&request.payload);
                return Reply { status: row.status, body: row.body.clone(), replayed: true, unexecuted };
            }
            Err(conflict) => return Reply::unexecuted(conflict),
        }
        if let Err(expired) = check_age(id, now, retention) {
            return Reply::unexecuted(expired);
        }
    }
    if let Some(deadline) = request.deadline.filter(|deadline| *deadline < now) {
        let detail = format!("the deadline passed {} ms ago, the command was not executed", now - deadline);
        return Reply::unexecuted(Problem::new(Code::DEADLINE_EXCEEDED, detail));
    }
    let reply = apply_contained(&request.payload, state);
    // `internal` is not remembered: nothing happened, and once the fault is mended the same id may be sent again.
    if let Some(id) = id.filter(|_| reply.status != Code::INTERNAL.status) {
        let row =
            StoredReply { fingerprint: request.fingerprint, status: reply.status, body: reply.body.clone() };
        inbox.remember(request.command.name, id, row);
    }
    reply
}

/// Applies a payload so that a panic leaves no trace but its reply.
fn apply_contained<S: State>(payload: &Payload<S::Command>, state: &mut S) -> Reply {
    let mark = state.mark();
    catch_unwind(AssertUnwindSafe(|| match payload {
        Payload::One(command) => match state.apply(command) {
            Ok((status, body)) => Reply { status, body, replayed: false, unexecuted: None },
            Err(refusal) => Reply::refusal(&refusal),
        },
        Payload::Many(items) => {
            let unexecuted = unexecuted_items(payload);
            Reply { status: 200, body: apply_many(items, state), replayed: false, unexecuted }
        }
    }))
    .unwrap_or_else(|_| {
        state.undo_after(mark);
        internal("the command panicked; nothing of it took effect, and the message was set aside")
    })
}

/// The items are refused one by one; a fault in one of them (a panic) takes back the whole array, so that what was
/// set aside can be sent again.
fn apply_many<S: State>(items: &[Result<S::Command, Problem>], state: &mut S) -> Vec<u8> {
    let mut body = vec![b'['];
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        match item.as_ref().map_err(Clone::clone).and_then(|command| state.apply(command)) {
            Ok((_, result)) => body.extend(result),
            Err(problem) => body.extend(to_json(&problem)),
        }
    }
    body.push(b']');
    body
}

/// What of an array is not valid, and so is never executed.
fn unexecuted_items<C>(payload: &Payload<C>) -> Option<Problem> {
    let Payload::Many(items) = payload else { return None };
    let mut invalid =
        items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_ref().err()?)));
    let (index, problem) = invalid.next()?;
    let detail = format!(
        "{} of {} items were not executed; the first is item {index}: {}",
        1 + invalid.count(),
        items.len(),
        problem.detail
    );
    Some(Problem { detail, ..problem.clone() })
}

/// The reply to a command that failed for a reason of ours.
pub fn internal(detail: &str) -> Reply {
    Reply::unexecuted(Problem::new(Code::INTERNAL, detail))
}

/// Cuts a reply's array into its items; used by clients.
///
/// # Errors
/// If the body is not a JSON array.
pub fn items(body: &[u8]) -> serde_json::Result<Vec<&RawValue>> {
    serde_json::from_slice(body)
}
