//! The schema and its versions; see [`crate::store::schema`].

use std::path::Path;

use refinery::{Migration, Runner};
use rusqlite::{Connection, OptionalExtension};

pub(super) use crate::store::schema::HISTORY;
use crate::store::{
    OpenError,
    schema::{self, Known, Standing},
    sqlite::fault::failed,
};

/// Stands in the header of our databases; see the first migration.
pub(super) const APPLICATION_ID: i64 = 0x5262_7479;

/// Applies the migrations that are missing. To be called under the write lock, as several workers may start at once.
///
/// # Errors
/// Refused, if the database's schema is newer than this program and does not admit it, or has another history.
pub(super) fn apply(connection: &mut Connection, path: &Path, all: &[(&str, &str)]) -> Result<(), OpenError> {
    let place = path.display().to_string();
    let known = Known::parse(all, &place)?;
    let standing = standing(connection).map_err(|error| failed("read the schema of", path, &error))?;
    if !known.is_behind(standing) {
        return migrate(connection, &known.migrations).map_err(|error| explained(path, &error));
    }
    let applied = Runner::new(&known.migrations)
        .get_applied_migrations(connection)
        .map_err(|error| explained(path, &error))?;
    known.admit(standing, &applied)
}

fn migrate(connection: &mut Connection, known: &[Migration]) -> Result<(), refinery::Error> {
    #[cfg(feature = "failpoints")]
    pass_at_each_commit(connection, true);
    // In one transaction, as each migration and its row in the history would else be two: a worker that dies between them
    // would leave a schema that can neither be used nor migrated.
    let migrated = Runner::new(known).set_grouped(true).run(connection);
    #[cfg(feature = "failpoints")]
    pass_at_each_commit(connection, false);
    migrated.map(drop)
}

#[cfg(feature = "failpoints")]
fn pass_at_each_commit(connection: &mut Connection, on: bool) {
    use crate::failpoints::{Moment, reach};
    let rolls_back = || reach(Moment::InMigration).now().is_err();
    connection.commit_hook(on.then_some(rolls_back)).expect("the connection is this process's own");
}

fn standing(connection: &Connection) -> rusqlite::Result<Standing> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).optional();
    if number(&format!("SELECT 1 FROM sqlite_schema WHERE name = '{HISTORY}'"))?.is_none() {
        return Ok(Standing::default());
    }
    let version = number(&format!("SELECT max(version) FROM {HISTORY}"))?.flatten().unwrap_or_default();
    // A start that was cut off may have left the history without the first migration.
    let oldest_worker = match version {
        0 => 0,
        _ => number("SELECT oldest_worker FROM schema_compatibility")?.flatten().unwrap_or(version),
    };
    Ok(Standing { version, oldest_worker })
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
    use crate::{service::entity::Entity, users::user::User};

    const ALL: &[(&str, &str)] = &[User::TABLE.sqlite[0]];

    const WIDENED: (&str, &str) = ("V2__widened", "ALTER TABLE users ADD COLUMN note TEXT;");
    const NARROWED: (&str, &str) = (
        "V3__narrowed",
        "ALTER TABLE users DROP COLUMN note; UPDATE schema_compatibility SET oldest_worker = 3;",
    );

    fn try_open(connection: &mut Connection, migrations: &[(&str, &str)]) -> Result<(), String> {
        apply(connection, Path::new("/users.db"), migrations).map_err(|error| error.to_string())
    }

    #[test]
    fn migrations_are_applied_once_and_in_order() {
        let mut connection = Connection::open_in_memory().unwrap();
        try_open(&mut connection, ALL).unwrap();
        try_open(&mut connection, &[ALL[0], WIDENED]).unwrap();
        try_open(&mut connection, &[ALL[0], WIDENED]).unwrap();
        connection.execute("INSERT INTO users VALUES ('a', 'a@b.c', 0, 'Bronze', 'widened')", []).unwrap();
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
        assert!(refusal.contains("schema version 3") && refusal.contains("knows version 1"), "{refusal}");
        assert!(try_open(&mut connection, &[ALL[0], WIDENED]).is_err());
    }

    #[test]
    fn a_migration_that_was_changed_afterwards_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        try_open(&mut connection, &[ALL[0], WIDENED]).unwrap();
        let other = ("V2__widened", "ALTER TABLE users ADD COLUMN remark TEXT;");
        let refusal = try_open(&mut connection, &[ALL[0], other]).unwrap_err();
        assert!(refusal.contains("made by another build"), "{refusal}");
        let changed = ("V1__users_and_inbox", "CREATE TABLE users (username TEXT);");
        let refusal = try_open(&mut connection, &[changed]).unwrap_err();
        assert!(refusal.contains("another content"), "{refusal}");
    }

    #[test]
    fn a_start_that_was_cut_off_is_made_good() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&format!("CREATE TABLE {HISTORY} (version int4 PRIMARY KEY, name VARCHAR(255), applied_on VARCHAR(255), checksum VARCHAR(255));")).unwrap();
        try_open(&mut connection, ALL).unwrap();
    }

    #[test]
    fn the_schema_itself_refuses_what_no_command_may_write() {
        let mut connection = Connection::open_in_memory().unwrap();
        try_open(&mut connection, ALL).unwrap();
        for values in [
            "('', 'a@b.c', 0, 'Bronze')",
            "('a', 'a@b.c', -1, 'Bronze')",
            "('a', 'a@b.c', 9007199254740992, 'Bronze')",
            "('a', 'a@b.c', 0, 'Platinum')",
            "('a', NULL, 0, 'Bronze')",
        ] {
            let insert = format!("INSERT INTO users VALUES {values}");
            assert!(connection.execute(&insert, []).is_err(), "{values}");
        }
        connection.execute("INSERT INTO users VALUES ('a', 'a@b.c', 0, 'Bronze')", []).unwrap();
    }
}
