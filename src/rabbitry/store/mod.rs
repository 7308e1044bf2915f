//! Where entities are kept: one trait, opened by URL in one place, and one conformance suite for all of them.
//!
//! A store loads what a batch names, runs the batch as a pure function, saves what changed, and commits. It knows
//! rows, not what any command means.

// A program that has one kind of store has no use for all that the others need.
#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "cli")),
    allow(dead_code, unreachable_code, unused_imports, unused_variables)
)]
#![cfg_attr(all(feature = "sqlite", feature = "postgres"), allow(unreachable_patterns))]

mod copy;
#[cfg(feature = "postgres")]
pub mod postgres;
mod purge;
mod schema;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::{fs, path::Path, sync::Arc, time::Duration};

pub use copy::Copied;

use crate::{
    backoff::Backoff,
    clock::unix_ms,
    service::{Reply, Request, Service, Store, Unavailable, batch, inbox::RETENTION},
};

/// How a store behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long replies are remembered.
    pub retention: Duration,
    /// Milliseconds since the Unix epoch; a parameter so that tests can turn it.
    pub clock: fn() -> i64,
}

impl Default for Options {
    fn default() -> Self {
        Self { retention: RETENTION, clock: unix_ms }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration has to be changed.
    #[error("{0}")]
    Refused(String),
    /// A copy that must not be made, or a check that found damage.
    #[error("{0}")]
    NotDone(String),
    /// It may be there later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl OpenError {
    /// Names the setting that holds the URL, where it is not the usual `DATABASE_URL`, which those below name.
    #[must_use]
    pub fn of_setting(self, setting: &str) -> Self {
        match self {
            Self::Refused(sentence) => Self::Refused(sentence.replace("DATABASE_URL", setting)),
            other => other,
        }
    }
}

#[cfg(feature = "failpoints")]
impl From<crate::failpoints::Planted> for OpenError {
    fn from(planted: crate::failpoints::Planted) -> Self {
        Self::Unavailable(Unavailable(planted.into()))
    }
}

/// Opens the store that the URL names: `sqlite:/path/to/users.db`, or `postgresql://user:password@host/database`.
///
/// # Errors
/// [`OpenError`].
pub async fn open<S: Service>(url: &str, options: Options) -> Result<Arc<dyn Store<S>>, OpenError> {
    Ok(match Place::of(url)? {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(path) => Arc::new(sqlite::SqliteStore::open(path.into(), options).await?),
        #[cfg(feature = "postgres")]
        Place::Postgres => Arc::new(postgres::PostgresStore::open(url, options).await?),
        _ => return Err(left_out(url)),
    })
}

/// Copies a store into a file while workers use it; see [`sqlite::backup`]. Blocks.
///
/// # Errors
/// [`OpenError`].
pub fn backup(url: &str, to: &Path) -> Result<(), OpenError> {
    match Place::of(url)? {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(path) => sqlite::backup(there(path)?, to),
        #[cfg(feature = "postgres")]
        Place::Postgres => Err(OpenError::NotDone(format!(
            "{} is copied by PostgreSQL's own tools: pg_dump --format=custom --file=users.dump DATABASE_URL (pg_restore \
             brings it back), or a base backup with the log (pg_basebackup)",
            describe(url)
        ))),
        _ => Err(left_out(url)),
    }
}

/// Checks that a store is whole; see [`sqlite::quick_check`]. Blocks.
///
/// # Errors
/// [`OpenError`].
pub fn check(url: &str) -> Result<(), OpenError> {
    match Place::of(url)? {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(path) => sqlite::quick_check(there(path)?),
        #[cfg(feature = "postgres")]
        Place::Postgres => Err(OpenError::NotDone(format!(
            "{} is checked by PostgreSQL's own tools: pg_amcheck --heapallindexed DATABASE_URL",
            describe(url)
        ))),
        _ => Err(left_out(url)),
    }
}

/// A store of a kind that is not among the features with which the program was built.
fn left_out(url: &str) -> OpenError {
    let kind = url.split(':').next().unwrap_or_default();
    OpenError::Refused(format!(
        "DATABASE_URL names a store of a kind ({kind}) that this program was built without"
    ))
}

/// A file that is there, and is not made by being looked at.
fn there(path: &str) -> Result<&Path, OpenError> {
    if Path::new(path).exists() {
        Ok(Path::new(path))
    } else {
        Err(OpenError::Refused(format!("{path} is not there")))
    }
}

/// Copies a store into another, with the replies that it remembers; workers must be stopped. See [`mod@copy`]. Each
/// store is a URL and the setting that holds it.
///
/// # Errors
/// Refused if there is nothing to copy; not done if the target holds other data.
pub async fn copy<S: Service>(from: (&str, &str), to: (&str, &str)) -> Result<Copied, OpenError> {
    let ((from, from_setting), (to, to_setting)) = (from, to);
    let of_from = |error: OpenError| error.of_setting(from_setting);
    let of_to = |error: OpenError| error.of_setting(to_setting);
    let (source, target) = (Place::of(from).map_err(of_from)?, Place::of(to).map_err(of_to)?);
    #[cfg(feature = "sqlite")]
    if let Place::Sqlite(path) = source {
        there(path)?;
    }
    if is_same((&source, from), (&target, to)) {
        return Err(OpenError::NotDone("a store is not copied into itself".to_owned()));
    }
    let mut from = side::<S>(from, true).await.map_err(of_from)?;
    let mut to = side::<S>(to, false).await.map_err(of_to)?;
    copy::copy(from.as_mut(), to.as_mut()).await
}

/// Whether two URLs name one store. A server is not asked; there the copy would wait for itself and end with a time-out.
fn is_same((from, from_url): (&Place<'_>, &str), (to, to_url): (&Place<'_>, &str)) -> bool {
    match (from, to) {
        #[cfg(feature = "sqlite")]
        (Place::Sqlite(from), Place::Sqlite(to)) => {
            fs::canonicalize(from).is_ok_and(|from| fs::canonicalize(to).is_ok_and(|to| from == to))
        }
        _ => from_url == to_url,
    }
}

async fn side<S: Service>(url: &str, is_source: bool) -> Result<Box<dyn copy::Side<S::Entity>>, OpenError> {
    // As a worker would: with all checks, and the schema up to date.
    drop(open::<S>(url, Options::default()).await?);
    Ok(match Place::of(url)? {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(path) => Box::new(sqlite::File::open(S::NAME, Path::new(path), is_source)?),
        #[cfg(feature = "postgres")]
        Place::Postgres => Box::new(postgres::Database::open::<S>(url, is_source).await?),
        _ => return Err(left_out(url)),
    })
}

/// What a URL names: a kind of store, and where it is.
enum Place<'a> {
    Sqlite(&'a str),
    Postgres,
}

impl<'a> Place<'a> {
    fn of(url: &'a str) -> Result<Self, OpenError> {
        match url.split_once(':') {
            Some(("sqlite", path)) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.is_empty() || path == ":memory:" || path.contains('?') {
                    return Err(OpenError::Refused(
                        "DATABASE_URL names no file; for SQLite it is sqlite:/path/to/users.db, without parameters"
                            .to_owned(),
                    ));
                }
                Ok(Self::Sqlite(path))
            }
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres),
            // The URL itself may hold a password.
            _ => Err(OpenError::Refused(
                "DATABASE_URL names no known store; it looks like sqlite:/path/to/users.db or \
                 postgresql://user:password@host:5432/database"
                    .to_owned(),
            )),
        }
    }
}

