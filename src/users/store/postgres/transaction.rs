//! One batch, one transaction: three round trips for a batch with effects, one for a batch of reads.

use std::{slice, time::Duration};

use tokio::time::timeout;

use super::{
    fault::{Fault, Kind},
    rows::{self, Around},
    session::{Session, Sessions},
};
use crate::{
    backoff::Backoff,
    failpoints::{failpoint, mutant},
    service::{Reply, Request, Unavailable, batch},
    users::{
        commands::Command,
        store::{Options, refused},
        working_set::Wanted,
    },
};

/// How often a batch is run before others are told that it does not get through; the engine then asks again.
const TRIES: u32 = 10;
/// The back-off between them: the other worker has mostly committed by then.
const CONFLICT_WAITS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// Longer than the server lets anything take. What has not ended by then never will, and its session is closed.
const GIVE_UP: Duration = Duration::from_secs(120);

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
pub(super) async fn run(
    sessions: &Sessions,
    mode: Mode,
    requests: &[Request<Command>],
    options: &Options,
) -> Result<Vec<Reply>, Unavailable> {
    let mut backoff = Backoff::new(CONFLICT_WAITS.0, CONFLICT_WAITS.1);
    let mut tries = 0;
    loop {
        let fault = match timeout(GIVE_UP, run_once(sessions, mode, requests, options)).await {
            Ok(Ok(replies)) => return Ok(replies),
            Ok(Err(Fault::Uncertain(_))) if mutant!(UnknownCommitFailed) => {
                return Ok(requests.iter().map(|_| batch::internal("the commit failed")).collect());
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

async fn run_once(
    sessions: &Sessions,
    mode: Mode,
    requests: &[Request<Command>],
    options: &Options,
) -> Result<Vec<Reply>, Fault> {
    let session = sessions.lease().await?;
    let mut outcome = match mode {
        Mode::Probe => probe(&session).await,
        Mode::Write | Mode::Read => run_together(&session, mode, requests, options).await,
    };
    if mode != Mode::Probe && matches!(&outcome, Err(fault) if fault.kind() == Kind::Refusal) {
        session.batch_execute("ROLLBACK").await?;
        outcome = run_one_by_one(&session, mode, requests, options).await;
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

async fn probe(session: &Session) -> Result<Vec<Reply>, Fault> {
    session.batch_execute(Mode::Probe.begin()).await?;
    session.batch_execute(rows::PROBE).await?;
    commit(session, &[]).await?;
    Ok(Vec::new())
}

async fn run_together(
    session: &Session,
    mode: Mode,
    requests: &[Request<Command>],
    options: &Options,
) -> Result<Vec<Reply>, Fault> {
    // Reads decide nothing that would have to be known before the end.
    let after = if mode == Mode::Read { "COMMIT" } else { "" };
    let replies = answer(session, Around { before: mode.begin(), after }, requests, options).await?;
    if mode == Mode::Write {
        commit(session, requests).await?;
    }
    Ok(replies)
}

/// What the database refuses of a single request becomes that request's reply.
async fn run_one_by_one(
    session: &Session,
    mode: Mode,
    requests: &[Request<Command>],
    options: &Options,
) -> Result<Vec<Reply>, Fault> {
    // All locks first, as one by one they would be taken out of order.
    rows::lock(session, mode.begin(), &Wanted::by(requests)).await?;
    let savepoint = Around { before: "SAVEPOINT one", after: "" };
    let mut replies = Vec::with_capacity(requests.len());
    for request in requests {
        match answer(session, savepoint, slice::from_ref(request), options).await {
            Ok(answered) => replies.extend(answered),
            Err(fault) if fault.kind() == Kind::Refusal => {
                session.batch_execute("ROLLBACK TO one").await?;
                replies.push(refused(request, &fault));
            }
            Err(fault) => return Err(fault),
        }
        session.batch_execute("RELEASE one").await?;
    }
    commit(session, requests).await?;
    Ok(replies)
}

/// Loads what the requests name, runs them, and saves what they changed.
async fn answer(
    session: &Session,
    around: Around,
    requests: &[Request<Command>],
    options: &Options,
) -> Result<Vec<Reply>, Fault> {
    let (mut users, mut inbox) = rows::load(session, around, &Wanted::by(requests)).await?;
    // Read under the locks: a deadline may pass, and an id grow too old, while a batch waits for them.
    let now = (options.clock)();
    let replies = batch::run(requests, &mut users, &mut inbox, now, options.retention);
    rows::save(session, &users, &inbox, now).await?;
    Ok(replies)
}

/// A session that is lost now may have committed.
async fn commit(session: &Session, requests: &[Request<Command>]) -> Result<(), Fault> {
    failpoint!(BeforeCommit, requests, await ?);
    let committed = session.batch_execute(COMMIT).await.map_err(Fault::from);
    committed.map_err(|fault| match (fault.kind(), fault) {
        (Kind::Lost, Fault::Database(error)) => Fault::Uncertain(error),
        (_, fault) => fault,
    })?;
    failpoint!(AfterCommit, requests, await ?);
    Ok(())
}
