//! The kind of store that the workers are measured on, and its server.

use crate::{
    proc,
    support::{
        database::is_postgres,
        postgres::{self, Session},
    },
};

pub(crate) const SQLITE: &str = "SQLite";

/// What the report calls it.
pub(crate) fn name() -> &'static str {
    if is_postgres() { "PostgreSQL" } else { SQLITE }
}

/// The server's process, if the store has one: the parent of each session's.
pub(crate) fn server() -> Option<u32> {
    if !is_postgres() {
        return None;
    }
    let session = Session::open(postgres::server().as_str());
    let pid = session.rows("SELECT pg_backend_pid()").ok()?[0][0].parse().ok()?;
    proc::parent(pid).ok()
}
