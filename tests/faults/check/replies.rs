//! What replies must be among themselves.

use std::collections::HashSet;

use super::{
    Violation,
    history::{Answer, History, Operation},
    outcome::{Seen, is_remembered, is_transient},
};

/// `recording`: the history itself can be what clients saw.
pub fn recording(history: &History) -> Vec<Violation> {
    let mut ids = HashSet::new();
    let mut found = Vec::new();
    for operation in &history.operations {
        let Operation { action, id, began, sends, replies, .. } = operation;
        let times = [*began].into_iter().chain(replies.iter().map(|answer| answer.at));
        let wrong = if !ids.insert((action.command(), id)) {
            "stands in the history twice; sendings with one id are one operation"
        } else if !times.is_sorted() {
            "was answered before it was sent, or its replies are not in order"
        } else if *sends == 0 && !replies.is_empty() {
            "was answered but never sent"
        } else {
            continue;
        };
        found.push(Violation::new("recording", format!("{action} with id {id} {wrong}")));
    }
    found
}

/// `strays`: no reply without a request.
pub fn strays(history: &History) -> Vec<Violation> {
    let stray =
        |id: &String| Violation::new("strays", format!("a reply with correlation id {id} that nobody asked"));
    history.strays.iter().map(stray).collect()
}

/// `same_replies`: all replies to an id are the same one, of the command's kind. `doubled`: two of them were no
/// repetition, so the command was carried out twice.
pub fn same_replies(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for operation in &history.operations {
        let named = |text: String| format!("{} with id {}: {text}", operation.action, operation.id);
        let kind = format!("users.{}.reply", operation.action.command());
        if let Some(other) = operation.replies.iter().find(|answer| answer.kind != kind) {
            let text = format!("a reply is of kind {:?}, not {kind:?}", other.kind);
            found.push(Violation::new("same_replies", named(text)));
        }
        if operation.action.is_read() {
            continue;
        }
        let mut lasting = operation.replies.iter().filter(|answer| !is_transient(answer));
        if let Some(first) = lasting.next()
            && let Some(other) = lasting.find(|answer| !is_same(answer, first))
        {
            let text = format!("answered with {}, then with {}", seen(first), seen(other));
            found.push(Violation::new("same_replies", named(text)));
        }
        let fresh =
            operation.replies.iter().filter(|answer| is_remembered(answer) && !answer.replayed).count();
        if fresh > 1 {
            let text = format!("{fresh} replies that are no repetition, so it was carried out {fresh} times");
            found.push(Violation::new("doubled", named(text)));
        }
    }
    found
}

fn is_same(one: &Answer, other: &Answer) -> bool {
    (one.status, &one.kind, &one.body) == (other.status, &other.kind, &other.body)
}

fn seen(answer: &Answer) -> Seen {
    Seen::of(answer.status, &answer.body)
}
