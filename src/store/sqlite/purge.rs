//! Forgetting old replies, a few at a time.

use rusqlite::{Connection, TransactionBehavior, params};

use crate::store::purge::STEP_ROWS;

/// Deletes replies made before the horizon (milliseconds since the Unix epoch) among the first rows. To be called under
/// the write lock.
///
/// Rows are inserted in the order of time, so the first ones are the oldest and no index is needed. What does not keep
/// that order is forgotten later, as it waits for what stands before it: rows of `store copy`, which are in the order of
/// their ids, and what comes after hundreds of rows of a worker whose clock was ahead.
pub(super) fn delete_oldest(connection: &mut Connection, horizon: i64) -> rusqlite::Result<usize> {
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
    use crate::service::entity::Entity;
    use crate::store::purge::ms;

    const NOW: i64 = 1_800_000_000_000;
    const HOUR: Duration = Duration::from_secs(3600);

    fn inbox(ages: impl IntoIterator<Item = Duration>) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(crate::users::user::User::TABLE.sqlite[0].1).unwrap();
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
        let horizon = NOW - ms(HOUR);
        assert_eq!(delete_oldest(&mut connection, horizon).unwrap(), STEP_ROWS as usize);
        assert_eq!(delete_oldest(&mut connection, horizon).unwrap(), 10);
        assert_eq!(left(&connection), 5);
        assert_eq!(delete_oldest(&mut connection, horizon).unwrap(), 0);
    }
}
