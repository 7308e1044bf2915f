//! The one thread of this process that writes.

use std::{
    marker::PhantomData,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};

use super::{
    checkpoint::Checkpointer,
    connection::{BUSY_TIMEOUT, open_for_writing},
    lane::Work,
    place::{Place, failed},
    purge::{self, Marks},
    rows,
    session::Session,
    sql::Sql,
    transaction::{self, Batch},
    write_lock::{Wait, WriteLock},
};
use crate::{
    failpoints::{failpoint, mutant},
    service::{Reply, Request, Service, Unavailable},
    store::{
        OpenError, Options,
        purge::{Schedule, warn_of_clock},
    },
};

/// A write-ahead log larger than this is cut back. Checkpoints keep it at some 32 MiB at most, unless readers are always about.
const WAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How often its size is looked at.
const WAL_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How long cutting it back may wait for readers, while the writers queue.
const WAL_CUT_TIMEOUT: Duration = Duration::from_millis(100);

pub(super) struct Writer<S> {
    session: Session,
    sql: Sql,
    commands: PhantomData<fn(S)>,
    lock: WriteLock,
    options: Options,
    purge: Schedule,
    marks: Marks,
    checkpointer: Checkpointer,
    next_wal_check: Instant,
}

impl<S: Service> Writer<S> {
    /// Opens the database, or makes it. Blocks while another process writes; `wait` tells others so.
    pub(super) fn open(path: &Path, options: Options, wait: Arc<Wait>) -> Result<(Self, Place), OpenError> {
        let place = Place::prepare(path)?;
        let lock = WriteLock::open(place.path(), wait)
            .map_err(|error| failed("open the lock files of", place.path(), &error))?;
        let held = lock.acquire().map_err(|error| failed("lock", place.path(), &error))?;
        place.create()?;
        let mut session = Session::begin(place.clone(), open_for_writing::<S>)?;
        let latest = session.with("read the marks of", |connection| purge::latest(connection))?;
        // Behind the latest that any worker saw: ahead may mean no more than that nobody worked for long.
        if let Some((_, latest_clock)) = latest {
            let clock = (options.clock)();
            warn_of_clock(&place.path().display().to_string(), clock, clock.max(latest_clock));
        }
        drop(held);
        let checkpointer = Checkpointer::start(place.clone())?;
        let now = Instant::now();
        let (purge, marks) = (Schedule::new(options.retention), Marks::new(options.retention));
        let next_wal_check = now + WAL_CHECK_INTERVAL;
        let sql = Sql::of::<S::Entity>(S::NAME);
        let commands = PhantomData;
        Ok((
            Self { session, sql, commands, lock, options, purge, marks, checkpointer, next_wal_check },
            place,
        ))
    }

    fn purge(&mut self) -> Result<(), Unavailable> {
        let begun = Instant::now();
        // Before anything can fail, so that a step that fails is not tried again at once.
        self.purge.begin(begun);
        let _held = self.lock.acquire().map_err(|error| self.session.unavailable(&error.to_string()))?;
        let (marks, clock) = (&mut self.marks, (self.options.clock)());
        let deleted =
            self.session.with("forget old replies", |connection| marks.step(connection, clock, begun))?;
        self.purge.end(begun, deleted as u64);
        Ok(())
    }

    /// Only for the mutant that answers first.
    fn commit_late(&mut self) -> Result<(), Unavailable> {
        self.session.with("commit", |connection| {
            if !connection.is_autocommit() {
                thread::park_timeout(Duration::from_millis(50));
                failpoint!(BeforeCommit, ?);
                connection.execute_batch("COMMIT")?;
                failpoint!(AfterCommit, ?);
            }
            Ok(())
        })
    }

    fn check_wal(&mut self) -> Result<(), Unavailable> {
        self.next_wal_check = Instant::now() + WAL_CHECK_INTERVAL;
        if self.session.wal_bytes() <= WAL_BYTES_MAX {
            return Ok(());
        }
        let _held = self.lock.acquire().map_err(|error| self.session.unavailable(&error.to_string()))?;
        self.session.with("cut back the write-ahead log", cut_wal)
    }
}

impl<S: Service> Work for Writer<S> {
    type Command = S;

    fn answer(&mut self, requests: &[Request<S>]) -> Result<Vec<Reply>, Unavailable> {
        let _held = self.lock.acquire().map_err(|error| self.session.unavailable(&error.to_string()))?;
        let batch = Batch { requests, options: &self.options, sql: &self.sql };
        let replies = self.session.with("write", |connection| match requests {
            // The question for readiness.
            [] => rows::probe(connection).map(|()| Vec::new()),
            _ => transaction::run(connection, TransactionBehavior::Immediate, &batch),
        })?;
        self.checkpointer.wrote(requests.iter().map(|request| request.payload.commands()).sum());
        Ok(replies)
    }

    fn reset(&mut self) {
        self.session.close();
    }

    fn next_chore(&self) -> Option<Instant> {
        if mutant!(ReplyBeforeCommit) {
            return Some(Instant::now());
        }
        Some(self.purge.next().min(self.next_wal_check))
    }

    fn do_chores(&mut self) {
        let now = Instant::now();
        let committed = if mutant!(ReplyBeforeCommit) { self.commit_late() } else { Ok(()) };
        let purged = if self.purge.next() <= now { self.purge() } else { Ok(()) };
        let checked = if self.next_wal_check <= now { self.check_wal() } else { Ok(()) };
        for error in [committed, purged, checked].into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "the database could not be tidied; it will be tried again");
        }
    }
}

/// Moves the log into the database and cuts it to nothing, unless readers need it for too long.
fn cut_wal(connection: &mut Connection) -> rusqlite::Result<()> {
    failpoint!(BeforeCheckpoint, ?);
    connection.busy_timeout(WAL_CUT_TIMEOUT)?;
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    tracing::debug!(busy, "cut back the write-ahead log");
    connection.busy_timeout(BUSY_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::Toys;

    #[test]
    fn a_large_log_is_cut_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, place) =
            Writer::<Toys>::open(&dir.path().join("users.db"), Options::default(), Arc::default()).unwrap();
        let fill = |connection: &mut Connection| {
            connection.execute_batch("PRAGMA wal_autocheckpoint = 0; CREATE TABLE filler (bytes BLOB)")?;
            connection
                .execute(
                    "INSERT INTO filler VALUES (zeroblob(?))",
                    [i64::try_from(2 * WAL_BYTES_MAX).unwrap()],
                )
                .map(drop)
        };
        writer.session.with("fill", fill).unwrap();
        assert!(place.wal_bytes() > WAL_BYTES_MAX);
        assert!(writer.next_chore().unwrap() <= writer.next_wal_check);
        writer.next_wal_check = Instant::now();
        writer.do_chores();
        assert_eq!(place.wal_bytes(), 0);
        assert!(writer.next_wal_check > Instant::now());
    }

    #[test]
    fn chores_that_fail_are_not_tried_again_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.db");
        let (mut writer, _) = Writer::<Toys>::open(&path, Options::default(), Arc::default()).unwrap();
        std::fs::rename(&path, dir.path().join("moved.db")).unwrap();
        writer.next_wal_check = Instant::now();
        assert!(writer.next_chore().unwrap() <= Instant::now(), "due at the start");
        assert!(writer.purge().is_err());
        writer.do_chores();
        assert!(writer.next_chore().unwrap() > Instant::now() + WAL_CHECK_INTERVAL / 2);
    }
}
