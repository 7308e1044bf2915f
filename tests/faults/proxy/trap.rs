//! A trap cuts one connection at a place in its stream. It goes off once.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use super::rule::{Direction, Side};

/// Lies in wait on all connections; the first to reach the place is cut.
#[derive(Debug)]
pub struct Trap {
    direction: Direction,
    place: Place,
    sprung: AtomicBool,
}

#[derive(Debug)]
pub enum Place {
    /// After so many bytes of a connection since the trap was set.
    After(u64),
    /// After so many bytes of a connection since the trap was set, bytes that are none of the protocol's are put in.
    /// Nothing is cut.
    GarbageAfter(u64),
    /// After the needle has passed, what comes back is withheld, and the connection is cut when that holds the answer.
    At { needle: Vec<u8>, answer: Vec<u8> },
}

impl Trap {
    pub fn new(direction: Direction, place: Place) -> Arc<Self> {
        Arc::new(Self { direction, place, sprung: AtomicBool::new(false) })
    }

    fn springs(&self) -> bool {
        !self.sprung.swap(true, Ordering::SeqCst)
    }
}

/// What both directions of a connection know: the side that is withheld, and until which answer.
pub type Withheld = OnceLock<(Side, Vec<u8>)>;

/// What becomes of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Withhold,
    /// So many of them pass.
    CutAfter(usize),
    /// They pass, with something else behind so many of them.
    GarbageAfter(usize),
}

/// How far one direction of a connection is on the way to the trap.
pub struct Watch {
    side: Side,
    trap: Option<Arc<Trap>>,
    passed: u64,
    needle: Search,
    answer: Search,
}

impl Watch {
    pub fn new(side: Side) -> Self {
        Self { side, trap: None, passed: 0, needle: Search::default(), answer: Search::default() }
    }

    /// Judges bytes that are about to pass.
    pub fn judge(&mut self, bytes: &[u8], trap: Option<&Arc<Trap>>, withheld: &Withheld) -> Verdict {
        if let Some((_, answer)) = withheld.get().filter(|(side, _)| *side == self.side) {
            let is_there = self.answer.finds(answer, bytes);
            return if is_there { Verdict::CutAfter(0) } else { Verdict::Withhold };
        }
        let Some(trap) = trap.filter(|trap| trap.direction.covers(self.side)) else { return Verdict::Pass };
        if self.trap.as_ref().is_none_or(|known| !Arc::ptr_eq(known, trap)) {
            *self = Self { trap: Some(Arc::clone(trap)), ..Self::new(self.side) };
        }
        match &trap.place {
            Place::After(count) | Place::GarbageAfter(count) => {
                let before = self.passed;
                self.passed += bytes.len() as u64;
                if self.passed >= *count && trap.springs() {
                    let count = usize::try_from(count - before).unwrap_or(bytes.len());
                    return match trap.place {
                        Place::GarbageAfter(_) => Verdict::GarbageAfter(count),
                        _ => Verdict::CutAfter(count),
                    };
                }
            }
            Place::At { needle, answer } => {
                // Before the needle is passed on: the answer must find the way closed.
                if self.needle.finds(needle, bytes) && trap.springs() {
                    let _ = withheld.set((self.side.opposite(), answer.clone()));
                }
            }
        }
        Verdict::Pass
    }
}

/// Finds bytes in a stream, however it is split.
#[derive(Debug, Default)]
struct Search {
    /// The last bytes, in which the beginning of the needle may stand.
    tail: Vec<u8>,
}

impl Search {
    fn finds(&mut self, needle: &[u8], bytes: &[u8]) -> bool {
        if needle.is_empty() {
            return true;
        }
        self.tail.extend_from_slice(bytes);
        let found = self.tail.windows(needle.len()).any(|window| window == needle);
        let past = (self.tail.len() + 1).saturating_sub(needle.len());
        self.tail.drain(..past);
        found
    }
}
