//! The embedded store: one file that all workers of one machine share.
//!
//! * One thread writes and one reads, each on a connection of its own; batches reach them through channels. A batch of
//!   reads sees one snapshot and waits for no writer. A third moves the log into the database, see [`checkpoint`].
//! * A batch is one transaction, on the disk (write-ahead log, `synchronous = FULL`) before it is answered.
//! * The workers' processes write in turn, see [`write_lock`]. While a process is *frozen* (`SIGSTOP`, a debugger) in
//!   the middle of a write, the others wait: they say so after five seconds, and go on when it continues or is killed.
//! * A failed connection is opened again at the next batch; a file that was replaced is not followed.
//! * Old replies are forgotten a few at a time, see [`purge`].

mod backup;
mod checkpoint;
mod connection;
mod copy;
mod fault;
mod lane;
mod migrations;
mod place;
mod purge;
mod reader;
mod rows;
mod session;
mod sql;
mod transaction;
mod write_lock;
mod writer;

use std::{
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;

pub use backup::{backup, quick_check};
pub(super) use copy::File;

use self::{lane::Lane, reader::Reader, write_lock::Wait, writer::Writer};
use super::{OpenError, Options};
use crate::service::{Access, Reply, Request, Service, Store, Unavailable};

/// How long a writer waits for other processes before it says so, and a question for readiness before it is answered.
const PATIENCE: Duration = Duration::from_secs(5);

/// A store on a file. Its threads end when it is dropped.
pub struct SqliteStore<S> {
    writer: Lane<S>,
    reader: Lane<S>,
    wait: Arc<Wait>,
    patience: Duration,
    id: String,
}

/// A file's whole path and its machine.
pub(super) fn id(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.into());
    format!("sqlite:{} on {}", path.display(), gethostname::gethostname().to_string_lossy())
}

impl<S: Service> SqliteStore<S> {
    /// Opens a database; makes it, and the directories above it, if it is not there, and brings its schema up to
    /// date. Waits while another process writes. Needs a tokio runtime with time.
    ///
    /// If the future is dropped, the database may have been made or brought up to date nevertheless.
    ///
    /// # Errors
    /// Refused, with what to do, if the path cannot carry a database (a directory, no permission, a network file
    /// system), or the file is no database, another program's, or of a schema too new for this program.
    pub async fn open(path: PathBuf, options: Options) -> Result<Self, OpenError> {
        connection::check_library()?;
        let wait = Arc::<Wait>::default();
        let named = path.clone();
        let (placed, place) = tokio::sync::oneshot::channel();
        let open_writer = {
            let (wait, options) = (Arc::clone(&wait), options.clone());
            move || {
                let (writer, place) = Writer::<S>::open(&path, options, wait)?;
                // Only a caller who has given up does not receive it.
                let _ = placed.send(place);
                Ok(writer)
            }
        };
        let writer = noticing(&wait, PATIENCE, Lane::start("sqlite-writer", open_writer)).await?;
        let place = place.await.map_err(|error| OpenError::Unavailable(Unavailable(error.into())))?;
        let reader = Lane::start("sqlite-reader", move || Reader::<S>::open(place, options)).await?;
        Ok(Self { writer, reader, wait, patience: PATIENCE, id: id(&named) })
    }
}

impl<S: Service> Store<S> for SqliteStore<S> {
    fn apply(
        &self,
        access: Access,
        batch: Arc<[Request<S>]>,
    ) -> BoxFuture<'_, Result<Vec<Reply>, Unavailable>> {
        match access {
            Access::Read => Box::pin(self.reader.ask(batch)),
            Access::Write => Box::pin(noticing(&self.wait, self.patience, self.writer.ask(batch))),
        }
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        let nothing = || Arc::from(Vec::new());
        Box::pin(async move {
            let both = async {
                self.apply(Access::Write, nothing()).await?;
                self.apply(Access::Read, nothing()).await
            };
            match tokio::time::timeout(self.patience, both).await {
                Ok(answer) => answer.map(drop),
                Err(_) => Err(Unavailable(
                    format!(
                        "the database did not answer within {:?}; another process may be frozen while it holds the write lock",
                        self.patience
                    )
                    .into(),
                )),
            }
        })
    }
}

/// Waits for a writer's work and tells, once for each wait, that it stands behind another process.
async fn noticing<T>(wait: &Wait, patience: Duration, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        match tokio::time::timeout(patience, &mut work).await {
            Ok(done) => return done,
            Err(_) if wait.is_news(patience) => tracing::warn!(
                "waiting for the database's write lock, held by another process; if that one is frozen, let it \
                 continue or kill it"
            ),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
