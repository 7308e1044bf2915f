//! The queue of writers: workers of one machine that share a database take turns.
//!
//! SQLite admits one writer at a time and lets the others poll: the one that has just written mostly writes again,
//! and another may starve for seconds (measured with four processes: one of them wrote 3,906 transactions, another
//! one). So a writer first takes the *turn*, then the *lock*, then gives the turn back. Whoever holds the turn is the
//! next writer, and the one that releases the lock cannot take it again before. Two writers alternate strictly.
//!
//! Both are advisory locks (`flock`) on files of their own beside the database. They order writers and are not what
//! keeps the data safe: SQLite's own lock does that. The kernel frees them when their process dies; a process that is
//! *frozen* while it holds one (`SIGSTOP`, a debugger) stops all writers until it continues or is killed.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// The lock that a write transaction is made under.
pub(super) struct WriteLock {
    turn: File,
    lock: File,
    wait: Arc<Wait>,
}

/// The lock is held until this is dropped.
pub(super) struct Held<'a>(&'a WriteLock);

impl WriteLock {
    /// Opens the lock files of a database; they are made where they are missing.
    pub(super) fn open(database: &Path, wait: Arc<Wait>) -> io::Result<Self> {
        Ok(Self { turn: open_beside(database, ".turn")?, lock: open_beside(database, ".lock")?, wait })
    }

    /// Blocks until this is the only writer. `wait` tells others how long it has been blocking.
    pub(super) fn acquire(&self) -> io::Result<Held<'_>> {
        self.take(&self.turn)?;
        let locked = self.take(&self.lock);
        let returned = retry(&self.turn, FlockOperation::Unlock);
        locked?;
        let held = Held(self);
        returned?;
        Ok(held)
    }

    fn take(&self, file: &File) -> io::Result<()> {
        match retry(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {}
            other => return Ok(other?),
        }
        self.wait.begin();
        let taken = retry(file, FlockOperation::LockExclusive);
        self.wait.end();
        Ok(taken?)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = retry(&self.0.lock, FlockOperation::Unlock) {
            tracing::error!(%error, "cannot release the database's write lock");
        }
    }
}

/// Since when a writer has been waiting for other processes.
#[derive(Debug, Default)]
pub(super) struct Wait(Mutex<Option<Waiting>>);

#[derive(Debug)]
struct Waiting {
    since: Instant,
    noticed: bool,
}

impl Wait {
    fn begin(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Waiting { since: Instant::now(), noticed: false });
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the wait has become longer than `patience`: true once for each wait.
    pub(super) fn is_news(&self, patience: Duration) -> bool {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(wait) if !wait.noticed && wait.since.elapsed() >= patience => {
                wait.noticed = true;
                true
            }
            _ => false,
        }
    }
}

fn retry(file: &File, operation: FlockOperation) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| flock(file, operation))
}

fn open_beside(database: &Path, ending: &str) -> io::Result<File> {
    let path = beside(database, ending);
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// The path with something added to its end, as SQLite names its own files.
pub(super) fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(database);
    path.push(ending);
    path.into()
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    fn open(database: &Path) -> WriteLock {
        WriteLock::open(database, Arc::default()).unwrap()
    }

    fn until_waiting(lock: &WriteLock) {
        while lock.wait.0.lock().unwrap().is_none() {
            thread::yield_now();
        }
    }

    #[test]
    fn who_releases_the_lock_cannot_pass_who_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("users.db");
        let (first, second) = (open(&database), open(&database));
        for round in 0..100 {
            let (record, order) = mpsc::channel();
            thread::scope(|scope| {
                let held = first.acquire().unwrap();
                let waiter = record.clone();
                let second = &second;
                scope.spawn(move || {
                    let _held = second.acquire().unwrap();
                    waiter.send("second").unwrap();
                });
                until_waiting(second);
                drop(held);
                let _held = first.acquire().unwrap();
                record.send("first again").unwrap();
            });
            drop(record);
            assert_eq!(order.iter().collect::<Vec<_>>(), ["second", "first again"], "round {round}");
        }
    }

    #[test]
    fn a_long_wait_is_news_once() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("users.db");
        let holder = open(&database);
        let waiter = open(&database);
        assert!(!waiter.wait.is_news(Duration::ZERO));
        thread::scope(|scope| {
            let held = holder.acquire().unwrap();
            scope.spawn(|| drop(waiter.acquire().unwrap()));
            while !waiter.wait.is_news(Duration::ZERO) {
                thread::yield_now();
            }
            assert!(!waiter.wait.is_news(Duration::ZERO));
            drop(held);
        });
        assert!(!waiter.wait.is_news(Duration::ZERO), "nobody waits any more");
    }
}
