//! One batch, one transaction: three round trips for a batch with effects, one for a batch of reads.

use std::{slice, time::Duration};

use tokio::time::timeout;

use super::{
    fault::{Fault, Kind},
    rows::{self, Around},
    session::{Session, Sessions},
    sql::Sql,
};
use crate::{
    backoff::Backoff,
    failpoints::{failpoint, mutant},
    service::{Reply, Request, Service, Unavailable, batch, rows::Wanted},
    store::{Options, refused},
};

/// How often a batch is run before others are told that it does not get through; the engine then asks again.
const TRIES: u32 = 10;
/// The back-off between them: the other worker has mostly committed by then.
const CONFLICT_WAITS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// Longer than the server lets anything take. What has not ended by then never will, and its session is closed.
const GIVE_UP: Duration = Duration::from_secs(120);

/// What a transaction is made of.
pub(super) struct Batch<'a, S> {
    pub(super) requests: &'a [Request<S>],
    pub(super) options: &'a Options,
    pub(super) sql: &'a Sql,
}

/// What kind of transaction a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Locks what it may change.
    Write,
    /// Sees one snapshot, locks nothing, and waits for nobody.
    Read,
    /// Shows whether users and replies can be written; of no batch.
    Probe,
}

impl Mode {
    /// The isolation is said each time, whatever the role's or the database's default is.
    fn begin(self) -> &'static str {
        match self {
            Self::Write | Self::Probe => "BEGIN ISOLATION LEVEL READ COMMITTED",
            Self::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }
}

/// The time that a commit takes is the disk's and the standbys'. If the server cut it off, it would answer as if the
/// standbys had it.
const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// Runs a batch: all of it is committed, or nothing, or that is not known. Not to be cancelled: a conflict is run
/// again, and the caller would not know of what was committed.
pub(super) async fn run<S: Service>(
    sessions: &Sessions,
    mode: Mode,
    batch: &Batch<'_, S>,
) -> Result<Vec<Reply>, Unavailable> {
    let mut backoff = Backoff::new(CONFLICT_WAITS.0, CONFLICT_WAITS.1);
    let mut tries = 0;
    loop {
        let fault = match timeout(GIVE_UP, run_once(sessions, mode, batch)).await {
            Ok(Ok(replies)) => return Ok(replies),
            Ok(Err(Fault::Uncertain(_))) if mutant!(UnknownCommitFailed) => {
                let failed = || batch::internal("the commit failed");
                return Ok(batch.requests.iter().map(|_| failed()).collect());
            }
            Ok(Err(fault)) => fault,
            Err(_) => Fault::NoSession(format!("nothing was answered within {GIVE_UP:?}")),
        };
        tries += 1;
        if !matches!(fault.kind(), Kind::Conflict | Kind::Lost) || tries == TRIES {
            return Err(Unavailable(format!("{}: {fault}", sessions.place()).into()));
        }
        tracing::debug!(%fault, tries, "the batch runs again");
        backoff.wait().await;
    }
}

async fn run_once<S: Service>(
    sessions: &Sessions,
    mode: Mode,
    batch: &Batch<'_, S>,
) -> Result<Vec<Reply>, Fault> {
    let session = sessions.lease().await?;
    let mut outcome = match mode {
        Mode::Probe => probe(&session, batch).await,
        Mode::Write | Mode::Read => run_together(&session, mode, batch).await,
    };
    if mode != Mode::Probe && matches!(&outcome, Err(fault) if fault.kind() == Kind::Refusal) {
        session.batch_execute("ROLLBACK").await?;
        outcome = run_one_by_one(&session, mode, batch).await;
    }
    // After any other fault the session is closed.
    let is_sound = match &outcome {
        Ok(_) => true,
        Err(fault) => fault.kind() == Kind::Conflict && session.batch_execute("ROLLBACK").await.is_ok(),
    };
    if is_sound {
        session.give_back();
    }
    outcome
}

async fn probe<S: Service>(session: &Session, batch: &Batch<'_, S>) -> Result<Vec<Reply>, Fault> {
    session.batch_execute(Mode::Probe.begin()).await?;
    session.batch_execute(&batch.sql.probe).await?;
    session.batch_execute(rows::PROBE).await?;
    commit::<S>(session, &[]).await?;
    Ok(Vec::new())
}

async fn run_together<S: Service>(
    session: &Session,
    mode: Mode,
    batch: &Batch<'_, S>,
) -> Result<Vec<Reply>, Fault> {
    // Reads decide nothing that would have to be known before the end.
    let after = if mode == Mode::Read { "COMMIT" } else { "" };
    let replies = answer(session, Around { before: mode.begin(), after }, batch).await?;
    if mode == Mode::Write {
        commit(session, batch.requests).await?;
    }
    Ok(replies)
}

/// What the database refuses of a single request becomes that request's reply.
async fn run_one_by_one<S: Service>(
    session: &Session,
    mode: Mode,
    batch: &Batch<'_, S>,
) -> Result<Vec<Reply>, Fault> {
    // All locks first, as one by one they would be taken out of order.
    rows::lock(session, batch.sql, mode.begin(), &Wanted::by(batch.requests)).await?;
    let savepoint = Around { before: "SAVEPOINT one", after: "" };
    let mut replies = Vec::with_capacity(batch.requests.len());
    for request in batch.requests {
        let one = Batch { requests: slice::from_ref(request), ..*batch };
        match answer(session, savepoint, &one).await {
            Ok(answered) => replies.extend(answered),
            Err(fault) if fault.kind() == Kind::Refusal => {
                session.batch_execute("ROLLBACK TO one").await?;
                replies.push(refused(request, &fault));
            }
            Err(fault) => return Err(fault),
        }
        session.batch_execute("RELEASE one").await?;
    }
    commit(session, batch.requests).await?;
    Ok(replies)
}

/// Loads what the requests name, runs them, and saves what they changed.
async fn answer<S: Service>(
    session: &Session,
    around: Around,
    batch: &Batch<'_, S>,
) -> Result<Vec<Reply>, Fault> {
    let Batch { requests, options, sql } = *batch;
    let (mut rows, mut inbox) = rows::load(session, sql, around, &Wanted::by(requests)).await?;
    // Read under the locks: a deadline may pass, and an id grow too old, while a batch waits for them.
    let now = (options.clock)();
    let replies = batch::run(requests, &mut rows, &mut inbox, now, options.retention);
    rows::save(session, sql, &rows, &inbox).await?;
    Ok(replies)
}

/// A session that is lost now may have committed.
async fn commit<S: Service>(session: &Session, requests: &[Request<S>]) -> Result<(), Fault> {
    failpoint!(BeforeCommit, requests, await ?);
    let committed = session.batch_execute(COMMIT).await.map_err(Fault::from);
    committed.map_err(|fault| match (fault.kind(), fault) {
        (Kind::Lost, Fault::Database(error)) => Fault::Uncertain(error),
        (_, fault) => fault,
    })?;
    failpoint!(AfterCommit, requests, await ?);
    Ok(())
}
