//! Forgetting old replies, a few at a time.

use std::time::Instant;

use rusqlite::{Connection, TransactionBehavior, params};

use crate::users::store::purge::{Purge, STEP_ROWS};

/// Deletes what is too old among the oldest rows. To be called under the write lock.
pub(super) fn step(purge: &mut Purge, connection: &mut Connection, wall: i64) -> rusqlite::Result<usize> {
    let begun = Instant::now();
    let horizon = purge.begin(wall, begun);
    let deleted = delete_oldest(connection, horizon)?;
    purge.end(begun, deleted as u64);
    Ok(deleted)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::users::store::purge::{IDLE_REST, ms};

    const NOW: i64 = 1_800_000_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    fn inbox(ages: impl IntoIterator<Item = Duration>) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("migrations/V1__users_and_inbox.sql")).unwrap();
        let mut insert = connection
            .prepare("INSERT INTO inbox VALUES ('create', ?, zeroblob(16), 201, x'7b7d', ?)")
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
        assert_eq!(step(&mut purge, &mut connection, NOW).unwrap(), STEP_ROWS as usize);
        assert!(purge.next() < Instant::now() + IDLE_REST / 2, "more may be old");
        assert_eq!(step(&mut purge, &mut connection, NOW).unwrap(), 10);
        assert_eq!(left(&connection), 5);
        assert_eq!(step(&mut purge, &mut connection, NOW).unwrap(), 0);
        assert!(purge.next() > Instant::now() + IDLE_REST / 2, "nothing is old");
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_empties_nothing() {
        let mut connection = inbox([Duration::ZERO; 3]);
        let mut purge = Purge::new(HOUR, NOW, Instant::now());
        assert_eq!(step(&mut purge, &mut connection, NOW + 1000 * ms(HOUR)).unwrap(), 0);
        assert_eq!(left(&connection), 3);
    }
}
