//! Checkers: what a history and the end state must fulfil, whatever went wrong in between.
//!
//! The history has to be whole: every command that was sent to the store is an operation of it. None of the checks
//! calls the program; what a user is stands anew in `model.rs`.

mod conservation;
mod effects;
pub mod end;
pub mod linearizable;
mod model;
pub mod outcome;
mod replies;
pub mod transfers;

use super::history;

pub use conservation::conservation;
pub use effects::{effects, inbox};
pub use end::End;
pub use linearizable::linearizable;
pub use replies::{recording, same_replies, strays};

use history::History;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule is broken.
    pub check: &'static str,
    /// By whom: the id, the user, the values.
    pub detail: String,
}

impl Violation {
    fn new(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, detail: detail.into() }
    }
}

/// Violations of one rule that are told one by one.
const TOLD_MAX: usize = 8;

/// Everything that is wrong with a run; nothing, if it is right.
pub fn all(history: &History, end: &End) -> Vec<Violation> {
    let recording = recording(history);
    if !recording.is_empty() {
        // The other checks would blame the program for what the driver wrote down.
        return shortened(recording);
    }
    let found = [
        strays(history),
        same_replies(history),
        inbox(history, end),
        conservation(history, end),
        effects(history, end),
        linearizable(history, Some(end)),
    ];
    shortened(found.concat())
}

/// The first violations of each rule, and how many more there are.
fn shortened(found: Vec<Violation>) -> Vec<Violation> {
    let mut counts: Vec<(&'static str, usize)> = Vec::new();
    let mut told = Vec::new();
    for violation in found {
        let check = violation.check;
        let position = counts.iter().position(|(name, _)| *name == check).unwrap_or_else(|| {
            counts.push((check, 0));
            counts.len() - 1
        });
        counts[position].1 += 1;
        if counts[position].1 <= TOLD_MAX {
            told.push(violation);
        }
    }
    for (check, count) in counts.into_iter().filter(|(_, count)| *count > TOLD_MAX) {
        told.push(Violation::new(check, format!("and {} more", count - TOLD_MAX)));
    }
    told
}
