//! Opening the file: settings, and the checks that it is ours.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{fault::failed, migrations, place::Place};
use crate::{
    failpoints::mutant,
    service::Service,
    store::{
        OpenError,
        schema::{ENGINE, history},
    },
};

/// The first release without the bug by which two processes that reset the write-ahead log at the same time lose
/// committed transactions (<https://sqlite.org/wal.html#walresetbug>).
const FIRST_SOUND_SQLITE: i32 = 3_051_003;

/// How long SQLite itself waits for a lock. Writers of ours queue before they ask SQLite, so this is for others: a
/// backup, a last checkpoint, a tool.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of every connection. `FULL`: a commit is on the disk before it is answered. No `mmap`: an error of the
/// disk would end the process instead of being an error. The cache is in KiB. The checkpoint of a commit itself (in
/// pages of 4 KiB) is rare, as a thread of its own makes them before, see [`super::checkpoint`].
const SETTINGS: &str = "
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA trusted_schema = OFF;
    PRAGMA mmap_size = 0;
    PRAGMA cache_size = -32768;
    PRAGMA temp_store = MEMORY;
    PRAGMA wal_autocheckpoint = 8000;
    PRAGMA journal_size_limit = 67108864;
";

/// The writer's cache, in KiB. A commit after pages were split walks through all of it (SQLite gives such pages their
/// final numbers by way of one beyond the end), which costs more than reading pages again from the system's cache.
const WRITER_CACHE_KIB: i32 = 4096;

/// Opens the database for writing and brings its schema up to date. To be called under the write lock.
pub(super) fn open_for_writing<S: Service>(place: &Place) -> Result<Connection, OpenError> {
    let attempt = "open";
    let mut connection = connect(place.path()).map_err(|error| failed(attempt, place.path(), &error))?;
    refuse_foreign(&connection, place.path())?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(|error| failed(attempt, place.path(), &error))?;
    if mode != "wal" {
        return Err(OpenError::Refused(format!(
            "cannot open {}: its file system does not support write-ahead logging (journal mode {mode})",
            place.path().display()
        )));
    }
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    connection
        .pragma_update(None, "cache_size", -WRITER_CACHE_KIB)
        .map_err(|error| failed(attempt, place.path(), &error))?;
    migrations::apply::<S>(&mut connection, place.path())?;
    Ok(connection)
}

/// Opens a database that a writer has opened before, for reading.
pub(super) fn open_for_reading(place: &Place) -> Result<Connection, OpenError> {
    let open = || {
        let connection = connect(place.path())?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|error| failed("open", place.path(), &error))
}

/// Opens a file that exists: a database whose disk is not mounted must not be begun anew.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(SETTINGS)?;
    if mutant!(UnsyncedCommit) {
        connection.pragma_update(None, "synchronous", "OFF")?;
    }
    Ok(connection)
}

/// # Errors
/// Refused, if the SQLite library would lose data.
pub(super) fn check_library() -> Result<(), OpenError> {
    if rusqlite::version_number() >= FIRST_SOUND_SQLITE {
        return Ok(());
    }
    Err(OpenError::Refused(format!(
        "this program was built with SQLite {}, which can lose data when several processes write; 3.51.3 or later is needed",
        rusqlite::version()
    )))
}

fn refuse_foreign(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let read = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    // A start that was cut off may have left no more than the migrations' history.
    let others = format!("SELECT count(*) FROM sqlite_schema WHERE tbl_name <> '{}'", history(ENGINE));
    let is_ours = || Ok(read("PRAGMA application_id")? == migrations::APPLICATION_ID || read(&others)? == 0);
    match is_ours() {
        Ok(true) => Ok(()),
        Ok(false) => Err(OpenError::Refused(format!(
            "{} is a database of another program; choose another path",
            path.display()
        ))),
        Err(error) => Err(failed("open", path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ErrorCode;

    use super::*;
    use crate::toy::Toys;

    #[test]
    fn a_connection_is_durable_and_reads_only_where_it_should() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::prepare(&dir.path().join("users.db")).unwrap();
        place.create().unwrap();
        let writer = open_for_writing::<Toys>(&place).unwrap();
        let setting = |name: &str| {
            writer
                .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, rusqlite::types::Value>(0))
                .unwrap()
        };
        assert_eq!(setting("synchronous"), 2.into());
        assert_eq!(setting("journal_mode"), "wal".to_owned().into());
        assert_eq!(setting("foreign_keys"), 1.into());
        assert_eq!(setting("wal_autocheckpoint"), 8000.into());
        let reader = open_for_reading(&place).unwrap();
        let refused = reader.execute("DELETE FROM toys", []).unwrap_err();
        assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::ReadOnly));
        check_library().unwrap();
    }

    #[test]
    fn a_database_that_is_gone_is_not_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("users.db");
        assert_eq!(connect(&missing).unwrap_err().sqlite_error_code(), Some(ErrorCode::CannotOpen));
        assert!(!missing.exists());
    }
}
