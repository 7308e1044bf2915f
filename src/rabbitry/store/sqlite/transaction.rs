//! One batch, one transaction.

use std::slice;

use rusqlite::{Connection, DropBehavior, Error, ErrorCode, Transaction, TransactionBehavior};

use super::{rows, sql::Sql};
use crate::{
    failpoints::{failpoint, mutant},
    service::{Access, Payload, Reply, Request, Service, batch, inbox::Inbox, rows::Wanted},
    store::{Options, refused},
};

/// What a transaction is made of.
pub(super) struct Batch<'a, S> {
    pub(super) requests: &'a [Request<S>],
    pub(super) options: &'a Options,
    pub(super) sql: &'a Sql,
}

/// Runs a batch: all of it is committed, or nothing and an error of the environment is returned.
///
/// What the database refuses of a single request becomes that request's reply: the transaction is begun again and the
/// requests are run one by one, each in a savepoint of its own.
pub(super) fn run<S: Service>(
    connection: &mut Connection,
    behavior: TransactionBehavior,
    batch: &Batch<'_, S>,
) -> rusqlite::Result<Vec<Reply>> {
    let mut transaction = connection.transaction_with_behavior(behavior)?;
    let replies = match answer(&transaction, batch) {
        Err(error) if is_refusal(&error) => {
            transaction.rollback()?;
            return run_one_by_one(connection, behavior, batch);
        }
        answered => answered?,
    };
    if mutant!(ReplyBeforeCommit) && matches!(behavior, TransactionBehavior::Immediate) {
        transaction.set_drop_behavior(DropBehavior::Ignore);
        return Ok(replies);
    }
    match commit(transaction, batch.requests) {
        // A constraint may be checked only now.
        Err(error) if is_refusal(&error) => run_one_by_one(connection, behavior, batch),
        committed => committed.map(|()| replies),
    }
}

fn run_one_by_one<S: Service>(
    connection: &mut Connection,
    behavior: TransactionBehavior,
    batch: &Batch<'_, S>,
) -> rusqlite::Result<Vec<Reply>> {
    let mut transaction = connection.transaction_with_behavior(behavior)?;
    let mut replies = Vec::with_capacity(batch.requests.len());
    for request in batch.requests {
        let mut savepoint = transaction.savepoint()?;
        match answer(&savepoint, &Batch { requests: slice::from_ref(request), ..*batch }) {
            Ok(answered) => replies.extend(answered),
            Err(error) if is_refusal(&error) => {
                savepoint.rollback()?;
                replies.push(refused(request, &error));
            }
            Err(error) => return Err(error),
        }
        savepoint.commit()?;
    }
    commit(transaction, batch.requests)?;
    Ok(replies)
}

fn commit<S: Service>(transaction: Transaction<'_>, requests: &[Request<S>]) -> rusqlite::Result<()> {
    let writes = || requests.iter().filter(|request| request.command.access == Access::Write);
    failpoint!(BeforeCommit, writes(), ?);
    transaction.commit()?;
    failpoint!(AfterCommit, writes(), ?);
    Ok(())
}

/// Loads what the requests name, runs them, and saves what they changed.
fn answer<S: Service>(connection: &Connection, batch: &Batch<'_, S>) -> rusqlite::Result<Vec<Reply>> {
    let Batch { requests, options, sql } = *batch;
    // Read under the lock: a deadline may pass, and an id grow too old, while a batch waits for it.
    let now = (options.clock)();
    let (mut rows, mut inbox) = rows::load(connection, sql, &Wanted::by(requests))?;
    let replies = batch::run(requests, &mut rows, &mut inbox, now, options.retention);
    if mutant!(ArrayApart) && requests.iter().any(|request| matches!(request.payload, Payload::Many(_))) {
        rows::save(connection, sql, &rows, &Inbox::default(), now)?;
        connection.execute_batch("COMMIT; BEGIN")?;
    }
    rows::save(connection, sql, &rows, &inbox, now)?;
    Ok(replies)
}

/// Whether the error lies in the command or in a row that it names, so that it would come again however often it is
/// tried. Everything else (busy, full, the disk, the schema) is not the command's fault and may pass.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig
        ),
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..)
        | Error::ToSqlConversionFailure(_) => true,
        _ => false,
    }
}

/// Whether a connection that gave this error is as good as new once its transaction is rolled back.
pub(super) fn leaves_connection_sound(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn the_commands_faults_are_told_from_those_of_the_environment() {
        let failure = |code| Error::SqliteFailure(ffi::Error::new(code), None);
        let commands = [
            ffi::SQLITE_CONSTRAINT,
            ffi::SQLITE_CONSTRAINT_TRIGGER,
            ffi::SQLITE_MISMATCH,
            ffi::SQLITE_TOOBIG,
        ];
        assert!(commands.into_iter().all(|code| is_refusal(&failure(code))));
        let environment = [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_SNAPSHOT,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_INTERRUPT,
            ffi::SQLITE_PROTOCOL,
            ffi::SQLITE_ERROR,
        ];
        assert!(!environment.into_iter().any(|code| is_refusal(&failure(code))));
    }
}
