//! The search for an order, by Wing and Gong, with Lowe's list and memory of what was tried.
//!
//! Three thoughts keep it from going astray. What can change nothing is taken as soon as it can be. A `promote` that
//! *could* have changed nothing at some moment is explained from then on, but may still turn out to be the one that
//! changed something later. And what ends soon is tried before what may come at any time.

use std::collections::{HashMap, HashSet};

use super::{super::model::State, Call, line::Line, window::Window};

/// Steps after which a search is given up: so many at all, and so many for each call.
const STEPS_MAX: u64 = 5_000_000;
const STEPS_MAX_PER_CALL: u64 = 1_000;

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

/// What may be done next, in the order in which it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    /// It has to come at some time.
    Needed,
    /// It is explained, and nevertheless changes something now.
    Explained,
    /// It is explained, and nothing else comes of it.
    Dropped,
    /// Nobody knows what came of it.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice<'a> {
    call: usize,
    kind: Kind,
    /// The state afterwards.
    state: State<'a>,
}

/// A step of the path, and what it takes to undo it.
enum Step<'a> {
    /// Nothing else had to be tried in its place.
    Forced(usize),
    Explained(usize),
    Chosen(Choice<'a>, Before<'a>),
}

#[derive(Clone, Copy)]
struct Before<'a> {
    state: State<'a>,
    burst: usize,
}

