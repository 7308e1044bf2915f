//! The store that the workers are measured on: SQLite, or what `RABBITRY_TEST_STORE` says.

use std::env;

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    postgres::{self, Own, Session},
    proc,
};

/// An empty store of a worker's own.
pub(crate) struct Store {
    pub(crate) url: String,
    _kept: Kept,
}

/// What is deleted when it is dropped.
#[expect(dead_code, reason = "it is only held")]
enum Kept {
    Sqlite(TempDir),
    Postgres(Own),
}

impl Store {
    pub(crate) fn fresh() -> Result<Self> {
        if is_postgres() {
            let own = Own::schema();
            return Ok(Self { url: own.url.clone(), _kept: Kept::Postgres(own) });
        }
        let folder = tempfile::tempdir()?;
        let url = format!("sqlite:{}", folder.path().join("users.db").display());
        Ok(Self { url, _kept: Kept::Sqlite(folder) })
    }
}

fn is_postgres() -> bool {
    env::var("RABBITRY_TEST_STORE").is_ok_and(|store| store == "postgres")
}

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
