//! The schema and its versions; see [`crate::store::schema`].

use std::path::Path;

use refinery::Target;
use rusqlite::{Connection, OptionalExtension};

use crate::{
    service::{Entity, Service},
    store::{
        OpenError,
        schema::{self, ENGINE, Known, OF_0_1, Standing, history},
        sqlite::fault::failed,
    },
};

/// Stands in the header of our databases; see the first migration.
pub(super) const APPLICATION_ID: i64 = 0x5262_7479;

const ENGINES: &[(&str, &str)] = &[("V1__inbox", include_str!("../migrations/sqlite_V1.sql"))];
const FROM_0_1: &str = include_str!("../migrations/sqlite_from_0_1.sql");

/// Applies the migrations that are missing. To be called under the write lock, as several workers may start at once.
///
/// # Errors
/// Refused, if the database's schema is newer than this program and does not admit it, or has another history.
pub(super) fn apply<S: Service>(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    #[cfg(feature = "failpoints")]
    pass_at_each_commit(connection, true);
    let applied = apply_all::<S>(connection, path);
    #[cfg(feature = "failpoints")]
    pass_at_each_commit(connection, false);
    applied
}

fn apply_all<S: Service>(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let is_of_0_1 = adopt::<S>(connection).map_err(|error| failed("migrate", path, &error))?;
    apply_part(connection, path, ENGINE, ENGINES)?;
    if is_of_0_1 {
        let place = path.display().to_string();
        let runner = Known::parse(S::NAME, S::Entity::TABLE.sqlite, &place)?.runner();
        let made_before = runner.set_target(Target::FakeVersion(1)).run(connection);
        made_before.map_err(|error| explained(path, &error))?;
    }
    apply_part(connection, path, S::NAME, S::Entity::TABLE.sqlite)
}

/// Makes the inbox of version 0.1 today's one. Returns whether the service's table is still that of version 0.1, which has no
/// history of its own.
fn adopt<S: Service>(connection: &mut Connection) -> rusqlite::Result<bool> {
    let is_there = |table: &str| is_there(connection, table);
    // A start that was cut off may have left an empty history.
    let has_history = standing(connection, S::NAME)?.version > 0;
    if has_history || !is_there(OF_0_1)? || !is_there(S::Entity::TABLE.name)? {
        return Ok(false);
    }
    let columns = "SELECT count(*) FROM pragma_table_info('inbox') WHERE name = 'service'";
    if connection.query_row(columns, [], |row| row.get::<_, i64>(0))? == 0 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(&FROM_0_1.replace("SERVICE", S::NAME))?;
        transaction.commit()?;
    }
    Ok(true)
}

pub(super) fn is_there(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection.prepare("SELECT 1 FROM sqlite_schema WHERE name = ?")?.exists([table])
}

fn apply_part(
    connection: &mut Connection,
    path: &Path,
    part: &str,
    all: &[(&str, &str)],
) -> Result<(), OpenError> {
    let place = path.display().to_string();
    let known = Known::parse(part, all, &place)?;
    let standing = standing(connection, part).map_err(|error| failed("read the schema of", path, &error))?;
    if !known.is_behind(standing) {
        return known.runner().run(connection).map(drop).map_err(|error| explained(path, &error));
    }
    let applied =
        known.runner().get_applied_migrations(connection).map_err(|error| explained(path, &error))?;
    known.admit(standing, &applied)
}

#[cfg(feature = "failpoints")]
fn pass_at_each_commit(connection: &mut Connection, on: bool) {
    use crate::failpoints::{Moment, reach};
    let rolls_back = || reach(Moment::InMigration).now().is_err();
    connection.commit_hook(on.then_some(rolls_back)).expect("the connection is this process's own");
}

fn standing(connection: &Connection, part: &str) -> rusqlite::Result<Standing> {
    let history = history(part);
    if !is_there(connection, &history)? {
        return Ok(Standing::default());
    }
    let newest = format!("SELECT coalesce(max(version), 0) FROM {history}");
    let version = connection.query_row(&newest, [], |row| row.get(0))?;
    // A start that was cut off may have left the history without the first migration.
    if version == 0 {
        return Ok(Standing::default());
    }
    let oldest = "SELECT oldest_worker FROM compatibility WHERE part = ?";
    let oldest_worker = connection.query_row(oldest, [part], |row| row.get(0)).optional()?;
    Ok(Standing { version, oldest_worker: oldest_worker.unwrap_or_default() })
}

