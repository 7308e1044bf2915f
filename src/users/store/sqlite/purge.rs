//! Forgetting old replies, a few at a time.

use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior, params};

use crate::failpoints::mutant;

/// Rows looked at in one step. It takes about a millisecond, so that no batch waits noticeably.
const STEP_ROWS: u32 = 256;
/// A step is followed by a rest of so many times what it took: the purge gets a twentieth of the writer's time, and
/// keeps up with any rate at which replies are written.
const REST: u32 = 19;
/// Rest when nothing is old enough.
const IDLE_REST: Duration = Duration::from_secs(60);
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

    /// When the next step is due.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Deletes what is too old among the oldest rows. To be called under the write lock.
    pub(super) fn step(&mut self, connection: &mut Connection, wall: i64) -> rusqlite::Result<usize> {
        let begun = Instant::now();
        // If the step fails, the next one does not follow at once.
        self.next = begun + if mutant!(PurgeTooEarly) { Duration::from_millis(20) } else { IDLE_REST };
        let horizon = if mutant!(PurgeTooEarly) { i64::MAX } else { self.horizon(wall, begun) };
        let deleted = delete_oldest(connection, horizon)?;
        if deleted > 0 {
            self.next = Instant::now() + begun.elapsed() * REST;
        }
        Ok(deleted)
    }

    /// Replies made before this moment are forgotten.
    ///
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
        wall.min(steady).saturating_sub(ms(self.retention))
    }
}

/// Rows are inserted in the order of time, so the smallest row ids are the oldest: no index is needed.
fn delete_oldest(connection: &mut Connection, horizon: i64) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let deleted = transaction
        .prepare_cached(
            "DELETE FROM inbox
             WHERE rowid IN (SELECT rowid FROM inbox ORDER BY rowid LIMIT ?) AND created_at < ?",
        )?
        .execute(params![STEP_ROWS, horizon])?;
    transaction.commit()?;
    Ok(deleted)
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    fn inbox(ages: impl IntoIterator<Item = Duration>) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("migrations/V1__users_and_inbox.sql")).unwrap();
        let mut insert = connection
            .prepare(
                "INSERT INTO inbox VALUES ('create', ?, zeroblob(16), 201, '{}', ?)"
                    .replace("'{}'", "x'7b7d'")
                    .as_str(),
            )
            .unwrap();
        for (index, age) in ages.into_iter().enumerate() {
            insert.execute(params![index.to_string(), NOW - ms(age)]).unwrap();
        }
        drop(insert);
        connection
    }

    fn left(connection: &Connection) -> u32 {
        connection.query_row("SELECT count(*) FROM inbox", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn old_rows_go_step_by_step_and_young_ones_stay() {
        let old = STEP_ROWS + 10;
        let ages = (0..old).map(|_| 2 * HOUR).chain((0..5).map(|_| HOUR));
        let mut connection = inbox(ages);
        let mut purge = Purge::new(HOUR, NOW, Instant::now());
        assert_eq!(purge.step(&mut connection, NOW).unwrap(), STEP_ROWS as usize);
        assert!(purge.next() < Instant::now() + IDLE_REST / 2, "more may be old");
        assert_eq!(purge.step(&mut connection, NOW).unwrap(), 10);
        assert_eq!(left(&connection), 5);
        assert_eq!(purge.step(&mut connection, NOW).unwrap(), 0);
        assert!(purge.next() > Instant::now() + IDLE_REST / 2, "nothing is old");
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_empties_nothing() {
        let mut connection = inbox([Duration::ZERO; 3]);
        let mut purge = Purge::new(HOUR, NOW, Instant::now());
        assert_eq!(purge.step(&mut connection, NOW + 1000 * ms(HOUR)).unwrap(), 0);
        assert!(purge.warned);
        assert_eq!(left(&connection), 3);
    }

    #[test]
    fn time_that_passes_on_both_clocks_counts() {
        let start = Instant::now();
        let mut purge = Purge::new(HOUR, NOW, start);
        assert_eq!(purge.horizon(NOW + ms(3 * HOUR), start + 3 * HOUR), NOW + ms(2 * HOUR));
        assert!(!purge.warned);
        assert_eq!(purge.horizon(NOW - ms(HOUR), start + 4 * HOUR), NOW - ms(2 * HOUR));
    }
}
