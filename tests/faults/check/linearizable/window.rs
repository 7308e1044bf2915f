//! Where the search for an order got stuck, for a person.

use std::fmt;

use super::{
    super::model::{State, apply},
    Call,
};

/// The end of the longest order, and what could not follow it.
pub(super) struct Window {
    text: String,
}

impl Window {
    /// Calls of the order that are told.
    pub(super) const BEFORE: usize = 6;
    /// Calls that could not follow that are told.
    const BEHIND: usize = 12;

    pub(super) fn new(
        calls: &[Call<'_>],
        length: usize,
        last: &[usize],
        state: State<'_>,
        next: &[usize],
    ) -> Self {
        let mut text = format!("The longest order has {length} of {} commands and ends with", calls.len());
        for &call in last {
            text += &format!("\n  {}", calls[call]);
        }
        text += &match state {
            Some(user) => format!("\nwhich leaves {} {} {}.", user.email, user.points, user.status),
            None => "\nwhich leaves no user.".to_owned(),
        };
        text += " Next would have to be one of";
        for &call in next.iter().take(Self::BEHIND) {
            let (_, expected) = apply(state, calls[call].action);
            text += &format!("\n  {}, would be {expected}", calls[call]);
        }
        if next.len() > Self::BEHIND {
            text += &format!("\n  and {} more", next.len() - Self::BEHIND);
        }
        Self { text }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, began, ended, answer, operation } = self;
        write!(f, "{:.6}..", began.as_secs_f64())?;
        if let Some(ended) = ended {
            write!(f, "{:.6}", ended.as_secs_f64())?;
        }
        match operation {
            Some(operation) => write!(f, " client {}: {action}, id {}", operation.client, operation.id)?,
            None => f.write_str(" the store at the end")?,
        }
        match answer {
            Some(answer) => write!(f, ": {answer}"),
            None => f.write_str(": outcome unknown"),
        }
    }
}
