//! When old replies are forgotten; which ones, and deleting them, is each store's own.

use std::time::{Duration, Instant};

use crate::{failpoints::mutant, limits::CLOCKS_APART};

/// Rows looked at in one step. It takes about a millisecond, so that no batch waits noticeably.
pub(super) const STEP_ROWS: u32 = 256;
/// A step is followed by a rest of so many times what it took: the purge gets a twentieth of the time, and keeps up
/// with any rate at which replies are written.
const REST: u32 = 19;
/// Longest rest when nothing is old enough.
const IDLE_REST: Duration = Duration::from_secs(60);
/// Into how many slices the time is cut for which replies are remembered.
pub(super) const SLICES: u32 = 168;

/// When to purge.
#[derive(Debug)]
pub(super) struct Schedule {
    idle_rest: Duration,
    next: Instant,
}

impl Schedule {
    /// A purge that is due at once.
    pub(super) fn new(retention: Duration) -> Self {
        Self { idle_rest: IDLE_REST.min(retention / SLICES), next: Instant::now() }
    }

    /// When the next step is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Begins a step. If it fails, the next one does not follow at once.
    pub(super) fn begin(&mut self, now: Instant) {
        self.next = now + if mutant!(PurgeTooEarly) { Duration::from_millis(20) } else { self.idle_rest };
    }

    /// Ends a step that was begun then and has deleted so many rows: more may be old.
    pub(super) fn end(&mut self, begun: Instant, deleted: u64) {
        if deleted > 0 {
            self.next = Instant::now() + begun.elapsed() * REST;
        }
    }
}

/// Warns of a clock that differs from the store's. Both are in milliseconds since the Unix epoch.
pub(super) fn warn_of_clock(place: &str, own: i64, stores: i64) {
    let ahead_ms = own.saturating_sub(stores);
    if ahead_ms.saturating_abs() > ms(CLOCKS_APART) {
        tracing::warn!(
            place,
            ahead_ms,
            "this machine's clock and the store's differ, so one of them is wrong; deadlines and the age of ids go by this \
             machine's"
        );
    }
}

/// A duration as stores write moments.
pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_follows_soon_only_where_something_was_old() {
        let mut schedule = Schedule::new(Duration::from_secs(7 * 24 * 3600));
        let begun = Instant::now();
        schedule.begin(begun);
        schedule.end(begun, 1);
        assert!(schedule.next() < Instant::now() + IDLE_REST / 2, "more may be old");
        schedule.begin(begun);
        schedule.end(begun, 0);
        assert!(schedule.next() > Instant::now() + IDLE_REST / 2, "nothing is old");
    }
}
