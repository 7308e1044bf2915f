//! The end state holds the effect of every command that succeeded, once.

use std::collections::BTreeMap;

use super::{
    End, Violation,
    history::{Action, History, Operation},
    outcome::{Outcome, Seen, inbox_row, is_remembered},
};

/// `inbox`: what was answered for good is remembered, with the same status and body.
pub fn inbox(history: &History, end: &End) -> Vec<Violation> {
    let mut found = Vec::new();
    for operation in history.operations.iter().filter(|operation| !operation.action.is_read()) {
        let Outcome::Answered(answer) = Outcome::of(operation) else { continue };
        if !is_remembered(answer) {
            continue;
        }
        let answered = Seen::of(answer.status, &answer.body);
        let wrong = match inbox_row(end, operation) {
            None => "but is not in the inbox".to_owned(),
            Some(row) if (row.status, &row.body) != (answer.status, &answer.body) => {
                format!("but the inbox holds {}", Seen::of(row.status, &row.body))
            }
            Some(_) => continue,
        };
        let text = format!("{} with id {} was answered {answered}, {wrong}", operation.action, operation.id);
        found.push(Violation::new("inbox", text));
    }
    found
}

/// `doubled` and `lost`: each user has what the commands that succeeded give together, no more and no less.
pub fn effects(history: &History, end: &End) -> Vec<Violation> {
    let mut accounts: BTreeMap<&str, Account<'_>> = BTreeMap::new();
    for operation in history.operations.iter().filter(|operation| !operation.action.is_read()) {
        let account = accounts.entry(operation.action.username()).or_default();
        account.book(operation, succeeded(operation, end));
    }
    for username in end.users.keys() {
        accounts.entry(username).or_default();
    }
    accounts.iter().filter_map(|(username, account)| account.check(username, end)).collect()
}

/// Whether an operation took effect, by its answer, and by the inbox where none came.
fn succeeded(operation: &Operation, end: &End) -> bool {
    match Outcome::of(operation) {
        Outcome::Answered(answer) => answer.status < 400,
        Outcome::Nothing => false,
        Outcome::Unknown => inbox_row(end, operation).is_some_and(|row| row.status < 400),
    }
}

/// The operations on one user that change points.
#[derive(Default)]
struct Account<'a> {
    created: Vec<(&'a str, i64)>,
    awarded: Vec<(&'a str, i64)>,
    without_effect: Vec<(&'a str, i64)>,
}

impl<'a> Account<'a> {
    fn book(&mut self, operation: &'a Operation, succeeded: bool) {
        let (points, list) = match operation.action {
            Action::Create { points, .. } if succeeded => (points, &mut self.created),
            Action::Award { points, .. } if succeeded => (points, &mut self.awarded),
            Action::Award { points, .. } => (points, &mut self.without_effect),
            Action::Create { .. } | Action::Promote { .. } | Action::Get { .. } => return,
        };
        list.push((&operation.id, points));
    }

    fn check(&self, username: &str, end: &End) -> Option<Violation> {
        let row = end.users.get(username);
        let (check, text) = match (self.created.as_slice(), row) {
            ([], None) => return None,
            ([], Some(_)) => ("doubled", "exists, though no create succeeded".to_owned()),
            ([(id, _)], None) => ("lost", format!("was created with id {id} and does not exist")),
            ([(_, opening)], Some(row)) => return self.check_balance(username, *opening, row.points),
            (several, _) => {
                ("doubled", format!("was created {} times, with ids {}", several.len(), ids(several)))
            }
        };
        Some(Violation::new(check, format!("user {username} {text}")))
    }

    fn check_balance(&self, username: &str, opening: i64, points: i64) -> Option<Violation> {
        let expected = opening + self.awarded.iter().map(|(_, points)| points).sum::<i64>();
        let more = points - expected;
        if more == 0 {
            return None;
        }
        let among = |list: &[(&'a str, i64)], wanted: i64| -> Vec<_> {
            list.iter().copied().filter(|(_, points)| *points == wanted).collect()
        };
        let twice = among(&self.awarded, more);
        let uncalled = among(&self.without_effect, more);
        let missing = among(&self.awarded, -more);
        // A single award that explains the difference tells more than its sign, as awards may be negative.
        let is_doubled = match (twice.is_empty() && uncalled.is_empty(), missing.is_empty()) {
            (false, true) => true,
            (true, false) => false,
            _ => more > 0,
        };
        let mut text = format!(
            "user {username} has {points} points; {opening} at first and {} awards make {expected}",
            self.awarded.len()
        );
        for (what, list) in
            [("twice", twice), ("although it did not succeed", uncalled), ("not at all", missing)]
        {
            if !list.is_empty() {
                text += &format!("; may have taken effect {what}: {}", ids(&list));
            }
        }
        Some(Violation::new(if is_doubled { "doubled" } else { "lost" }, text))
    }
}

/// The first of several ids.
fn ids(list: &[(&str, i64)]) -> String {
    let told: Vec<_> = list.iter().take(5).map(|(id, _)| *id).collect();
    let rest = if list.len() > told.len() { ", …" } else { "" };
    told.join(", ") + rest
}
