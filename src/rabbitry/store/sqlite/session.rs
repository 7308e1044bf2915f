//! A connection that is opened again when it has failed, and never on another file.

use std::path::Path;

use rusqlite::Connection;

use super::{
    fault::described,
    place::{Identity, Place},
    transaction::leaves_connection_sound,
};
use crate::{service::Unavailable, store::OpenError};

type Open = fn(&Place) -> Result<Connection, OpenError>;

/// One connection to one database.
pub(super) struct Session {
    place: Place,
    /// The file that was opened first.
    identity: Identity,
    /// The log that the connection writes to, once it has used it. SQLite keeps it for as long as a connection is open.
    log: Option<Identity>,
    open: Open,
    connection: Option<Connection>,
}

impl Session {
    /// Opens a connection.
    pub(super) fn begin(place: Place, open: Open) -> Result<Self, OpenError> {
        let connection = open(&place)?;
        let identity =
            place.identity().map_err(|error| super::place::failed("find", place.path(), &error))?;
        Ok(Self { place, identity, log: None, open, connection: Some(connection) })
    }

    /// The database's path.
    pub(super) fn path(&self) -> &Path {
        self.place.path()
    }

    /// The size of the write-ahead log in bytes.
    pub(super) fn wal_bytes(&self) -> u64 {
        self.place.wal_bytes()
    }

    /// Closes the connection; the next use opens another.
    pub(super) fn close(&mut self) {
        self.connection = None;
        self.log = None;
    }

    /// Uses the connection.
    ///
    /// # Errors
    /// If it cannot be opened again, or what was done with it failed; the transaction then is rolled back. Also if
    /// another file has taken the name of the one that was opened: who writes on would write into a file that nobody
    /// finds again, and who opens the new file would apply the old one's log to it.
    pub(super) fn with<T>(
        &mut self,
        attempt: &str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Unavailable> {
        if self.place.identity().ok() != Some(self.identity) {
            return Err(self.unavailable(
                "the file was moved, removed or replaced while it was in use; stop all workers, put the right file \
                 in its place without the -wal and -shm files of another, and start them",
            ));
        }
        if self.log.is_some() && self.place.wal_identity().ok() != self.log {
            return Err(self.unavailable(
                "the write-ahead log beside it was moved, removed or replaced while it was in use, and may hold what was \
                 answered; stop all workers, put the log back if it was moved, and start them",
            ));
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => (self.open)(&self.place).map_err(|error| match error {
                OpenError::Unavailable(error) => error,
                OpenError::Refused(sentence) | OpenError::NotDone(sentence) => Unavailable(sentence.into()),
            })?,
        };
        let outcome = work(self.connection.insert(connection));
        if self.log.is_none() && outcome.is_ok() {
            self.log = self.place.wal_identity().ok();
        }
        outcome.map_err(|error| {
            if !leaves_connection_sound(&error) {
                self.close();
            }
            self.unavailable(&format!("cannot {attempt}: {}", described(&error)))
        })
    }

    /// An error that says which database it is about.
    pub(super) fn unavailable(&self, what: &str) -> Unavailable {
        Unavailable(format!("{}: {what}", self.path().display()).into())
    }
}
