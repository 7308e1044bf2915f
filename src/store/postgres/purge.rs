//! Forgetting old replies, a few at a time, by one worker at a time.

use std::time::Instant;

use super::{fault::Fault, session::Sessions};
use crate::store::{
    Options,
    purge::{Purge, STEP_ROWS},
};

/// Held by the worker that deletes; the second half of the key is the schema's name.
const LOCK: i32 = 0x5262_747A;

/// By both clocks: that of a worker may be wrong.
const DELETE_OLDEST: &str = "
    DELETE FROM inbox WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM inbox
        WHERE created_at < least($1, (extract(epoch FROM now()) * 1000)::bigint - $2)
        ORDER BY created_at LIMIT $3
    ))";

/// Purges for ever. If it is dropped, the session that it uses is closed.
pub(super) async fn run(sessions: Sessions, options: Options) {
    let mut purge = Purge::new(options.retention, (options.clock)(), Instant::now());
    loop {
        tokio::time::sleep_until(purge.next().into()).await;
        let begun = Instant::now();
        let horizon = purge.begin((options.clock)(), begun);
        match step(&sessions, horizon, purge.retention()).await {
            Ok(deleted) => purge.end(begun, deleted),
            Err(error) => {
                tracing::warn!(place = sessions.place(), %error, "old replies could not be forgotten; it will be tried again");
            }
        }
    }
}

/// Deletes what is too old among the oldest rows, unless another worker does.
async fn step(sessions: &Sessions, horizon: i64, retention: i64) -> Result<u64, Fault> {
    let session = sessions.lease().await?;
    session.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let lock = "SELECT pg_try_advisory_xact_lock($1, hashtext(current_schema()))";
    let deleted = if session.query_one(lock, &[&LOCK]).await?.try_get(0)? {
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&horizon, &retention, &i64::from(STEP_ROWS)];
        session.execute(DELETE_OLDEST, &values).await?
    } else {
        0
    };
    session.batch_execute("COMMIT").await?;
    session.give_back();
    Ok(deleted)
}
