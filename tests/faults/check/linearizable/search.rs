//! The search for an order, by Wing and Gong, with Lowe's list and memory of what was tried.

use std::collections::{HashMap, HashSet};

use super::{
    super::model::{State, apply},
    Call,
    line::Line,
    window::Window,
};

/// Steps after which a search is given up: so many at all, and so many for each call.
const STEPS_MAX: u64 = 2_000_000;
const STEPS_MAX_PER_CALL: u64 = 200;

/// Calls of unknown outcome that may follow one another directly. Tried in this order, as most orders need few of
/// them at a time, and the last one finds any order there is.
const BURSTS: [usize; 4] = [1, 2, 3, usize::MAX];

/// How a search ended.
pub(super) enum Ending {
    Found,
    Impossible(Window),
    Undecided(Window),
}

/// Searches an order, and counts how often a command was tried on a state.
pub(super) fn search(calls: &[Call<'_>]) -> (Ending, u64) {
    let steps_max = STEPS_MAX + STEPS_MAX_PER_CALL * calls.len() as u64;
    let has_unknown = calls.iter().any(|call| call.answer.is_none());
    let bursts = if has_unknown { &BURSTS[..] } else { &BURSTS[BURSTS.len() - 1..] };
    let mut steps = 0;
    let mut found = None;
    for &burst_max in bursts {
        let mut search = Search::new(calls, burst_max, steps_max - steps);
        let order = search.run();
        steps += search.steps;
        let window = search.best.window(calls);
        match order {
            Order::Found => return (Ending::Found, steps),
            Order::None => found = Some(Ending::Impossible(window)),
            Order::TooLong => return (Ending::Undecided(window), steps),
        }
    }
    (found.expect("at least one burst is tried"), steps)
}

enum Order {
    Found,
    None,
    TooLong,
}

/// The longest order so far, at its end.
#[derive(Default)]
struct Best<'a> {
    length: usize,
    last: Vec<usize>,
    state: State<'a>,
    next: Vec<usize>,
}

impl Best<'_> {
    fn window(&self, calls: &[Call<'_>]) -> Window {
        Window::new(calls, self.length, &self.last, self.state, &self.next)
    }
}

/// A call in the order.
struct Taken<'a> {
    call: usize,
    /// What was before it.
    state: State<'a>,
    burst: usize,
    /// It changed nothing, so no other choice can be better.
    harmless: bool,
}

