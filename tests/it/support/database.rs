//! A database of a test's own, gone when the test ends. `RABBITRY_TEST_STORE` chooses its kind.

use std::{env, path::Path, sync::Arc};

use rabbitry::{
    service::{Service, Store},
    store::{self, Options},
};
use rusqlite::{Connection, types::ValueRef};
use tempfile::TempDir;
use users::Users;

use super::postgres::{Own, Session};

pub struct Database {
    pub url: String,
    kind: Kind,
}

enum Kind {
    Sqlite(#[expect(dead_code, reason = "it is deleted when dropped")] TempDir),
    Postgres(#[expect(dead_code, reason = "it is deleted when dropped")] Own),
}

/// Whether PostgreSQL is tested, as `RABBITRY_TEST_STORE` says; else it is SQLite.
///
/// # Panics
/// If it names another kind.
pub fn is_postgres() -> bool {
    match env::var("RABBITRY_TEST_STORE").as_deref() {
        Err(_) | Ok("" | "sqlite") => false,
        Ok("postgres") => true,
        Ok(other) => panic!("RABBITRY_TEST_STORE is sqlite or postgres, not {other:?}"),
    }
}

impl Database {
    /// A database of the kind that is tested.
    ///
    /// # Panics
    /// As [`is_postgres`], or if there is no server.
    pub fn new() -> Self {
        if is_postgres() { Self::postgres() } else { Self::sqlite() }
    }

    /// A database of SQLite, for tests about it.
    pub fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { url: format!("sqlite:{}", dir.path().join("users.db").display()), kind: Kind::Sqlite(dir) }
    }

    /// A schema of PostgreSQL, for tests about it.
    pub fn postgres() -> Self {
        Self::of(Own::schema())
    }

    pub fn of(own: Own) -> Self {
        Self { url: own.url.clone(), kind: Kind::Postgres(own) }
    }

    /// The file of a database of SQLite.
    pub fn path(&self) -> &Path {
        Path::new(self.url.strip_prefix("sqlite:").expect("it is a file"))
    }

    /// What one worker process has: each call makes another.
    pub(crate) async fn open(&self) -> Worker {
        self.open_with(Options::default()).await
    }

    pub(crate) async fn open_with(&self, options: Options) -> Worker {
        open(&self.url, options).await
    }

    /// The same for another service than that of users.
    pub(crate) async fn open_as<S: Service>(&self) -> Worker<S> {
        open(&self.url, Options::default()).await
    }

    /// The same database by another URL.
    pub(crate) async fn open_at(&self, url: &str) -> Worker {
        open(url, Options::default()).await
    }

    /// What the database itself answers, each value as text.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        match self.kind {
            Kind::Sqlite(_) => sqlite_rows(&self.sqlite_connection(), sql),
            Kind::Postgres(_) => Session::open(&self.url).rows(sql).unwrap(),
        }
    }

    /// A number that the database itself answers.
    pub fn number(&self, sql: &str) -> i64 {
        self.rows(sql)[0][0].parse().unwrap()
    }

    /// Whether there is a table of users yet.
    pub fn has_users(&self) -> bool {
        let sql = match &self.kind {
            Kind::Sqlite(_) if !self.path().exists() => return false,
            Kind::Sqlite(_) => "SELECT count(*) FROM sqlite_schema WHERE name = 'users'",
            Kind::Postgres(_) => {
                "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'users'"
            }
        };
        self.number(sql) > 0
    }

    /// Changes the database behind the store's back, with what one kind or the other understands.
    pub fn meddle(&self, sqlite: &str, postgres: &str) {
        match self.kind {
            Kind::Sqlite(_) => self.sqlite_connection().execute_batch(sqlite).unwrap(),
            Kind::Postgres(_) => drop(Session::open(&self.url).rows(postgres).unwrap()),
        }
    }

    fn sqlite_connection(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(super::SOON).unwrap();
        connection
    }
}

async fn open<S: Service>(url: &str, options: Options) -> Worker<S> {
    Worker { store: store::open(url, options).await.unwrap() }
}

fn sqlite_rows(connection: &Connection, sql: &str) -> Vec<Vec<String>> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let text = |value: ValueRef<'_>| match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
        ValueRef::Blob(bytes) => format!("{bytes:02x?}"),
    };
    let rows = statement.query_map([], |row| (0..columns).map(|n| row.get_ref(n).map(text)).collect());
    rows.unwrap().map(Result::unwrap).collect()
}

/// Another program that holds up everybody who writes to the store, until it is dropped.
pub enum ForeignWriter {
    Sqlite(Connection),
    Postgres(Session),
}

impl ForeignWriter {
    pub fn begin(store: &Database) -> Self {
        match store.kind {
            Kind::Sqlite(_) => {
                let connection = store.sqlite_connection();
                connection.execute_batch("BEGIN IMMEDIATE").unwrap();
                Self::Sqlite(connection)
            }
            Kind::Postgres(_) => {
                let session = Session::open(&store.url);
                session.rows("BEGIN; LOCK TABLE users IN EXCLUSIVE MODE").unwrap();
                Self::Postgres(session)
            }
        }
    }

    pub fn end(self) {
        match self {
            Self::Sqlite(connection) => connection.execute_batch("COMMIT").unwrap(),
            Self::Postgres(session) => drop(session.rows("COMMIT").unwrap()),
        }
    }
}

/// The store of one worker.
pub(crate) struct Worker<S: Service = Users> {
    pub(crate) store: Arc<dyn Store<S>>,
}
