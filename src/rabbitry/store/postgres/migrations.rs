//! The schema and its versions; see [`crate::store::schema`].

use refinery::Target;
use tokio_postgres::Client;

use super::fault::{Fault, open_failed};
use crate::{
    failpoints::failpoint,
    service::{Entity, Service},
    store::{
        OpenError,
        schema::{self, ENGINE, Known, OF_0_1, Standing, history},
    },
};

/// Held while migrations are applied; the second half of the key is the schema's name. refinery itself takes no lock.
const LOCK: i32 = 0x5262_7479;

const ENGINES: &[(&str, &str)] = &[("V1__inbox", include_str!("../migrations/postgres_V1.sql"))];
const FROM_0_1: &str = include_str!("../migrations/postgres_from_0_1.sql");

/// Applies the migrations that are missing, one worker at a time. Nothing is locked, and no right to change the schema
/// is needed, where none is missing. The session is to be closed afterwards, which gives back the lock.
///
/// # Errors
/// Refused, if the database's schema is newer than this program and does not admit it, or has another history.
pub(super) async fn apply<S: Service>(client: &mut Client, place: &str) -> Result<(), OpenError> {
    let parts =
        [Known::parse(ENGINE, ENGINES, place)?, Known::parse(S::NAME, S::Entity::TABLE.postgres, place)?];
    let mut is_missing = false;
    for known in &parts {
        let now = standing(client, place, known.part).await?;
        is_missing |= !known.is_level(now) && !known.is_behind(now);
    }
    if is_missing {
        lock(client).await.map_err(|error| open_failed("lock the schema of", place, &error))?;
        refuse_foreign::<S>(client, place).await?;
        failpoint!(InMigration, ?);
        // A start that was cut off may have left an empty history.
        let has_history = standing(client, place, S::NAME).await?.version > 0;
        let is_of_0_1 = !has_history && {
            adopt::<S>(client).await.map_err(|error| open_failed("migrate", place, &error))?
        };
        for known in &parts {
            if is_of_0_1 && known.part == S::NAME {
                let made_before = known.runner().set_target(Target::FakeVersion(1)).run_async(client).await;
                made_before.map_err(|error| explained(place, &error))?;
            }
            failpoint!(InMigration, ?);
            known.runner().run_async(client).await.map_err(|error| explained(place, &error))?;
        }
        failpoint!(InMigration, ?);
    }
    for known in &parts {
        let now = standing(client, place, known.part).await?;
        let applied = known.runner().get_applied_migrations_async(client).await;
        known.admit(now, &applied.map_err(|error| explained(place, &error))?)?;
    }
    Ok(())
}

/// Makes the inbox of version 0.1 today's one. Returns whether the service's table, which has no history of its own, is that of
/// version 0.1.
async fn adopt<S: Service>(client: &mut Client) -> Result<bool, Fault> {
    let table = S::Entity::TABLE.name;
    let sql = format!("SELECT to_regclass('{OF_0_1}') IS NOT NULL AND to_regclass('{table}') IS NOT NULL");
    if !client.query_one(&sql, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(false);
    }
    let columns =
        "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('inbox') AND attname = 'service'";
    if client.query_one(columns, &[]).await?.try_get::<_, i64>(0)? == 0 {
        let transaction = client.transaction().await?;
        transaction.batch_execute(&FROM_0_1.replace("SERVICE", S::NAME)).await?;
        transaction.commit().await?;
    }
    Ok(true)
}

/// Waits for a worker that migrates, but not for ever: it may be frozen. Migrating itself may take long.
async fn lock(client: &Client) -> Result<(), Fault> {
    client.batch_execute("SET lock_timeout = '60s'; SET statement_timeout = 0").await?;
    client.execute("SELECT pg_advisory_lock($1, hashtext(current_schema()))", &[&LOCK]).await?;
    client.batch_execute("RESET lock_timeout").await?;
    Ok(())
}

/// What has our tables' names and no history of ours is not ours.
async fn refuse_foreign<S: Service>(client: &Client, place: &str) -> Result<(), OpenError> {
    let foreign = |table: &str, part: &str| {
        format!("(to_regclass('{table}') IS NOT NULL AND to_regclass('{}') IS NULL)", history(part))
    };
    let sql = format!(
        "SELECT to_regclass('{OF_0_1}') IS NULL AND ({} OR {})",
        foreign("inbox", ENGINE),
        foreign(S::Entity::TABLE.name, S::NAME)
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

async fn standing(client: &Client, place: &str, part: &str) -> Result<Standing, OpenError> {
    let read = async {
        let history = history(part);
        let sql = format!("SELECT to_regclass('{history}') IS NOT NULL");
        if !client.query_one(&sql, &[]).await?.try_get::<_, bool>(0)? {
            return Ok(Standing::default());
        }
        let sql = format!("SELECT coalesce(max(version), 0)::bigint FROM {history}");
        let version: i64 = client.query_one(&sql, &[]).await?.try_get(0)?;
        // A start that was cut off may have left the history without the first migration.
        if version == 0 {
            return Ok(Standing::default());
        }
        let sql = "SELECT coalesce(max(oldest_worker), 0) FROM compatibility WHERE part = $1";
        let oldest_worker = client.query_one(sql, &[&part]).await?.try_get(0)?;
        Ok::<_, Fault>(Standing { version, oldest_worker })
    };
    read.await.map_err(|error| open_failed("read the schema of", place, &error))
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
