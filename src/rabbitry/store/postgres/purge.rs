//! Forgetting old replies, a few at a time, by one worker at a time.
//!
//! Replies are written with the server's time, so the clocks of workers say nothing of their age. The server's own may be
//! set, or be another one's after a failover: no more time counts than has passed since this worker's first step by its
//! monotonic clock, beginning with the newest reply.

use std::time::Instant;

use super::{fault::Fault, rows::cell, session::Sessions};
use crate::{
    failpoints::mutant,
    store::{
        Options,
        purge::{STEP_ROWS, Schedule, ms},
    },
};

/// Held by the worker that deletes; the second half of the key is the schema's name.
const LOCK: i32 = 0x5262_747A;

const LOCK_AND_TIMES: &str = "
    SELECT pg_try_advisory_xact_lock($1, hashtext(current_schema())),
           (extract(epoch FROM now()) * 1000)::bigint, (SELECT max(created_at) FROM inbox)";
const DELETE_OLDEST: &str = "
    DELETE FROM inbox WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM inbox WHERE created_at < $1 ORDER BY created_at LIMIT $2
    ))";

/// Purges for ever. If it is dropped, the session that it uses is closed.
pub(super) async fn run(sessions: Sessions, options: Options) {
    let mut schedule = Schedule::new(options.retention);
    let mut horizon = Horizon { retention: ms(options.retention), start: None };
    loop {
        tokio::time::sleep_until(schedule.next().into()).await;
        let begun = Instant::now();
        schedule.begin(begun);
        match step(&sessions, &mut horizon).await {
            Ok(deleted) => schedule.end(begun, deleted),
            Err(error) => {
                tracing::warn!(place = sessions.place(), %error, "old replies could not be forgotten; it will be tried again");
            }
        }
    }
}

/// Deletes what is too old among the oldest rows, unless another worker does.
async fn step(sessions: &Sessions, horizon: &mut Horizon) -> Result<u64, Fault> {
    let session = sessions.lease().await?;
    session.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let row = session.query_one(LOCK_AND_TIMES, &[&LOCK]).await?;
    let (is_own, server, newest) = (cell(&row, 0)?, cell(&row, 1)?, cell::<Option<i64>>(&row, 2)?);
    let deleted = if is_own {
        let old = horizon.at(server, newest, Instant::now());
        session.execute(DELETE_OLDEST, &[&old, &i64::from(STEP_ROWS)]).await?
    } else {
        0
    };
    session.batch_execute("COMMIT").await?;
    session.give_back();
    Ok(deleted)
}

/// What is old, in milliseconds since the Unix epoch.
struct Horizon {
    retention: i64,
    /// The time of the first step.
    start: Option<(i64, Instant)>,
}

impl Horizon {
    /// The moment before which replies are forgotten.
    fn at(&mut self, server: i64, newest: Option<i64>, now: Instant) -> i64 {
        if mutant!(PurgeTooEarly) {
            return i64::MAX;
        }
        let first = || (newest.map_or(server, |newest| newest.min(server)), now);
        let (start, since) = *self.start.get_or_insert_with(first);
        server.min(start.saturating_add(ms(now - since))).saturating_sub(self.retention)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn only_time_that_passes_on_both_clocks_counts() {
        let start = Instant::now();
        let year = ms(365 * 24 * HOUR);
        let mut horizon = Horizon { retention: ms(HOUR), start: None };
        assert_eq!(
            horizon.at(NOW + year, Some(NOW), start),
            NOW - ms(HOUR),
            "the server's clock was set ahead"
        );
        assert_eq!(horizon.at(NOW + year, Some(NOW + year), start + HOUR), NOW);
        assert_eq!(horizon.at(NOW - year, Some(NOW), start + 2 * HOUR), NOW - year - ms(HOUR));
        let mut horizon = Horizon { retention: ms(HOUR), start: None };
        assert_eq!(horizon.at(NOW, None, start), NOW - ms(HOUR));
    }
}
