//! The schema and its versions; see [`crate::store::schema`].

use refinery::Runner;
use tokio_postgres::Client;

use super::fault::{Fault, open_failed};
use crate::{
    failpoints::failpoint,
    service::entity::Table,
    store::{
        OpenError,
        schema::{self, HISTORY, Known, Standing},
    },
};

/// Held while migrations are applied; the second half of the key is the schema's name. refinery itself takes no lock.
const LOCK: i32 = 0x5262_7479;

/// Applies the migrations that are missing, one worker at a time. Nothing is locked, and no right to change the schema
/// is needed, where none is missing. The session is to be closed afterwards, which gives back the lock.
///
/// # Errors
/// Refused, if the database's schema is newer than this program and does not admit it, or has another history.
pub(super) async fn apply(client: &mut Client, place: &str, table: &Table) -> Result<(), OpenError> {
    let known = Known::parse(table.postgres, place)?;
    // In one transaction: a worker that dies between a migration and its row in the history would leave a schema that can
    // neither be used nor migrated.
    let runner = Runner::new(&known.migrations).set_grouped(true);
    let mut now = standing(client).await.map_err(|error| open_failed("read the schema of", place, &error))?;
    if !known.is_level(now) && !known.is_behind(now) {
        lock(client).await.map_err(|error| open_failed("lock the schema of", place, &error))?;
        refuse_foreign(client, place, table.name).await?;
        failpoint!(InMigration, ?);
        runner.run_async(client).await.map_err(|error| explained(place, &error))?;
        failpoint!(InMigration, ?);
        now = standing(client).await.map_err(|error| open_failed("read the schema of", place, &error))?;
    }
    let applied = runner.get_applied_migrations_async(client).await;
    known.admit(now, &applied.map_err(|error| explained(place, &error))?)
}

/// Waits for a worker that migrates, but not for ever: it may be frozen. Migrating itself may take long.
async fn lock(client: &Client) -> Result<(), Fault> {
    client.batch_execute("SET lock_timeout = '60s'; SET statement_timeout = 0").await?;
    client.execute("SELECT pg_advisory_lock($1, hashtext(current_schema()))", &[&LOCK]).await?;
    client.batch_execute("RESET lock_timeout").await?;
    Ok(())
}

/// What has our tables' names and no history of ours is not ours.
async fn refuse_foreign(client: &Client, place: &str, table: &str) -> Result<(), OpenError> {
    let sql = format!(
        "SELECT to_regclass('{HISTORY}') IS NULL AND coalesce(to_regclass('{table}'), to_regclass('inbox')) IS NOT NULL"
    );
    let found = client.query_one(&sql, &[]).await.and_then(|row| row.try_get(0));
    match found.map_err(|error| open_failed("read the schema of", place, &error.into()))? {
        false => Ok(()),
        true => Err(OpenError::Refused(format!(
            "{place} has tables of another program; choose another database, or another schema with \
             ?options=-csearch_path=NAME"
        ))),
    }
}

async fn standing(client: &Client) -> Result<Standing, Fault> {
    let sql = format!("SELECT to_regclass('{HISTORY}') IS NOT NULL");
    if !client.query_one(&sql, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Standing::default());
    }
    let sql = format!("SELECT coalesce(max(version), 0)::bigint FROM {HISTORY}");
    let version: i64 = client.query_one(&sql, &[]).await?.try_get(0)?;
    // A start that was cut off may have left the history without the first migration.
    let oldest_worker = match version {
        0 => 0,
        _ => client.query_one("SELECT oldest_worker FROM schema_compatibility", &[]).await?.try_get(0)?,
    };
    Ok(Standing { version, oldest_worker })
}

/// A database that is busy or away may do later; anything else needs somebody.
fn explained(place: &str, error: &refinery::Error) -> OpenError {
    if let refinery::error::Kind::Connection(_, source) = error.kind()
        && let Some(error) = source.downcast_ref::<tokio_postgres::Error>()
    {
        return super::fault::refused_or_unavailable("migrate", place, error);
    }
    schema::refused(place, error)
}
