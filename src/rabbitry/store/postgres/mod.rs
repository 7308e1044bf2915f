//! PostgreSQL: one database that the workers of many machines share.
//!
//! * A batch is one transaction at READ COMMITTED: users that it may change are locked in the order of their names, rows
//!   that are not there yet are inserted only if they still are not, and else the whole batch is run again.
//! * A commit is answered when it is on the disk (`synchronous_commit`), which each session is checked for.
//! * A batch of reads sees one snapshot, locks nothing, and has sessions of its own, so that it waits for no writer.
//! * Batches run in tasks of their own: who gives up waiting does not cut a transaction off in the middle.
//! * What a worker holds when it is frozen or cut off, the server frees after some seconds, see [`address`].
//! * Old replies are forgotten a few at a time, see [`purge`].

mod address;
mod copy;
mod fault;
mod migrations;
mod purge;
mod rows;
mod session;
mod sql;
mod tls;
mod transaction;

use std::{marker::PhantomData, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    task::JoinHandle,
    time::{error::Elapsed, timeout},
};

use self::{
    address::Address,
    fault::refused_or_unavailable,
    session::Sessions,
    sql::Sql,
    transaction::{Batch, Mode, run},
};
pub(super) use self::{address::described, copy::Database};
use super::{OpenError, Options};
use crate::{
    limits::CONNECT_TIMEOUT,
    service::{Access, Reply, Request, Service, Store, Unavailable},
};

/// Batches with effects that one worker runs at a time. The engine hands over one, or one for each queue while the
/// queues have connections of their own. (Tried: handing over the next ones while one commits, with 1, 2 and 4 sessions,
/// was as fast at 64 commands in flight.)
const WRITERS: usize = 2;
/// Batches of reads that one worker runs at a time.
const READERS: usize = 2;
/// How long a question for readiness may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A store on a server. Its sessions end when it is dropped.
pub struct PostgresStore<S> {
    writers: Sessions,
    readers: Sessions,
    options: Options,
    sql: Arc<Sql>,
    purge: JoinHandle<()>,
    id: String,
    commands: PhantomData<fn(S)>,
}

impl<S: Service> PostgresStore<S> {
    /// Opens a database and brings its schema up to date. Needs a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// Refused, with what to do, if the URL, the login or a right is wrong, the database could lose data or is another
    /// program's, or its schema is too new for this program.
    pub async fn open(url: &str, options: Options) -> Result<Self, OpenError> {
        let address = Address::parse(url)?;
        let id = prepare::<S>(&address).await?;
        let writers = Sessions::new(&address, WRITERS)?;
        let readers = Sessions::new(&address, READERS)?;
        // One session more, as writers must not wait for it.
        let purge = tokio::spawn(purge::run(Sessions::new(&address, 1)?, options.clone()));
        let sql = Arc::new(Sql::of::<S::Entity>(S::NAME));
        Ok(Self { writers, readers, options, sql, purge, id, commands: PhantomData })
    }

    /// Runs a batch in a task of its own, which goes on if nobody waits for it any more.
    async fn apply_in(&self, mode: Mode, requests: Arc<[Request<S>]>) -> Result<Vec<Reply>, Unavailable> {
        let sessions = if mode == Mode::Read { &self.readers } else { &self.writers }.clone();
        let (options, sql) = (self.options.clone(), Arc::clone(&self.sql));
        let task = tokio::spawn(async move {
            run(&sessions, mode, &Batch { requests: &requests, options: &options, sql: &sql }).await
        });
        task.await.map_err(|error| Unavailable(format!("the store's task failed: {error}").into()))?
    }
}

/// Inspects the server and applies migrations, in a session of its own; returns the store's id.
async fn prepare<S: Service>(address: &Address) -> Result<String, OpenError> {
    let place = address.place();
    let connected = timeout(CONNECT_TIMEOUT, address.connect()).await.map_err(|_: Elapsed| {
        OpenError::Unavailable(Unavailable(
            format!("{place} does not answer within {CONNECT_TIMEOUT:?}").into(),
        ))
    })?;
    let (mut client, _) = connected.map_err(|error| refused_or_unavailable("connect to", place, &error))?;
    session::inspect(&client, place).await?;
    migrations::apply::<S>(&mut client, place).await?;
    session::id(&client, address).await
}

impl<S: Service> Store<S> for PostgresStore<S> {
    fn apply(
        &self,
        access: Access,
        batch: Arc<[Request<S>]>,
    ) -> BoxFuture<'_, Result<Vec<Reply>, Unavailable>> {
        let mode = if access == Access::Read { Mode::Read } else { Mode::Write };
        Box::pin(self.apply_in(mode, batch))
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            let nothing = || Arc::from(Vec::new());
            let both = async {
                self.apply_in(Mode::Probe, nothing()).await?;
                self.apply_in(Mode::Read, nothing()).await
            };
            match timeout(PATIENCE, both).await {
                Ok(answer) => answer.map(drop),
                Err(_) => Err(Unavailable(
                    format!("{} does not answer within {PATIENCE:?}", self.writers.place()).into(),
                )),
            }
        })
    }
}

impl<S> Drop for PostgresStore<S> {
    fn drop(&mut self) {
        self.purge.abort();
    }
}
