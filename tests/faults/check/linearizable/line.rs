//! Beginnings and ends of calls in the order of time, from which calls are taken out and put back again.

use super::Call;

/// A doubly linked list, so that both cost the same however long it is. Node 0 stands before the first event and
/// behind the last.
pub(super) struct Line {
    next: Vec<usize>,
    prev: Vec<usize>,
    /// Which call an event belongs to, and whether it is its end.
    events: Vec<(usize, bool)>,
    /// The nodes of each call: its beginning, and its end if it has one.
    places: Vec<(usize, Option<usize>)>,
}

impl Line {
    pub(super) fn new(calls: &[Call<'_>]) -> Self {
        let beginnings = calls.iter().enumerate().map(|(index, call)| (call.began, false, index));
        let ends =
            calls.iter().enumerate().filter_map(|(index, call)| call.ended.map(|at| (at, true, index)));
        let mut sorted: Vec<_> = beginnings.chain(ends).collect();
        // At the same moment beginnings come first: which of the two was earlier is not known.
        sorted.sort_unstable();
        let nodes = sorted.len() + 1;
        let mut places = vec![(0, None); calls.len()];
        let mut events = vec![(usize::MAX, true)];
        for (position, (_, is_end, index)) in sorted.into_iter().enumerate() {
            events.push((index, is_end));
            match is_end {
                false => places[index].0 = position + 1,
                true => places[index].1 = Some(position + 1),
            }
        }
        let next = (1..nodes).chain([0]).collect();
        let prev = [nodes - 1].into_iter().chain(0..nodes - 1).collect();
        Self { next, prev, events, places }
    }

    /// The calls that can be the next one: those that began before any other ended, in the order of their beginnings.
    pub(super) fn candidates(&self) -> impl Iterator<Item = usize> {
        self.in_order().take_while(|(_, is_end)| !is_end).map(|(call, _)| call)
    }

    /// The call that ends first.
    pub(super) fn first_to_end(&self) -> Option<usize> {
        self.in_order().find(|(_, is_end)| *is_end).map(|(call, _)| call)
    }

    fn in_order(&self) -> impl Iterator<Item = (usize, bool)> {
        let mut node = 0;
        std::iter::from_fn(move || {
            node = self.next[node];
            (node != 0).then(|| self.events[node])
        })
    }

    pub(super) fn take_out(&mut self, call: usize) {
        let (beginning, end) = self.places[call];
        for node in [Some(beginning), end].into_iter().flatten() {
            let (before, behind) = (self.prev[node], self.next[node]);
            self.next[before] = behind;
            self.prev[behind] = before;
        }
    }

    /// Puts back the call that was taken out last.
    pub(super) fn put_back(&mut self, call: usize) {
        let (beginning, end) = self.places[call];
        for node in [end, Some(beginning)].into_iter().flatten() {
            let (before, behind) = (self.prev[node], self.next[node]);
            self.next[before] = node;
            self.prev[behind] = node;
        }
    }
}
