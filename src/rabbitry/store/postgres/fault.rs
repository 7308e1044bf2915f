//! What goes wrong with a database, and what follows from it.

use std::error::Error;

use tokio_postgres::error::SqlState;

use crate::{service::Unavailable, store::OpenError};

/// Why a transaction was not committed, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// What the server or the connection to it says.
    #[error("{}", described(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A row that no version of the program has written.
    #[error("a row cannot be read: {0}")]
    Unreadable(String),
    /// Another worker has inserted a row that was not there when this transaction looked.
    #[error("other workers were faster each time")]
    Outrun,
    /// The connection was lost while the server committed, or the server cannot tell.
    #[error("the outcome of a commit is not known: {}", described(.0))]
    Uncertain(tokio_postgres::Error),
    /// There is no session to be had.
    #[error("{0}")]
    NoSession(String),
}

#[cfg(feature = "failpoints")]
impl From<crate::failpoints::Planted> for Fault {
    fn from(planted: crate::failpoints::Planted) -> Self {
        Self::NoSession(planted.to_string())
    }
}

/// What follows from a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It lies in the command or in a row that it names, and would come again however often it is tried.
    Refusal,
    /// Other workers were in the way: the whole transaction is to be run again.
    Conflict,
    /// The session was lost before anything was committed: run again on another.
    Lost,
    /// It is not the command's fault, and may pass.
    Environment,
}

impl Fault {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Unreadable(_) => Kind::Refusal,
            Self::Outrun => Kind::Conflict,
            Self::Uncertain(_) | Self::NoSession(_) => Kind::Environment,
            Self::Database(error) => error.code().map_or(Kind::Lost, kind),
        }
    }
}

fn kind(code: &SqlState) -> Kind {
    match code.code() {
        "40001" | "40P01" => Kind::Conflict,
        // A server that shuts down, and sessions that it ended because they were idle in a transaction.
        "57P01" | "57P02" | "57P05" | "25P03" => Kind::Lost,
        // Data that are not accepted: by types, constraints, triggers, views.
        other if ["22", "23", "44", "P0"].contains(&&other[..2]) => Kind::Refusal,
        _ => Kind::Environment,
    }
}

/// What the server says, with its code. Not its detail, as that quotes the data.
pub(super) fn described(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        let hint = match *error.code() {
            SqlState::LOCK_NOT_AVAILABLE => "; another session holds a lock for long",
            SqlState::READ_ONLY_SQL_TRANSACTION => "; this is a standby, or made read-only",
            _ => "",
        };
        return format!("{} (SQLSTATE {}){hint}", error.message(), error.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What was attempted, with what, and what to do.
pub(super) fn refused_or_unavailable(attempt: &str, place: &str, error: &tokio_postgres::Error) -> OpenError {
    let what = format!("cannot {attempt} {place}: {}", described(error));
    let advice = match error.code().map(SqlState::code) {
        Some("28P01" | "28000") => "check the user and the password in DATABASE_URL",
        Some("3D000") => "create the database, or check its name in DATABASE_URL",
        Some("3F000") => "create the schema that search_path in DATABASE_URL names",
        Some("42501") => "the user lacks a right: make it the owner of a database of its own",
        Some("42P07") => "a table of that name is there already; choose another database",
        Some("22023" | "42704") => "check the options in DATABASE_URL",
        _ => return OpenError::Unavailable(Unavailable(what.into())),
    };
    OpenError::Refused(format!("{what}; {advice}"))
}

/// The same for what else can go wrong.
pub(super) fn open_failed(attempt: &str, place: &str, fault: &Fault) -> OpenError {
    match fault {
        Fault::Database(error) => refused_or_unavailable(attempt, place, error),
        other => OpenError::Unavailable(Unavailable(format!("cannot {attempt} {place}: {other}").into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_faults_are_told_from_those_of_the_environment() {
        let all = |codes: &[&str], expected| {
            for code in codes {
                assert_eq!(kind(&SqlState::from_code(code)), expected, "{code}");
            }
        };
        // Check, unique and not-null constraints, NUL in a text, out of range, an exception of a trigger.
        all(&["23514", "23505", "23502", "22021", "22003", "P0001"], Kind::Refusal);
        all(&["40001", "40P01"], Kind::Conflict);
        all(&["57P01", "57P02", "25P03"], Kind::Lost);
        // Lock and statement time-outs, disk full, out of memory, too many connections, read-only, no such table, no
        // such column, no right, starting up, damaged, no transaction.
        let environment = [
            "55P03", "57014", "53100", "53200", "53300", "25006", "42P01", "42703", "42501", "57P03",
            "XX001", "25P01", "0A000", "58030",
        ];
        all(&environment, Kind::Environment);
    }
}
