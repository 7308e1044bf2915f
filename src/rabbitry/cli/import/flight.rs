//! The messages under way: their answers come out in the order of the file.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use serde::Deserialize;

use super::{
    chunks::Chunk,
    rows::{RefusedRow, Row},
    target::Target,
};
use crate::{
    amqp::client::{Answer, CallError, Client, Command},
    backoff::Backoff,
    cli::Failure,
    exit,
    service::Code,
};

/// A chunk whose outcome is known.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) rows: u64,
    /// Rows whose command has succeeded.
    pub(super) done: u64,
    /// Rows whose second command has.
    pub(super) then_done: u64,
    /// Rows that were answered before: to an earlier run, or to an earlier try of this one.
    pub(super) repeated: u64,
    /// In the order of their lines.
    pub(super) refused: Vec<RefusedRow>,
    pub(super) offset: u64,
}

/// A chunk whose outcome is not known.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) lines: (u64, u64),
    pub(super) failure: Failure,
}

/// How chunks are sent.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) timeout: Duration,
    pub(super) target: Arc<Target>,
}

/// The chunks under way.
pub(super) struct Flight {
    sender: Sender,
    limit: usize,
    under_way: FuturesOrdered<BoxFuture<'static, (Chunk, Result<Answered, Unanswered>)>>,
    keys: HashSet<String>,
}

impl Flight {
    pub(super) fn new(sender: Sender, limit: usize) -> Self {
        Self { sender, limit, under_way: FuturesOrdered::new(), keys: HashSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether a chunk may be sent now. Of two rows about the same key the first one of the file is executed first, whichever
    /// way the messages take, so the second one waits for the answer to the first.
    pub(super) fn takes(&self, chunk: &Chunk) -> bool {
        let is_under_way = |row: &Row| row.keys.iter().any(|key| self.keys.contains(key));
        self.under_way.len() < self.limit && !chunk.rows.iter().any(is_under_way)
    }

    pub(super) fn send(&mut self, mut chunk: Chunk) {
        self.keys.extend(chunk.rows.iter().flat_map(|row| row.keys.iter().cloned()));
        let sender = self.sender.clone();
        let send = async move {
            let lines = chunk.lines();
            let refused = std::mem::take(&mut chunk.refused);
            let result = sender.ask_all(&chunk, refused).await;
            (chunk, result.map_err(|failure| Unanswered { lines, failure }))
        };
        self.under_way.push_back(send.boxed());
    }

    /// What became of the first chunk under way; `None` if there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Result<Answered, Unanswered>> {
        let (chunk, result) = self.under_way.next().await?;
        for key in chunk.rows.iter().flat_map(|row| &row.keys) {
            self.keys.remove(key);
        }
        Some(result)
    }
}

impl Sender {
    async fn ask_all(&self, chunk: &Chunk, refused: Vec<RefusedRow>) -> Result<Answered, Failure> {
        let mut answered = Answered {
            rows: (chunk.rows.len() + refused.len()) as u64,
            done: 0,
            then_done: 0,
            repeated: 0,
            refused,
            offset: chunk.offset,
        };
        let rows: Vec<_> = chunk.rows.iter().collect();
        let payloads = rows.iter().map(|row| &row.payload[..]);
        if let Some(command) = chunk.message(self.target.command.name, payloads) {
            let (done, repeated) = self.ask(&command, &rows, &mut answered.refused).await?;
            answered.done = done.len() as u64;
            answered.repeated = if repeated { rows.len() as u64 } else { 0 };
            answered.then_done = self.follow(chunk, &done, &mut answered.refused).await?;
        }
        answered.refused.sort_by_key(|refused| refused.line);
        Ok(answered)
    }

    /// Sends the second command for rows whose first one has succeeded. Returns how many succeeded.
    async fn follow(
        &self,
        chunk: &Chunk,
        rows: &[&Row],
        refused: &mut Vec<RefusedRow>,
    ) -> Result<u64, Failure> {
        let Some(then) = &self.target.then else { return Ok(0) };
        let payloads = rows.iter().filter_map(|row| row.then.as_deref());
        let Some(command) = chunk.message(then.command.name, payloads) else { return Ok(0) };
        let (done, _) = self.ask(&command, rows, refused).await?;
        Ok(done.len() as u64)
    }

