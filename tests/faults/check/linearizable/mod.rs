//! Whether the replies about each user can be explained by carrying out the commands one after another, each at some
//! moment between its sending and its reply.
//!
//! Users do not know of each other, so each is looked at alone: what is linearizable in its parts is so as a whole.

mod line;
mod path;
mod search;
mod window;

use std::{collections::BTreeMap, time::Duration};

use super::{
    End, Violation,
    history::{Action, History, Moment, Operation},
    model::{State, apply},
    outcome::{Outcome, Seen, inbox_row, is_transient},
};
use search::{Ending, search};

/// An operation, as far as the search is concerned.
#[derive(Debug)]
struct Call<'a> {
    action: &'a Action,
    began: Moment,
    /// `None`: still under way at the end.
    ended: Option<Moment>,
    /// `None`: it may take effect or not.
    answer: Option<Seen>,
    /// `None`: the look into the store at the end.
    operation: Option<&'a Operation>,
}

impl<'a> Call<'a> {
    /// The state after it, if it can be carried out on this one. Without an answer it has to change something, as it
    /// is not needed else.
    fn follows(&self, state: State<'a>) -> Option<State<'a>> {
        let (after, expected) = apply(state, self.action);
        let can_be = match &self.answer {
            Some(answer) => answer.is(&expected, self.action.username()),
            None => after != state,
        };
        can_be.then_some(after)
    }

    /// Whether, answered so, it changes nothing.
    fn is_harmless(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.is_refusal() || self.action.is_read())
    }

    /// Whether, answered so, there is a state on which it changes nothing.
    fn may_be_harmless(&self) -> bool {
        self.is_harmless() || (self.answer.is_some() && matches!(self.action, Action::Promote { .. }))
    }
}

/// What the search found about one user.
pub struct Searched {
    pub username: String,
    /// How often a command was tried on a state.
    pub steps: u64,
    ending: Ending,
}

impl Searched {
    /// Why there is no order, if there is none.
    pub fn violation(&self) -> Option<Violation> {
        let Self { username, steps, ending } = self;
        match ending {
            Ending::Found => None,
            Ending::Impossible(window) => {
                let text =
                    format!("user {username}: no order of the commands explains the replies. {window}");
                Some(Violation::new("linearizable", text))
            }
            Ending::Undecided(window) => {
                let text = format!("user {username}: no order was found in {steps} steps. {window}");
                Some(Violation::new("undecided", text))
            }
        }
    }
}

/// `linearizable`: an order explains all replies about each user. `undecided`: none was found in reasonable time.
///
/// With the end state, operations whose outcome nobody was told are known by the inbox: they took effect with the reply
/// that stands there, or not at all; and the stored user is what a last `get` has to see. Without it they may take
/// effect at any time, or never.
pub fn linearizable(history: &History, end: Option<&End>) -> Vec<Violation> {
    searched(history, end).iter().filter_map(Searched::violation).collect()
}

/// Searches an order for each user.
pub fn searched(history: &History, end: Option<&End>) -> Vec<Searched> {
    let mut by_user: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        by_user.entry(operation.action.username()).or_default().push(operation);
    }
    let over = last_moment(history);
    let search_user = |(username, operations): (&str, Vec<&Operation>)| {
        let last_look = Action::Get { username: username.to_owned() };
        let mut calls: Vec<_> = operations.iter().flat_map(|operation| calls(operation, end, over)).collect();
        if let Some(end) = end {
            let (began, answer) = (over + Duration::from_nanos(1), Some(Seen::row(username, end)));
            calls.push(Call { action: &last_look, began, ended: None, answer, operation: None });
        }
        let (ending, steps) = search(&calls);
        Searched { username: username.to_owned(), steps, ending }
    };
    by_user.into_iter().map(search_user).collect()
}

fn last_moment(history: &History) -> Moment {
    let moments = history
        .operations
        .iter()
        .flat_map(|operation| operation.replies.iter().map(|answer| answer.at).chain([operation.began]));
    moments.max().unwrap_or_default()
}

/// What an operation is in the search: one call; none, if it had no effect; several, if a read was answered repeatedly.
fn calls<'a>(operation: &'a Operation, end: Option<&End>, over: Moment) -> Vec<Call<'a>> {
    let call = |ended: Option<Moment>, answer: Option<Seen>| Call {
        action: &operation.action,
        began: operation.began,
        ended,
        answer,
        operation: Some(operation),
    };
    if operation.action.is_read() {
        // Each repetition reads afresh, at some moment between the first sending and its own reply.
        let replies = operation.replies.iter().filter(|answer| !is_transient(answer));
        return replies
            .map(|answer| call(Some(answer.at), Some(Seen::of(answer.status, &answer.body))))
            .collect();
    }
    match (Outcome::of(operation), end) {
        (Outcome::Answered(answer), _) => {
            vec![call(Some(answer.at), Some(Seen::of(answer.status, &answer.body)))]
        }
        (Outcome::Nothing, _) => Vec::new(),
        (Outcome::Unknown, None) => vec![call(None, None)],
        (Outcome::Unknown, Some(end)) => {
            let row = inbox_row(end, operation).into_iter();
            row.map(|row| call(Some(over), Some(Seen::of(row.status, &row.body)))).collect()
        }
    }
}