/// A database that is busy or full may do later; anything else needs somebody.
fn explained(path: &Path, error: &refinery::Error) -> OpenError {
    let from_sqlite = match error.kind() {
        refinery::error::Kind::Connection(_, source) => source.downcast_ref::<rusqlite::Error>(),
        _ => None,
    };
    match from_sqlite {
        Some(error) => failed("migrate", path, error),
        None => schema::refused(&path.display().to_string(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::{Toy, Toys};

    const ALL: &[(&str, &str)] = &[Toy::TABLE.sqlite[0]];

    const WIDENED: (&str, &str) = ("V2__widened", "ALTER TABLE toys ADD COLUMN note TEXT;");
    const NARROWED: (&str, &str) =
        ("V3__narrowed", "ALTER TABLE toys DROP COLUMN note; INSERT INTO compatibility VALUES ('toys', 3);");

    fn try_open(connection: &mut Connection, migrations: &[(&str, &str)]) -> Result<(), String> {
        let path = Path::new("/users.db");
        let applied = apply_part(connection, path, ENGINE, ENGINES)
            .and_then(|()| apply_part(connection, path, Toys::NAME, migrations));
        applied.map_err(|error| error.to_string())
    }

    #[test]
    fn migrations_are_applied_once_and_in_order() {
        let mut connection = Connection::open_in_memory().unwrap();
        try_open(&mut connection, ALL).unwrap();
        try_open(&mut connection, &[ALL[0], WIDENED]).unwrap();
        try_open(&mut connection, &[ALL[0], WIDENED]).unwrap();
        connection.execute("INSERT INTO toys VALUES ('a', 'a@b.c', 0, 'Out', 'widened')", []).unwrap();
        let id: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).unwrap();
        assert_eq!(id, APPLICATION_ID);
    }

    #[test]
    fn a_newer_schema_is_accepted_until_it_says_otherwise() {
        let mut connection = Connection::open_in_memory().unwrap();
        try_open(&mut connection, &[ALL[0], WIDENED]).unwrap();
        try_open(&mut connection, ALL).unwrap();
        try_open(&mut connection, &[ALL[0], WIDENED, NARROWED]).unwrap();
        let refusal = try_open(&mut connection, ALL).unwrap_err();
        assert!(
            refusal.contains("schema version 3 of toys") && refusal.contains("knows version 1"),
            "{refusal}"
        );
        assert!(try_open(&mut connection, &[ALL[0], WIDENED]).is_err());
    }

    #[test]
    fn a_migration_that_was_changed_afterwards_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        try_open(&mut connection, &[ALL[0], WIDENED]).unwrap();
        let other = ("V2__widened", "ALTER TABLE toys ADD COLUMN remark TEXT;");
        let refusal = try_open(&mut connection, &[ALL[0], other]).unwrap_err();
        assert!(refusal.contains("made by another build"), "{refusal}");
        let changed = ("V1__toys", "CREATE TABLE toys (name TEXT);");
        let refusal = try_open(&mut connection, &[changed]).unwrap_err();
        assert!(refusal.contains("another content"), "{refusal}");
    }

    #[test]
    fn a_start_that_was_cut_off_is_made_good() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&format!("CREATE TABLE {} (version int4 PRIMARY KEY, name VARCHAR(255), applied_on VARCHAR(255), checksum VARCHAR(255));", history(ENGINE))).unwrap();
        try_open(&mut connection, ALL).unwrap();
    }

    #[test]
    fn the_schema_itself_refuses_what_no_command_may_write() {
        let mut connection = Connection::open_in_memory().unwrap();
        try_open(&mut connection, ALL).unwrap();
        for values in [
            "('', 'a@b.c', 0, 'Out')",
            "('a', 'a@b.c', -1, 'Out')",
            "('a', 'a@b.c', 9007199254740992, 'Out')",
            "('a', 'a@b.c', 0, 'Odd')",
            "('a', NULL, 0, 'Out')",
        ] {
            let insert = format!("INSERT INTO toys VALUES {values}");
            assert!(connection.execute(&insert, []).is_err(), "{values}");
        }
        connection.execute("INSERT INTO toys VALUES ('a', 'a@b.c', 0, 'Out')", []).unwrap();
    }
}