struct Search<'a> {
    calls: &'a [Call<'a>],
    line: Line,
    path: Vec<Step<'a>>,
    state: State<'a>,
    /// Calls of unknown outcome at the end of the path.
    burst: usize,
    burst_max: usize,
    /// Answered calls that are neither in the path nor explained.
    needed: usize,
    is_explained: Vec<bool>,
    /// What is in the path and what is explained: the exclusive or of keys, two for each call.
    set: u128,
    keys: Vec<[u128; 2]>,
    /// The same for calls that do the same and are answered the same.
    classes: Vec<usize>,
    tried: HashSet<(u128, State<'a>, usize)>,
    steps: u64,
    steps_max: u64,
    best: Best<'a>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call<'a>], burst_max: usize, steps_max: u64) -> Self {
        // Random numbers: with 128 bits no two sets that a search meets are the same.
        let mut random = fastrand::Rng::with_seed(0);
        let mut classes = HashMap::new();
        Self {
            calls,
            line: Line::new(calls),
            path: Vec::with_capacity(calls.len()),
            state: None,
            burst: 0,
            burst_max,
            needed: calls.iter().filter(|call| call.answer.is_some()).count(),
            is_explained: vec![false; calls.len()],
            set: 0,
            keys: calls.iter().map(|_| [random.u128(..), random.u128(..)]).collect(),
            classes: calls
                .iter()
                .map(|call| {
                    let fresh = classes.len();
                    *classes.entry((call.action, &call.answer)).or_insert(fresh)
                })
                .collect(),
            tried: HashSet::new(),
            steps: 0,
            steps_max,
            best: Best::default(),
        }
    }

    fn run(&mut self) -> Order {
        let mut given_up = None;
        loop {
            if given_up.is_none() {
                self.do_forced();
            }
            if self.needed == 0 {
                return Order::Found;
            }
            if self.steps > self.steps_max {
                return Order::TooLong;
            }
            let choice = if given_up.is_some() || self.is_new() { self.choose(given_up) } else { None };
            given_up = None;
            if let Some(choice) = choice {
                self.take(choice);
            } else {
                self.note();
                given_up = self.give_up();
                if given_up.is_none() {
                    return Order::None;
                }
            }
        }
    }

    /// Does what is right here whatever comes later.
    fn do_forced(&mut self) {
        while let Some(call) = self.forced() {
            self.needed -= 1;
            if self.calls[call].is_harmless() {
                self.path.push(Step::Forced(call));
                self.line.take_out(call);
                self.set ^= self.keys[call][0];
            } else {
                self.path.push(Step::Explained(call));
                self.is_explained[call] = true;
                self.set ^= self.keys[call][1];
            }
        }
    }

    /// A call that is answered rightly here and need not change anything.
    fn forced(&mut self) -> Option<usize> {
        let (calls, is_explained) = (self.calls, &self.is_explained);
        let may_be = |call: &usize| calls[*call].may_be_harmless() && !is_explained[*call];
        let mut steps = 0;
        let forced = self.line.candidates().filter(may_be).find(|&call| {
            steps += 1;
            calls[call].follows(self.state) == Some(self.state)
        });
        self.steps += steps;
        forced
    }

    /// Whether nothing was tried from here yet.
    fn is_new(&mut self) -> bool {
        // Without a bound it does not matter how many of unknown outcome came last.
        let burst = if self.burst_max == usize::MAX { 0 } else { self.burst };
        self.tried.insert((self.set, self.state, burst))
    }

    /// The next choice, behind the one that was given up.
    fn choose(&mut self, given_up: Option<Choice<'a>>) -> Option<Choice<'a>> {
        let mut choices = Vec::new();
        for call in self.line.candidates() {
            let kind = match self.calls[call].answer {
                None if self.burst >= self.burst_max => continue,
                None => Kind::Unknown,
                Some(_) if self.is_explained[call] => Kind::Explained,
                Some(_) => Kind::Needed,
            };
            self.steps += 1;
            if let Some(state) = self.calls[call].follows(self.state)
                && (kind != Kind::Explained || state != self.state)
            {
                choices.push(Choice { call, kind, state });
            }
        }
        // It can wait until its end stands in the way.
        if let Some(call) = self.line.first_to_end().filter(|&call| self.is_explained[call]) {
            choices.push(Choice { call, kind: Kind::Dropped, state: self.state });
        }
        choices.sort_by_key(|choice| {
            let ended = self.calls[choice.call].ended;
            (choice.kind, ended.is_none(), ended)
        });
        // Of several that are alike the first to end is as good as any.
        let mut seen = HashSet::new();
        choices.retain(|choice| seen.insert((choice.kind, self.classes[choice.call])));
        let start = given_up.map_or(0, |given_up| {
            choices.iter().position(|choice| *choice == given_up).map_or(choices.len(), |index| index + 1)
        });
        choices.get(start).copied()
    }

    fn take(&mut self, choice: Choice<'a>) {
        self.path.push(Step::Chosen(choice, Before { state: self.state, burst: self.burst }));
        self.line.take_out(choice.call);
        self.state = choice.state;
        match choice.kind {
            Kind::Unknown => self.burst += 1,
            Kind::Needed => (self.needed, self.burst) = (self.needed - 1, 0),
            Kind::Explained => self.burst = 0,
            Kind::Dropped => {}
        }
        self.toggle(choice);
    }

    /// Goes back to the last choice, and returns it.
    fn give_up(&mut self) -> Option<Choice<'a>> {
        loop {
            match self.path.pop()? {
                Step::Forced(call) => {
                    self.line.put_back(call);
                    self.needed += 1;
                    self.set ^= self.keys[call][0];
                }
                Step::Explained(call) => {
                    self.is_explained[call] = false;
                    self.needed += 1;
                    self.set ^= self.keys[call][1];
                }
                Step::Chosen(choice, before) => {
                    self.line.put_back(choice.call);
                    Before { state: self.state, burst: self.burst } = before;
                    self.needed += usize::from(choice.kind == Kind::Needed);
                    self.toggle(choice);
                    return Some(choice);
                }
            }
        }
    }

    /// What was explained and is done with is as if it had been taken at once.
    fn toggle(&mut self, choice: Choice<'a>) {
        self.set ^= self.keys[choice.call][0];
        if matches!(choice.kind, Kind::Explained | Kind::Dropped) {
            self.set ^= self.keys[choice.call][1];
        }
    }

    /// Remembers the longest order, for the report.
    fn note(&mut self) {
        let order = self.path.iter().filter_map(|step| match step {
            Step::Forced(call) => Some(*call),
            Step::Chosen(choice, _) => Some(choice.call),
            Step::Explained(_) => None,
        });
        if self.path.len() > self.best.length || self.best.next.is_empty() {
            let mut last: Vec<_> = order.rev().take(Window::BEFORE).collect();
            last.reverse();
            let next = self.line.candidates().collect();
            self.best = Best { length: self.path.len(), last, state: self.state, next };
        }
    }
}
