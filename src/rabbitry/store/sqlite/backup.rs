//! Copies of a database, and checks of one.

use std::{
    fs::{self, OpenOptions},
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode,
    backup::{Backup, StepResult},
};

use super::{
    connection::connect,
    fault::failed,
    migrations::{APPLICATION_ID, is_there},
    place,
    write_lock::beside,
};
use crate::store::{
    OpenError,
    schema::{ENGINE, OF_0_1, history},
};

/// How long a backup waits for a lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// Copies a database while workers use it: a snapshot of one moment, checked, under its name only when it is whole.
/// Blocks for as long as copying takes; writers go on meanwhile.
///
/// To restore, stop all workers, put the copy in the place of the database, remove the `-wal` and `-shm` files beside
/// it, and start the workers. An older database has also forgotten the replies given since: a command sent again with
/// an id from that time would be executed again.
///
/// # Errors
/// Not done if there is a file `to` already, or what was to be copied is damaged; refused if one of the two paths
/// cannot be used; unavailable if the database or the disk does not answer.
pub fn backup(from: &Path, to: &Path) -> Result<(), OpenError> {
    if to.exists() {
        return Err(OpenError::NotDone(format!("{} exists; a backup overwrites nothing", to.display())));
    }
    let partial = beside(to, ".partial");
    let made = make(from, &partial).and_then(|()| {
        // A hard link fails where a rename would overwrite what another backup has made meanwhile.
        fs::hard_link(&partial, to).map_err(|error| place::failed("make", to, &error))
    });
    // Nothing is lost if it stays.
    let _ = fs::remove_file(&partial);
    made
}

fn make(from: &Path, partial: &Path) -> Result<(), OpenError> {
    let source = connect(from).map_err(|error| failed("open", from, &error))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(OpenError::NotDone(format!(
                "{} exists: another backup is being made, or one was cut off; remove the file in that case",
                partial.display()
            )));
        }
        created => created.map_err(|error| place::failed("create", partial, &error))?,
    };
    let mut target = Connection::open(partial).map_err(|error| failed("open", partial, &error))?;
    copy(&source, &mut target).map_err(|error| failed("copy", from, &error))?;
    // The copy is one file, without a log beside it.
    target
        .query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .map_err(|error| failed("finish", partial, &error))?;
    refuse_damage(&target, partial)
}

/// One step, so that a writer in between does not make it begin again. SQLite itself waits for a lock that another
/// holds.
fn copy(source: &Connection, target: &mut Connection) -> rusqlite::Result<()> {
    source.busy_timeout(PATIENCE)?;
    match Backup::new(source, target)?.step(-1)? {
        StepResult::Done => Ok(()),
        _ => Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)),
    }
}

/// Checks the structure of a database that may be in use. Reads all of it, and blocks for as long.
///
/// # Errors
/// Not done with what is damaged, or if it is no database; unavailable if it does not answer.
pub fn quick_check(path: &Path) -> Result<(), OpenError> {
    refuse_other_files(path)?;
    let connection = connect(path).map_err(|error| unchecked("open", path, &error))?;
    refuse_other_databases(&connection, path)?;
    refuse_wrong_size(&connection, path)?;
    refuse_damage(&connection, path)
}

fn not_whole(path: &Path, what: &str) -> OpenError {
    OpenError::NotDone(format!("{} {what}", path.display()))
}

/// SQLite takes an empty file for a new database, and does without a log that was deleted.
fn refuse_other_files(path: &Path) -> Result<(), OpenError> {
    let found = fs::metadata(path).map_err(|error| place::failed("find", path, &error))?;
    if !found.is_file() {
        return Err(not_whole(path, "is no regular file"));
    }
    if found.len() == 0 {
        return Err(not_whole(path, "is empty"));
    }
    if beside(path, "-shm").exists() && !beside(path, "-wal").exists() {
        return Err(not_whole(
            path,
            "lacks its write-ahead log (-wal), which was deleted while the database was in use",
        ));
    }
    Ok(())
}

fn refuse_other_databases(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let number = |sql: &str| {
        let read = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        read.map_err(|error| unchecked("check", path, &error))
    };
    if number("PRAGMA application_id")? != APPLICATION_ID {
        return Err(not_whole(path, "is a database of another program"));
    }
    let has = |table: &str| is_there(connection, table).map_err(|error| unchecked("check", path, &error));
    // One of version 0.1 is whole without a history of today's.
    if !has("inbox")? || !(has(&history(ENGINE))? || has(OF_0_1)?) {
        return Err(not_whole(path, "lacks tables of the schema"));
    }
    Ok(())
}

/// The file has as many bytes as its pages, unless some of them are still in the log.
fn refuse_wrong_size(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let number = |sql: &str| {
        let read = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
        read.map_err(|error| unchecked("check", path, &error))
    };
    let (pages, page) = (number("PRAGMA page_count")?, number("PRAGMA page_size")?);
    let bytes = fs::metadata(path).map_err(|error| place::failed("find", path, &error))?.len();
    let has_log = fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    if bytes % page == 0 && (has_log || bytes == pages * page) {
        return Ok(());
    }
    Err(not_whole(path, &format!("has {bytes} bytes, and its {pages} pages of {page} take {}", pages * page)))
}

/// Damage so great that no check is possible is a finding too.
fn unchecked(attempt: &str, path: &Path, error: &rusqlite::Error) -> OpenError {
    let failure = failed(attempt, path, error);
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::NotDone(failure.to_string()),
        _ => failure,
    }
}

fn refuse_damage(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let findings = || {
        let mut check = connection.prepare("PRAGMA quick_check(10)")?;
        check.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()
    };
    match findings().map_err(|error| unchecked("check", path, &error))? {
        fine if fine == ["ok"] => Ok(()),
        damage => Err(OpenError::NotDone(format!("{} is damaged: {}", path.display(), damage.join("; ")))),
    }
}