/// Opens a store, and tries again for as long as it is not there.
///
/// # Errors
/// [`OpenError::Refused`] if waiting cannot help.
pub async fn open_when_there<S: Service>(
    url: &str,
    options: Options,
) -> Result<Arc<dyn Store<S>>, OpenError> {
    let mut backoff = Backoff::of_store();
    let mut told = None;
    loop {
        let error = match open(url, options.clone()).await {
            Err(OpenError::Unavailable(error)) => error.to_string(),
            result => return result,
        };
        // One line for each change of state.
        if told.as_ref() == Some(&error) {
            tracing::debug!(error, "still waiting for the store");
        } else {
            tracing::warn!(error, "waiting for the store");
        }
        told = Some(error);
        backoff.wait().await;
    }
}

/// The store's URL without a password, for people.
pub fn describe(url: &str) -> String {
    match Place::of(url) {
        #[cfg(feature = "sqlite")]
        Ok(Place::Sqlite(path)) => format!("sqlite:{path}"),
        #[cfg(feature = "postgres")]
        Ok(Place::Postgres) => postgres::described(url),
        _ => "a store that is not known".to_owned(),
    }
}

/// The store's URL without a password, as it is understood also elsewhere: a file is told by its whole path and its machine.
pub fn describe_from_afar(url: &str) -> String {
    match Place::of(url) {
        #[cfg(feature = "sqlite")]
        Ok(Place::Sqlite(path)) => sqlite::id(Path::new(path)),
        _ => describe(url),
    }
}

/// The reply to a request whose effect the database refused. Nothing of it took effect; the reason is logged, as it
/// may tell more about the database than a caller should know.
fn refused<S>(request: &Request<S>, reason: &dyn std::error::Error) -> Reply {
    let (command, id) = (request.command.name, request.id.as_deref());
    tracing::error!(command, message_id = id, %reason, "the database refused what a command would have written");
    batch::internal(
        "the database refused the command; nothing of it took effect, and the message was set aside",
    )
}
