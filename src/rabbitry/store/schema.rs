//! Which schema a program and a database may have together; the migrations are each store's own.
//!
//! A migration first widens the schema (expand), so that workers one version older keep working beside newer ones;
//! only a later one takes away what they needed (contract), and raises `oldest_worker` in `compatibility`.

use std::error::Error;

use refinery::{Migration, Runner};

use super::OpenError;

/// Whose migrations those of the inbox and of what belongs to it are.
pub(super) const ENGINE: &str = "rabbitry";
/// Only databases of version 0.1 have it. They held one service, and engine and service had migrations in common.
pub(super) const OF_0_1: &str = "schema_compatibility";

/// The newest migration that was applied, and the oldest one that a worker may stop at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    pub(super) version: i64,
    pub(super) oldest_worker: i64,
}

/// The migrations that this program knows of the engine, or of a service. Each part has a history of its own, so that services
/// may share a database.
pub(super) struct Known<'a> {
    pub(super) part: &'a str,
    /// The database, for people.
    place: &'a str,
    pub(super) migrations: Vec<Migration>,
}

impl<'a> Known<'a> {
    /// Reads migrations, each a name and its SQL.
    pub(super) fn parse(part: &'a str, all: &[(&str, &str)], place: &'a str) -> Result<Self, OpenError> {
        let parsed = all.iter().map(|(name, sql)| Migration::unapplied(name, sql));
        let migrations = parsed.collect::<Result<_, _>>().map_err(|error| refused(place, &error))?;
        Ok(Self { part, place, migrations })
    }

    /// What applies them, all in one transaction: a worker that dies between a migration and its row in the history would leave a
    /// schema that can neither be used nor migrated.
    pub(super) fn runner(&self) -> Runner {
        let mut runner = Runner::new(&self.migrations).set_grouped(true);
        runner.set_migration_table_name(history(self.part));
        runner
    }

    fn newest(&self) -> i64 {
        self.migrations.iter().map(|migration| i64::from(migration.version())).max().unwrap_or_default()
    }

    /// Whether the database is newer than this program.
    pub(super) fn is_behind(&self, standing: Standing) -> bool {
        standing.version > self.newest()
    }

    /// Whether the database lacks nothing of what this program knows, if what was applied is what it knows.
    pub(super) fn is_level(&self, standing: Standing) -> bool {
        standing.version == self.newest()
    }

    /// Refuses a database whose schema is not of this program's making, or newer than it and does not admit it.
    pub(super) fn admit(&self, standing: Standing, applied: &[Migration]) -> Result<(), OpenError> {
        if let Some(other) = self.migrations.iter().find(|migration| !applied.contains(migration)) {
            return Err(OpenError::Refused(format!(
                "{}: {other} was applied with another content",
                self.place
            )));
        }
        let (place, newest) = (self.place, self.newest());
        if standing.oldest_worker > newest {
            return Err(OpenError::Refused(format!(
                "{place} has schema version {} of {}, and programs that know none from version {} on must not use it; this \
                 one knows version {newest}: use a newer program",
                standing.version, self.part, standing.oldest_worker
            )));
        }
        if self.is_behind(standing) {
            tracing::info!(
                place,
                schema = standing.version,
                known = newest,
                "the database's schema is newer than this program, and admits it"
            );
        }
        Ok(())
    }
}

/// The table of the migrations of a part that were applied.
pub(super) fn history(part: &str) -> String {
    format!("{part}_migrations")
}

/// A history that does not fit.
pub(super) fn refused(place: &str, error: &refinery::Error) -> OpenError {
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    OpenError::Refused(format!(
        "cannot migrate {place}: {error}{source}; it was made by another build of this program: use that one, or \
         another database"
    ))
}
