//! An order as far as it has come, and how to take it back.

use super::{super::model::State, Call, line::Line};

/// What becomes of a call, in the order in which it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// It has to come at some time, and comes now.
    Needed,
    /// It is explained, and nevertheless changes something now.
    Explained,
    /// It is explained, and nothing else comes of it.
    Dropped,
    /// Nobody was told what came of it; it takes effect now.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice<'a> {
    pub(super) call: usize,
    pub(super) kind: Kind,
    /// The state afterwards.
    pub(super) state: State<'a>,
}

enum Step<'a> {
    /// It was put into the order, and nothing else had to be tried in its place.
    Harmless(usize),
    Explained(usize),
    /// With the state before it.
    Chosen(Choice<'a>, State<'a>),
}

pub(super) struct Path<'a> {
    /// What is not in it.
    pub(super) line: Line,
    pub(super) state: State<'a>,
    /// Answered calls that are neither in it nor explained.
    pub(super) needed: usize,
    pub(super) is_explained: Vec<bool>,
    /// What is in it and what is explained: the exclusive or of keys, two for each call.
    pub(super) set: u128,
    keys: Vec<[u128; 2]>,
    /// How many calls are in it.
    pub(super) length: usize,
    steps: Vec<Step<'a>>,
}

impl<'a> Path<'a> {
    pub(super) fn new(calls: &[Call<'a>]) -> Self {
        // With 128 random bits no two sets that a search meets are the same.
        let mut random = fastrand::Rng::with_seed(0);
        Self {
            line: Line::new(calls),
            state: None,
            needed: calls.iter().filter(|call| call.answer.is_some()).count(),
            is_explained: vec![false; calls.len()],
            set: 0,
            keys: calls.iter().map(|_| [random.u128(..), random.u128(..)]).collect(),
            length: 0,
            steps: Vec::with_capacity(calls.len()),
        }
    }

    /// The calls at its end.
    pub(super) fn last(&self, most: usize) -> Vec<usize> {
        let calls = self.steps.iter().rev().filter_map(|step| match step {
            Step::Harmless(call) => Some(*call),
            Step::Chosen(choice, _) => Some(choice.call),
            Step::Explained(_) => None,
        });
        let mut last: Vec<_> = calls.take(most).collect();
        last.reverse();
        last
    }

    pub(super) fn take_harmless(&mut self, call: usize) {
        self.steps.push(Step::Harmless(call));
        self.take_out(call);
        self.needed -= 1;
        self.set ^= self.keys[call][0];
    }

    pub(super) fn explain(&mut self, call: usize) {
        self.steps.push(Step::Explained(call));
        self.is_explained[call] = true;
        self.needed -= 1;
        self.set ^= self.keys[call][1];
    }

    pub(super) fn take(&mut self, choice: Choice<'a>) {
        self.steps.push(Step::Chosen(choice, self.state));
        self.take_out(choice.call);
        self.state = choice.state;
        self.needed -= usize::from(choice.kind == Kind::Needed);
        self.toggle(choice);
    }

    /// Goes back to before the last choice, and returns it.
    pub(super) fn give_up(&mut self) -> Option<Choice<'a>> {
        loop {
            match self.steps.pop()? {
                Step::Harmless(call) => {
                    self.put_back(call);
                    self.needed += 1;
                    self.set ^= self.keys[call][0];
                }
                Step::Explained(call) => {
                    self.is_explained[call] = false;
                    self.needed += 1;
                    self.set ^= self.keys[call][1];
                }
                Step::Chosen(choice, state_before) => {
                    self.put_back(choice.call);
                    self.state = state_before;
                    self.needed += usize::from(choice.kind == Kind::Needed);
                    self.toggle(choice);
                    return Some(choice);
                }
            }
        }
    }

    fn take_out(&mut self, call: usize) {
        self.line.take_out(call);
        self.length += 1;
    }

    fn put_back(&mut self, call: usize) {
        self.line.put_back(call);
        self.length -= 1;
    }

    /// What was explained and is done with is as if it had been taken at once.
    fn toggle(&mut self, choice: Choice<'a>) {
        self.set ^= self.keys[choice.call][0];
        if matches!(choice.kind, Kind::Explained | Kind::Dropped) {
            self.set ^= self.keys[choice.call][1];
        }
    }
}
