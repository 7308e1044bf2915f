//! When old replies are forgotten, and what is old; deleting them is each store's own.

use std::time::{Duration, Instant};

use crate::failpoints::mutant;

/// Rows looked at in one step. It takes about a millisecond, so that no batch waits noticeably.
pub(super) const STEP_ROWS: u32 = 256;
/// A step is followed by a rest of so many times what it took: the purge gets a twentieth of the time, and keeps up
/// with any rate at which replies are written.
const REST: u32 = 19;
/// Rest when nothing is old enough.
pub(super) const IDLE_REST: Duration = Duration::from_secs(60);
/// Difference between the clocks that is worth a warning.
const JUMP: Duration = Duration::from_secs(10 * 60);

/// When to purge, and what is old.
#[derive(Debug)]
pub(super) struct Purge {
    retention: Duration,
    started: Instant,
    /// The wall clock at `started`, in milliseconds since the Unix epoch.
    wall_at_start: i64,
    next: Instant,
    warned: bool,
}

impl Purge {
    /// A purge that is due at once. `wall` is in milliseconds since the Unix epoch.
    pub(super) fn new(retention: Duration, wall: i64, now: Instant) -> Self {
        Self { retention, started: now, wall_at_start: wall, next: now, warned: false }
    }

    /// For how long a reply is remembered, in milliseconds.
    pub(super) fn retention(&self) -> i64 {
        if mutant!(PurgeTooEarly) { 0 } else { ms(self.retention) }
    }

    /// When the next step is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Begins a step: replies made before the moment returned are forgotten. If the step fails, the next one does not
    /// follow at once.
    pub(super) fn begin(&mut self, wall: i64, now: Instant) -> i64 {
        if mutant!(PurgeTooEarly) {
            self.next = now + Duration::from_millis(20);
            return i64::MAX;
        }
        self.next = now + IDLE_REST;
        self.horizon(wall, now)
    }

    /// Ends a step that was begun then and has deleted so many rows: more may be old.
    pub(super) fn end(&mut self, begun: Instant, deleted: u64) {
        if deleted > 0 {
            self.next = Instant::now() + begun.elapsed() * REST;
        }
    }

    /// A wall clock that jumps ahead would make every row old, and a command sent again would be executed again. So no
    /// more time counts than has passed by the monotonic clock. It stands still while the machine sleeps, and then
    /// rows live longer, which does no harm.
    fn horizon(&mut self, wall: i64, now: Instant) -> i64 {
        let steady = self.wall_at_start.saturating_add(ms(now - self.started));
        if !self.warned && wall.saturating_sub(steady) > ms(JUMP) {
            self.warned = true;
            tracing::warn!(
                ahead_ms = wall - steady,
                "the wall clock is ahead of the time that has passed since the start (it was set, or the machine \
                 slept); until the next start replies are remembered longer by as much"
            );
        }
        wall.min(steady).saturating_sub(self.retention())
    }
}

/// A duration as stores write moments.
pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_wall_clock_that_jumps_ahead_makes_nothing_old() {
        let start = Instant::now();
        let mut purge = Purge::new(HOUR, NOW, start);
        assert_eq!(purge.begin(NOW + 1000 * ms(HOUR), start), NOW - ms(HOUR));
        assert!(purge.warned);
    }

    #[test]
    fn time_that_passes_on_both_clocks_counts() {
        let start = Instant::now();
        let mut purge = Purge::new(HOUR, NOW, start);
        assert_eq!(purge.horizon(NOW + ms(3 * HOUR), start + 3 * HOUR), NOW + ms(2 * HOUR));
        assert!(!purge.warned);
        assert_eq!(purge.horizon(NOW - ms(HOUR), start + 4 * HOUR), NOW - ms(2 * HOUR));
    }

    #[test]
    fn the_next_step_follows_soon_only_where_something_was_old() {
        let mut purge = Purge::new(HOUR, NOW, Instant::now());
        let begun = Instant::now();
        purge.begin(NOW, begun);
        purge.end(begun, 1);
        assert!(purge.next() < Instant::now() + IDLE_REST / 2, "more may be old");
        purge.begin(NOW, begun);
        purge.end(begun, 0);
        assert!(purge.next() > Instant::now() + IDLE_REST / 2, "nothing is old");
    }
}
