//! The search for an order, by Wing and Gong, with Lowe's list and memory of what was tried.
//!
//! Three thoughts keep it from going astray. What can change nothing is taken as soon as it can be. A `promote` that
//! *could* have changed nothing at some moment is explained from then on, but may still turn out to be the one that
//! changed something later. And what ends soon is tried before what may come at any time.

use std::collections::{HashMap, HashSet};

use super::{
    super::model::State,
    Call,
    path::{Choice, Kind, Path},
    window::Window,
};

/// Steps after which a search is given up: so many at all, and so many for each call.
const STEPS_MAX: u64 = 5_000_000;
const STEPS_MAX_PER_CALL: u64 = 1_000;

/// How a search ended.
pub(super) enum Ending {
    Found,
    Impossible(Window),
    Undecided(Window),
}

/// Searches an order, and counts how often a command was tried on a state.
pub(super) fn search(calls: &[Call<'_>]) -> (Ending, u64) {
    let mut search = Search::new(calls);
    let ending = match search.run() {
        Order::Found => Ending::Found,
        Order::None => Ending::Impossible(search.window()),
        Order::TooLong => Ending::Undecided(search.window()),
    };
    (ending, search.steps)
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

struct Search<'a> {
    calls: &'a [Call<'a>],
    path: Path<'a>,
    /// The same for calls that do the same and are answered the same.
    classes: Vec<usize>,
    tried: HashSet<(u128, State<'a>)>,
    steps: u64,
    steps_max: u64,
    best: Best<'a>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call<'a>]) -> Self {
        Self {
            calls,
            path: Path::new(calls),
            classes: classes(calls),
            tried: HashSet::new(),
            steps: 0,
            steps_max: STEPS_MAX + STEPS_MAX_PER_CALL * calls.len() as u64,
            best: Best::default(),
        }
    }

    fn run(&mut self) -> Order {
        let mut given_up = None;
        loop {
            if given_up.is_none() {
                self.do_forced();
            }
            if self.path.needed == 0 {
                return Order::Found;
            }
            if self.steps > self.steps_max {
                self.note();
                return Order::TooLong;
            }
            let choice = if given_up.is_some() || self.is_new() { self.choose(given_up) } else { None };
            given_up = None;
            if let Some(choice) = choice {
                self.path.take(choice);
            } else {
                self.note();
                given_up = self.path.give_up();
                if given_up.is_none() {
                    return Order::None;
                }
            }
        }
    }

    /// Does what is right here whatever comes later.
    fn do_forced(&mut self) {
        while let Some(call) = self.forced() {
            if self.calls[call].is_harmless() {
                self.path.take_harmless(call);
            } else {
                self.path.explain(call);
            }
        }
    }

    /// A call that is answered rightly here and need not change anything.
    fn forced(&mut self) -> Option<usize> {
        let (calls, path) = (self.calls, &self.path);
        let may_be = |call: &usize| calls[*call].may_be_harmless() && !path.is_explained[*call];
        let mut steps = 0;
        let forced = path.line.candidates().filter(may_be).find(|&call| {
            steps += 1;
            calls[call].follows(path.state) == Some(path.state)
        });
        self.steps += steps;
        forced
    }

    /// Whether nothing was tried from here yet.
    fn is_new(&mut self) -> bool {
        self.tried.insert((self.path.set, self.path.state))
    }

    /// The next choice, behind the one that was given up.
    fn choose(&mut self, given_up: Option<Choice<'a>>) -> Option<Choice<'a>> {
        let mut choices = self.choices();
        choices.sort_by_key(|choice| {
            let ended = self.calls[choice.call].ended;
            (choice.kind, ended.is_none(), ended)
        });
        // Of several that are alike the first to end is as good as any.
        let mut seen = HashSet::new();
        choices.retain(|choice| seen.insert((choice.kind, self.classes[choice.call])));
        let mut choices = choices.into_iter();
        if given_up.is_some() {
            choices.find(|choice| Some(*choice) == given_up);
        }
        choices.next()
    }

    fn choices(&mut self) -> Vec<Choice<'a>> {
        let path = &self.path;
        let mut choices = Vec::new();
        for call in path.line.candidates() {
            let kind = match self.calls[call].answer {
                None => Kind::Unknown,
                Some(_) if path.is_explained[call] => Kind::Explained,
                Some(_) => Kind::Needed,
            };
            self.steps += 1;
            if let Some(state) = self.calls[call].follows(path.state)
                && (kind != Kind::Explained || state != path.state)
            {
                choices.push(Choice { call, kind, state });
            }
        }
        // To drop one can wait until its end stands in the way.
        if let Some(call) = path.line.first_to_end().filter(|&call| path.is_explained[call]) {
            choices.push(Choice { call, kind: Kind::Dropped, state: path.state });
        }
        choices
    }

    /// Remembers the longest order.
    fn note(&mut self) {
        if self.path.length > self.best.length || self.best.next.is_empty() {
            self.best = Best {
                length: self.path.length,
                last: self.path.last(Window::BEFORE),
                state: self.path.state,
                next: self.path.line.candidates().collect(),
            };
        }
    }

    fn window(&self) -> Window {
        let Best { length, last, state, next } = &self.best;
        Window::new(self.calls, *length, last, *state, next)
    }
}

fn classes(calls: &[Call<'_>]) -> Vec<usize> {
    let mut known = HashMap::new();
    let mut class = |call| {
        let fresh = known.len();
        *known.entry(call).or_insert(fresh)
    };
    calls.iter().map(|call| class((call.action, &call.answer))).collect()
}