struct Search<'a> {
    calls: &'a [Call<'a>],
    line: Line,
    path: Vec<Taken<'a>>,
    state: State<'a>,
    /// Calls of unknown outcome at the end of the path.
    burst: usize,
    burst_max: usize,
    answered: usize,
    /// Answered calls that are not in the path.
    left: usize,
    is_taken: Vec<bool>,
    /// The path as a set: the exclusive or of its calls' keys.
    set: u128,
    keys: Vec<u128>,
    /// For a call of unknown outcome: the one before it with the same action.
    twins: Vec<Option<usize>>,
    tried: HashSet<(u128, State<'a>, usize)>,
    steps: u64,
    steps_max: u64,
    best: Best<'a>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call<'a>], burst_max: usize, steps_max: u64) -> Self {
        let answered = calls.iter().filter(|call| call.answer.is_some()).count();
        Self {
            calls,
            line: Line::new(calls),
            path: Vec::with_capacity(calls.len()),
            state: None,
            burst: 0,
            burst_max,
            answered,
            left: answered,
            is_taken: vec![false; calls.len()],
            set: 0,
            keys: keys(calls.len()),
            twins: twins(calls),
            tried: HashSet::new(),
            steps: 0,
            steps_max,
            best: Best::default(),
        }
    }

    fn run(&mut self) -> Order {
        let mut given_up = None;
        while self.left > 0 {
            if self.steps > self.steps_max {
                return Order::TooLong;
            }
            if given_up.is_none() {
                self.take_harmless();
                if self.left == 0 {
                    break;
                }
            }
            let choice = if given_up.is_some() || self.is_new() { self.choose(given_up) } else { None };
            match choice {
                Some((call, state)) => {
                    self.take(call, state);
                    given_up = None;
                }
                None => {
                    self.note();
                    given_up = self.give_up();
                    if given_up.is_none() {
                        return Order::None;
                    }
                }
            }
        }
        Order::Found
    }

    /// Takes what is answered rightly and changes nothing. In any order it can be moved here, so nothing else has to
    /// be tried in its place.
    fn take_harmless(&mut self) {
        while let Some(call) = self.harmless() {
            self.take(call, self.state);
        }
    }

    fn harmless(&mut self) -> Option<usize> {
        let (line, calls, state) = (&self.line, self.calls, self.state);
        line.candidates().find(|&call| {
            self.steps += 1;
            let (after, expected) = apply(state, calls[call].action);
            let is_right = |answer: &super::Seen| answer.is(&expected, calls[call].action.username());
            after == state && calls[call].answer.as_ref().is_some_and(is_right)
        })
    }

    /// Whether nothing was tried from here yet.
    fn is_new(&mut self) -> bool {
        // Without a bound it does not matter how many of unknown outcome came last.
        let burst = if self.burst_max == usize::MAX { 0 } else { self.burst };
        self.tried.insert((self.set, self.state, burst))
    }

    /// The next call that changes something: first answered ones, then those of unknown outcome; behind the one that
    /// was given up.
    fn choose(&mut self, given_up: Option<usize>) -> Option<(usize, State<'a>)> {
        let (calls, state) = (self.calls, self.state);
        let may_be_unknown = self.burst < self.burst_max;
        let answered = self.line.candidates().filter(|&call| calls[call].answer.is_some());
        let unknown = self.line.candidates().filter(|&call| {
            // Of several that do the same the first is as good as any.
            let is_first = self.twins[call].is_none_or(|twin| self.is_taken[twin]);
            may_be_unknown && calls[call].answer.is_none() && is_first
        });
        let mut choices = answered.chain(unknown);
        if let Some(given_up) = given_up {
            choices.find(|call| *call == given_up);
        }
        let mut steps = 0;
        let choice = choices.find_map(|call| {
            steps += 1;
            let (after, expected) = apply(state, calls[call].action);
            let answer = calls[call].answer.as_ref();
            let is_right = answer.is_none_or(|answer| answer.is(&expected, calls[call].action.username()));
            (is_right && after != state).then_some((call, after))
        });
        self.steps += steps;
        choice
    }

    fn take(&mut self, call: usize, state: State<'a>) {
        let harmless = state == self.state;
        self.path.push(Taken { call, state: self.state, burst: self.burst, harmless });
        self.line.take_out(call);
        self.state = state;
        let is_answered = self.calls[call].answer.is_some();
        self.burst = if is_answered { 0 } else { self.burst + 1 };
        self.mark(call, true);
    }

    /// Goes back to the last choice that had an alternative, and returns what was chosen there.
    fn give_up(&mut self) -> Option<usize> {
        while let Some(Taken { call, state, burst, harmless }) = self.path.pop() {
            self.line.put_back(call);
            (self.state, self.burst) = (state, burst);
            self.mark(call, false);
            if !harmless {
                return Some(call);
            }
        }
        None
    }

    fn mark(&mut self, call: usize, is_taken: bool) {
        self.is_taken[call] = is_taken;
        self.set ^= self.keys[call];
        if self.calls[call].answer.is_some() {
            self.left = if is_taken { self.left - 1 } else { self.left + 1 };
        }
    }

    /// Remembers the longest order, for the report.
    fn note(&mut self) {
        let length = self.answered - self.left;
        if length > self.best.length || self.best.next.is_empty() {
            let last = self.path.iter().rev().take(Window::BEFORE).rev().map(|taken| taken.call).collect();
            let next = self.line.candidates().collect();
            self.best = Best { length, last, state: self.state, next };
        }
    }
}

/// A random number for each call, so that a set of calls is told by their exclusive or. With 128 bits no two sets
/// that a search meets have the same.
fn keys(count: usize) -> Vec<u128> {
    let mut random = fastrand::Rng::with_seed(0);
    (0..count).map(|_| random.u128(..)).collect()
}

fn twins(calls: &[Call<'_>]) -> Vec<Option<usize>> {
    let mut order: Vec<_> = (0..calls.len()).filter(|&call| calls[call].answer.is_none()).collect();
    order.sort_by_key(|&call| (calls[call].began, call));
    let mut last = HashMap::new();
    let mut twins = vec![None; calls.len()];
    for call in order {
        twins[call] = last.insert(calls[call].action, call);
    }
    twins
}