    /// Sends a message about some rows. Returns those that were done, and whether the answer was given before; the
    /// others are added to the refused ones.
    async fn ask<'a>(
        &self,
        command: &Command,
        rows: &[&'a Row],
        refused: &mut Vec<RefusedRow>,
    ) -> Result<(Vec<&'a Row>, bool), Failure> {
        let answer = self.call(command).await?;
        let items = read_items(&answer, rows.len()).map_err(|what| {
            let message = format!("the answer to message {} cannot be read: {what}", command.message_id);
            Failure::new(exit::INTERNAL, message)
        })?;
        let mut done = Vec::with_capacity(rows.len());
        for (row, item) in rows.iter().zip(items) {
            match item.code {
                None => done.push(*row),
                Some(code) => refused.push(RefusedRow::answered(&self.target, row, &code, &item.detail)),
            }
        }
        Ok((done, answer.replayed))
    }

    /// Asks until the outcome is known, or the time is over.
    async fn call(&self, command: &Command) -> Result<Answer, Failure> {
        let until = Instant::now() + self.timeout;
        let mut backoff = Backoff::of_store();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = self.client.call(command, left).await;
            let answer = answer.map_err(|error| no_answer(&error))?;
            match answer.problem() {
                Some(problem) if is_unfinished(&problem.code) => {
                    let wait = backoff.next_wait();
                    if Instant::now() + wait >= until || problem.code != Code::UNAVAILABLE.name {
                        return Err(Failure::of_problem(answer.status, &problem));
                    }
                    tokio::time::sleep(wait).await;
                }
                _ => return Ok(answer),
            }
        }
    }
}

fn no_answer(error: &CallError) -> Failure {
    match error {
        CallError::Timeout { .. } => {
            let message = format!("{error}; whether these rows were imported is not known");
            Failure::new(exit::TRY_AGAIN, message)
        }
        _ => Failure::of_call(error, None),
    }
}

/// Whether a message with this problem can still be executed.
fn is_unfinished(code: &str) -> bool {
    code == Code::UNAVAILABLE.name || code == Code::DEADLINE_EXCEEDED.name
}

/// What was answered to one row: a problem, or a result of which nothing more has to be known.
#[derive(Debug, Clone, Deserialize)]
struct Item {
    code: Option<String>,
    #[serde(default)]
    detail: String,
}

fn read_items(answer: &Answer, rows: usize) -> Result<Vec<Item>, String> {
    // A problem of the whole message (a fault of the worker took all of it back) is one of each row.
    if let Some(problem) = answer.problem() {
        let item = Item { code: Some(problem.code), detail: problem.detail };
        return Ok(vec![item; rows]);
    }
    let items: Vec<Item> = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    if items.len() == rows {
        Ok(items)
    } else {
        Err(format!("it holds {} results for {rows} rows", items.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.as_bytes().to_vec(), replayed: false }
    }

    #[test]
    fn an_answer_has_a_result_for_each_row() {
        let body = r#"[{"name":"ann","count":1},{"code":"user_exists","detail":"there is","state":409}]"#;
        let items = read_items(&answer(200, body), 2).unwrap();
        let codes: Vec<_> = items.iter().map(|item| item.code.as_deref()).collect();
        assert_eq!(codes, [None, Some("user_exists")]);
        assert_eq!(items[1].detail, "there is");
        for (body, rows) in [(body, 3), (body, 1), ("{}", 1), ("", 1)] {
            assert!(read_items(&answer(200, body), rows).is_err(), "{body}");
        }
    }

    #[test]
    fn a_problem_of_the_message_is_one_of_each_row() {
        let body = r#"{"code":"internal","detail":"a panic","state":500,"retryable":false}"#;
        let items = read_items(&answer(500, body), 3).unwrap();
        assert_eq!(items.len(), 3);
        assert!(items.iter().all(|item| item.code.as_deref() == Some("internal")));
    }
}
