//! Whether the replies about some accounts can be explained by carrying out the commands one after another, each at some moment
//! between its sending and its reply. A reply to a transfer shows both balances, so half a transfer cannot be explained, nor one
//! that took effect twice.
//!
//! The bank is looked at as one thing: what is so for it is so for each account. Wing and Gong's search with Lowe's memory.

use std::collections::HashSet;

use super::history::Moment;

/// How many accounts there are.
pub const ACCOUNTS: usize = 4;
/// The balance of each account.
pub type Balances = [i64; ACCOUNTS];

/// What a client asked for, by the number of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Get(usize),
    Transfer { from: usize, to: usize, amount: i64 },
}

/// What it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Balance(i64),
    /// Of the two accounts, afterwards.
    Balances(i64, i64),
    TooLittle,
    SameAccount,
}

/// A command that was answered.
#[derive(Debug, Clone)]
pub struct Done {
    pub ask: Ask,
    pub told: Told,
    pub began: Moment,
    pub ended: Moment,
}

impl Done {
    /// The balances afterwards, if these before can have led to this answer.
    fn follows(&self, before: Balances) -> Option<Balances> {
        let mut after = before;
        let expected = match self.ask {
            Ask::Get(account) => Told::Balance(before[account]),
            Ask::Transfer { from, to, .. } if from == to => Told::SameAccount,
            Ask::Transfer { from, amount, .. } if before[from] < amount => Told::TooLittle,
            Ask::Transfer { from, to, amount } => {
                after[from] -= amount;
                after[to] += amount;
                Told::Balances(after[from], after[to])
            }
        };
        (expected == self.told).then_some(after)
    }

    fn is_harmless(&self) -> bool {
        !matches!(self.told, Told::Balances(..))
    }
}

/// Steps after which the search is given up.
const STEPS_MAX: usize = 20_000_000;

/// Why there is no order that explains everything, if there is none.
pub fn unexplained(start: Balances, history: &[Done]) -> Option<String> {
    let mut history: Vec<_> = history.iter().collect();
    history.sort_by_key(|done| done.began);
    let mut search = Search::new(start, &history);
    while search.placed < history.len() {
        search.steps += 1;
        if search.steps > STEPS_MAX {
            return Some(format!("no order was found in {STEPS_MAX} steps"));
        }
        if !search.go_on() {
            return Some(search.stuck());
        }
    }
    None
}

struct Search<'a> {
    history: &'a [&'a Done],
    /// What is in the order, and the first that is not.
    is_placed: Vec<bool>,
    first: usize,
    placed: usize,
    balances: Balances,
    /// The exclusive or of random keys of what is in the order, with which balances: tried.
    set: u128,
    keys: Vec<u128>,
    tried: HashSet<(u128, Balances)>,
    /// What was chosen, the balances before it, and what else could have been.
    choices: Vec<(usize, Balances, Vec<usize>)>,
    steps: usize,
    longest: (usize, Balances, Vec<usize>),
}

impl<'a> Search<'a> {
    fn new(start: Balances, history: &'a [&'a Done]) -> Self {
        let mut random = fastrand::Rng::with_seed(0);
        Self {
            history,
            is_placed: vec![false; history.len()],
            first: 0,
            placed: 0,
            balances: start,
            set: 0,
            keys: history.iter().map(|_| random.u128(..)).collect(),
            tried: HashSet::new(),
            choices: Vec::new(),
            steps: 0,
            longest: (0, start, Vec::new()),
        }
    }

    /// What can be the next one: what began before anything else ended.
    fn candidates(&self) -> Vec<usize> {
        let left = (self.first..self.history.len()).filter(|index| !self.is_placed[*index]);
        let mut ended = Moment::MAX;
        let within = |index: &usize| {
            let done = self.history[*index];
            let is_early = done.began <= ended;
            ended = ended.min(done.ended);
            is_early
        };
        left.take_while(within).collect()
    }

    /// Puts one more into the order, or takes back the last choice. Returns whether there is anything left to try.
    fn go_on(&mut self) -> bool {
        let candidates = self.candidates();
        let fits = |index: &usize| self.history[*index].follows(self.balances).is_some();
        let fitting: Vec<_> = candidates.iter().copied().filter(fits).collect();
        // What changes nothing is right here, whatever comes later.
        let harmless = fitting.iter().copied().find(|index| self.history[*index].is_harmless());
        let options = match harmless {
            Some(index) => vec![index],
            None if self.tried.insert((self.set, self.balances)) => fitting,
            None => Vec::new(),
        };
        if options.is_empty() && self.placed >= self.longest.0 {
            self.longest = (self.placed, self.balances, candidates);
        }
        self.choose(options) || self.back()
    }

    fn choose(&mut self, mut options: Vec<usize>) -> bool {
        // What ends soonest is tried first.
        options.sort_by_key(|index| std::cmp::Reverse(self.history[*index].ended));
        let Some(index) = options.pop() else { return false };
        let before = self.balances;
        self.balances = self.history[index].follows(before).expect("it was chosen as it fits");
        self.toggle(index, true);
        self.choices.push((index, before, options));
        true
    }

    fn back(&mut self) -> bool {
        while let Some((index, before, options)) = self.choices.pop() {
            self.toggle(index, false);
            self.balances = before;
            if self.choose(options) {
                return true;
            }
        }
        false
    }

    fn toggle(&mut self, index: usize, is_placed: bool) {
        self.is_placed[index] = is_placed;
        self.set ^= self.keys[index];
        if is_placed {
            self.placed += 1;
            while self.is_placed.get(self.first) == Some(&true) {
                self.first += 1;
            }
        } else {
            self.placed -= 1;
            self.first = self.first.min(index);
        }
    }

    fn stuck(&self) -> String {
        let (length, balances, next) = &self.longest;
        let next = next.iter().take(6).map(|index| format!("\n  {:?}", self.history[*index]));
        format!(
            "no order explains the replies: after {length} of {} commands the balances are {balances:?}, and next would have to be \
             one of{}",
            self.history.len(),
            next.collect::<String>()
        )
    }
}
