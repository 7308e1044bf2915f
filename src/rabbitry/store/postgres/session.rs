//! Sessions: opened when they are needed, checked, used again only if nothing was left half done.

use std::{ops::Deref, sync::Arc, time::Duration};

use deadpool_postgres::{
    Connect, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, error::SqlState};

use super::{
    address::Address,
    fault::{Fault, described, open_failed},
};
use crate::{
    clock::unix_ms,
    limits::CONNECT_TIMEOUT,
    store::{OpenError, purge::warn_of_clock},
};

/// How long a batch waits for one of the sessions to be free.
const FREE_TIMEOUT: Duration = Duration::from_secs(30);

/// Some sessions to one server.
#[derive(Clone)]
pub(super) struct Sessions {
    pool: Pool,
    place: Arc<str>,
}

impl Sessions {
    /// At most so many sessions; none is opened yet.
    pub(super) fn new(address: &Address, most: usize) -> Result<Self, OpenError> {
        // A session that died while nobody used it is known as closed, or its first statement fails, which is before
        // anything is decided. So none is asked for a sign of life first, which would cost each batch a round trip.
        let manager = Manager::from_connect(
            address.config().clone(),
            Dial(address.clone()),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(most)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(FREE_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .post_create(Hook::async_fn(|client, _| Box::pin(async move { durable(client).await })))
            .build()
            .map_err(|error| OpenError::Refused(error.to_string()))?;
        Ok(Self { pool, place: address.place().into() })
    }

    /// The server and the database, for people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// A session that nobody else uses.
    pub(super) async fn lease(&self) -> Result<Session, Fault> {
        match self.pool.get().await {
            Ok(object) => Ok(Session(Some(object))),
            Err(PoolError::Backend(error)) => Err(Fault::NoSession(described(&error))),
            Err(PoolError::PostCreateHook(HookError::Backend(error))) => {
                Err(Fault::NoSession(described(&error)))
            }
            Err(PoolError::Timeout(_)) => Err(Fault::NoSession("no session within the time-out".to_owned())),
            Err(error) => Err(Fault::NoSession(error.to_string())),
        }
    }
}

/// Opens sessions as [`Address::connect`] does.
struct Dial(Address);

impl Connect for Dial {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        Box::pin(self.0.connect())
    }
}

/// A session in use. Unless it is given back, it is closed: whatever it was in the middle of is rolled back.
pub(super) struct Session(Option<Object>);

impl Session {
    /// Lets others use it. To be called when no transaction is open.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Deref for Session {
    type Target = Object;

    fn deref(&self) -> &Object {
        self.0.as_ref().expect("a session is there until it is given back or dropped")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

/// Refuses a session whose commits may be lost: a role, a database or a pooler may have set it so.
async fn durable(client: &Client) -> Result<(), HookError> {
    let read = client.query_one("SELECT current_setting('synchronous_commit')", &[]).await;
    let setting: String = read.and_then(|row| row.try_get(0)).map_err(HookError::Backend)?;
    refuse_lossy(&setting).map_err(HookError::message)
}

fn refuse_lossy(synchronous_commit: &str) -> Result<(), String> {
    match synchronous_commit {
        "on" | "remote_apply" => Ok(()),
        other => Err(format!(
            "synchronous_commit is {other}, so that commits would be answered before they are safe; take it out of \
             the options in DATABASE_URL"
        )),
    }
}

/// Looks at a server once: refuses what could lose or change data, and warns of what its owner may not know.
pub(super) async fn inspect(client: &Client, place: &str) -> Result<(), OpenError> {
    let sql = "SELECT current_setting('synchronous_commit'), current_setting('server_encoding'),
                      current_setting('fsync'), current_setting('full_page_writes'),
                      (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let read = async || -> Result<_, Error> {
        let row = client.query_one(sql, &[]).await?;
        let text = |column: usize| row.try_get::<_, String>(column);
        Ok((text(0)?, text(1)?, text(2)?, text(3)?, row.try_get::<_, i64>(4)?))
    };
    let (commit, encoding, fsync, full_page_writes, clock) =
        read().await.map_err(|error| open_failed("inspect", place, &error.into()))?;
    refuse_lossy(&commit).map_err(|what| OpenError::Refused(format!("{place}: {what}")))?;
    if encoding != "UTF8" {
        return Err(OpenError::Refused(format!(
            "{place} is encoded in {encoding}, which cannot hold every text; create it with ENCODING 'UTF8'"
        )));
    }
    for (name, value) in [("fsync", fsync), ("full_page_writes", full_page_writes)] {
        if value != "on" {
            tracing::warn!(
                place,
                "{name} is {value} on this server: a crash of its machine may lose or damage data"
            );
        }
    }
    warn_of_clock(place, unix_ms(), clock);
    Ok(())
}

/// What the server says of itself: in URLs it may have several names, or be a pooler's. Its identifier is made with its
/// data, so a copy of the data on another server has the same.
pub(super) async fn id(client: &Client, address: &Address) -> Result<String, OpenError> {
    let failed = |error: Error| open_failed("identify", address.place(), &error.into());
    let asked = client.query_one("SELECT system_identifier::text FROM pg_control_system()", &[]).await;
    let server = match asked.and_then(|row| row.try_get(0)) {
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => address.hosts(),
        server => server.map_err(failed)?,
    };
    let asked = client.query_one("SELECT current_database() || '/' || current_schema()", &[]).await;
    let within: String = asked.and_then(|row| row.try_get(0)).map_err(failed)?;
    Ok(format!("postgresql:{server}/{within}"))
}
