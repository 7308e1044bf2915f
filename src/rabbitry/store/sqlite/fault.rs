//! What SQLite says, with what was attempted and what to do.

use std::{fs::File, io, path::Path};

use rusqlite::ErrorCode;
use rustix::io::Errno;

use crate::{service::Unavailable, store::OpenError};

/// What was attempted, with what, and what to do.
pub(super) fn failed(attempt: &str, path: &Path, error: &rusqlite::Error) -> OpenError {
    let what = format!("cannot {attempt} {}: {}", path.display(), described(error));
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not a database of SQLite; choose another path",
        Some(ErrorCode::CannotOpen) if lacks_descriptors() => {
            return OpenError::Unavailable(Unavailable(
                format!("{what}; this process may open no more files: raise its limit (ulimit -n)").into(),
            ));
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            "see that this user may write the file, the files beside it and their directory"
        }
        Some(ErrorCode::DatabaseCorrupt) => "the file is damaged; restore a backup of it",
        _ => return OpenError::Unavailable(Unavailable(what.into())),
    };
    OpenError::Refused(format!("{what}; {advice}"))
}

/// Files that SQLite opens for a database: the file, its log, its shared memory, and its folder for a moment.
const FILES: usize = 4;

/// Whether this process, or the machine, can open no more files: SQLite does not tell this from other reasons.
fn lacks_descriptors() -> bool {
    let is_lack = |error: &io::Error| {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE))
    };
    let opened: Vec<_> = (0..FILES).map(|_| File::open("/")).collect();
    opened.iter().any(|file| file.as_ref().is_err_and(is_lack))
}

/// The error with SQLite's code, which tells more than its sentence: which of the disk's operations failed.
pub(super) fn described(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(code) => format!("{error} (SQLite code {})", code.extended_code),
        None => error.to_string(),
    }
}
