//! Forgetting old replies, a few at a time.
//!
//! Age is time that workers have seen pass, in the order of the rows. The clocks of workers say nothing of it: one that
//! is days ahead would make every row old, and one that is days behind would write rows that are old at once; a command
//! that is sent again would then be executed again. So each worker marks how far the inbox has come whenever a slice of
//! time has passed by its monotonic clock, and rows are forgotten when there are [`SLICES`] marks behind theirs.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::{
    failpoints::mutant,
    store::purge::{SLICES, STEP_ROWS, ms},
};

/// What a worker knows of the marks.
#[derive(Debug)]
pub(super) struct Marks {
    slice: Duration,
    /// The newest one, and since when this worker has known it.
    newest: Option<(i64, Instant)>,
}

impl Marks {
    pub(super) fn new(retention: Duration) -> Self {
        Self { slice: retention / SLICES, newest: None }
    }

    /// Makes a mark if a slice of time has passed, and deletes replies that are old among the first rows; returns how
    /// many. `clock` is in milliseconds since the Unix epoch. To be called under the write lock.
    pub(super) fn step(
        &mut self,
        connection: &mut Connection,
        clock: i64,
        now: Instant,
    ) -> rusqlite::Result<usize> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let known = latest(&transaction)?;
        let number = match known {
            Some((number, latest_clock)) if !self.is_due(number, latest_clock, clock, now) => number,
            _ => mark(&transaction, clock)?,
        };
        let deleted = delete_oldest(&transaction, number)?;
        transaction.commit()?;
        if self.newest.is_none_or(|(newest, _)| newest != number) {
            self.newest = Some((number, now));
        }
        Ok(deleted)
    }

    /// A worker that has just started has not seen time pass. It takes its clock's word for one slice at most: the
    /// latest clock is kept, so that no number of starts, with whatever clocks, makes more of it.
    fn is_due(&self, newest: i64, latest_clock: i64, clock: i64, now: Instant) -> bool {
        match self.newest {
            Some((known, since)) => known == newest && now - since >= self.slice,
            None => clock.saturating_sub(latest_clock) >= ms(self.slice),
        }
    }
}

/// The number of the newest mark, and the latest that any clock has shown.
pub(super) fn latest(connection: &Connection) -> rusqlite::Result<Option<(i64, i64)>> {
    let sql = "SELECT number, latest_clock FROM inbox_marks ORDER BY number DESC LIMIT 1";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

fn mark(transaction: &Transaction<'_>, clock: i64) -> rusqlite::Result<i64> {
    transaction.execute(
        "INSERT INTO inbox_marks (last_row, latest_clock)
         SELECT coalesce((SELECT max(rowid) FROM inbox), 0),
                max(?, coalesce((SELECT max(latest_clock) FROM inbox_marks), 0))",
        [clock],
    )?;
    Ok(transaction.last_insert_rowid())
}

/// The last row stays, as its number would be given to the next one.
fn delete_oldest(transaction: &Transaction<'_>, newest: i64) -> rusqlite::Result<usize> {
    let old = if mutant!(PurgeTooEarly) { i64::MAX } else { newest - i64::from(SLICES) };
    let sql = "SELECT number, last_row FROM inbox_marks WHERE number <= ? ORDER BY number DESC LIMIT 1";
    let covers = transaction.query_row(sql, [old], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    let Some((number, last_row)) = covers.optional()? else { return Ok(0) };
    transaction.execute("DELETE FROM inbox_marks WHERE number < ?", [number])?;
    let last_row = if mutant!(PurgeTooEarly) { i64::MAX } else { last_row };
    transaction
        .prepare_cached(
            "DELETE FROM inbox WHERE rowid IN (
                 SELECT rowid FROM inbox WHERE rowid <= ? AND rowid < (SELECT max(rowid) FROM inbox)
                 ORDER BY rowid LIMIT ?
             )",
        )?
        .execute(params![last_row, STEP_ROWS])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::sqlite::migrations, toy::Toys};

    const NOW: i64 = 1_800_000_000_000;
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    const HOUR: Duration = Duration::from_secs(3600);

    fn inbox() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrations::apply::<Toys>(&mut connection, std::path::Path::new("/users.db")).unwrap();
        connection
    }

    /// Adds replies whose time stamps say nothing of their age.
    fn add(connection: &Connection, rows: u32) {
        let sql = "INSERT INTO inbox (service, command, message_id, fingerprint, status, reply, created_at)
                   VALUES ('toys', 'create', hex(randomblob(9)), zeroblob(16), 201, x'7b7d', random() % 1000)";
        for _ in 0..rows {
            connection.execute(sql, []).unwrap();
        }
    }

    fn left(connection: &Connection) -> u32 {
        connection.query_row("SELECT count(*) FROM inbox", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn replies_go_step_by_step_when_their_time_has_passed_and_the_last_one_stays() {
        let (mut connection, mut marks, start) = (inbox(), Marks::new(WEEK), Instant::now());
        let old = STEP_ROWS + 10;
        add(&connection, old);
        let mut step = |connection: &mut Connection, hours: u32| {
            marks.step(connection, NOW, start + HOUR * hours).unwrap()
        };
        for hour in 0..SLICES {
            assert_eq!(step(&mut connection, hour), 0);
            if hour == 1 {
                add(&connection, 5);
            }
        }
        assert_eq!(step(&mut connection, SLICES), STEP_ROWS as usize);
        assert_eq!(step(&mut connection, SLICES), 10);
        assert_eq!((step(&mut connection, SLICES), left(&connection)), (0, 5));
        assert_eq!(step(&mut connection, SLICES + 1), 0);
        assert_eq!(
            step(&mut connection, SLICES + 2),
            4,
            "the last row keeps its number from being given again"
        );
        let marks: u32 =
            connection.query_row("SELECT count(*) FROM inbox_marks", [], |row| row.get(0)).unwrap();
        assert!(marks <= SLICES + 1, "{marks}");
    }

    #[test]
    fn starts_and_clocks_make_nothing_old() {
        let mut connection = inbox();
        add(&connection, 10);
        // Workers that start again and again, by turns years ahead, right, and years behind.
        let year = ms(365 * 24 * HOUR);
        for round in 0..3 * i64::from(SLICES) {
            let clock = NOW + (round % 3 - 1) * year;
            assert_eq!(Marks::new(WEEK).step(&mut connection, clock, Instant::now()).unwrap(), 0);
        }
        assert_eq!(left(&connection), 10);
    }

    #[test]
    fn time_that_passed_between_short_lives_counts() {
        let mut connection = inbox();
        add(&connection, 2);
        let lives = (0..=SLICES).map(|hour| {
            let clock = NOW + ms(HOUR * hour);
            Marks::new(WEEK).step(&mut connection, clock, Instant::now()).unwrap()
        });
        assert_eq!(lives.sum::<usize>(), 1);
    }
}
