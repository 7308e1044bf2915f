//! The thread that moves the write-ahead log into the database, so that no commit waits for it.
//!
//! It moves what it can without hindering anyone (`PASSIVE`). The log begins anew when a commit finds that all of it
//! was moved; under a load without a gap it never is, and so a writer moves the little that is left itself once the
//! log has grown to `wal_autocheckpoint` pages (see [`super::connection`]).

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::{connection::open_for_reading, lane::End, place::Place, session::Session};
use crate::{failpoints::failpoint, store::OpenError};

/// Commands that are written before the log is moved: each changes one or two pages of 4 KiB.
const COMMANDS: usize = 1000;

/// The writer's side. When this is dropped, the thread ends, and is waited for.
pub(super) struct Checkpointer {
    /// There until it is dropped.
    due: Option<SyncSender<()>>,
    end: End,
    written: usize,
}

impl Checkpointer {
    /// Starts the thread on a database that a writer has opened.
    pub(super) fn start(place: Place) -> Result<Self, OpenError> {
        let path = place.path().to_owned();
        let session = Session::begin(place, open_for_reading)?;
        // One to come is enough: it moves everything there is.
        let (due, checkpoints) = sync_channel(1);
        let (held, end) = End::of_thread();
        thread::Builder::new()
            .name("sqlite-checkpoint".to_owned())
            .spawn(move || {
                let _held = held;
                run(session, &checkpoints);
            })
            .map_err(|error: io::Error| super::place::failed("start a thread for", &path, &error))?;
        Ok(Self { due: Some(due), end, written: 0 })
    }

    /// Tells of commands that were committed.
    pub(super) fn wrote(&mut self, commands: usize) {
        self.written += commands;
        if self.written >= COMMANDS {
            self.written = 0;
            // Full: one is due already.
            let _ = self.due.as_ref().map(|due| due.try_send(()));
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.due.take());
        self.end.wait();
    }
}

fn run(mut session: Session, due: &Receiver<()>) {
    while due.recv().is_ok() {
        let moved = session.with("move the write-ahead log", |connection| {
            failpoint!(BeforeCheckpoint, ?);
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
        });
        match moved {
            Ok((pages, moved)) => tracing::debug!(pages, moved, "moved the write-ahead log"),
            Err(error) => tracing::warn!(%error, "it will be tried again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::connection::open_for_writing;

    #[test]
    fn the_log_is_moved_beside_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::prepare(&dir.path().join("users.db")).unwrap();
        place.create().unwrap();
        let writer = open_for_writing::<crate::toy::Toys>(&place).unwrap();
        let mut checkpointer = Checkpointer::start(place.clone()).unwrap();
        let moved = || std::fs::metadata(place.path()).unwrap().len();
        let before = moved();
        writer
            .execute_batch("CREATE TABLE filler (bytes BLOB); INSERT INTO filler VALUES (zeroblob(1000000))")
            .unwrap();
        checkpointer.wrote(COMMANDS - 1);
        assert_eq!(moved(), before, "not yet due");
        checkpointer.wrote(1);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while moved() < 1_000_000 {
            assert!(std::time::Instant::now() < until, "the log is not moved");
            thread::yield_now();
        }
    }
}
