//! Requests as a client writes them, and replies as it reads them.

use std::sync::Arc;

use rabbitry::service::{Access, Reply, Request, Service, payload};
use serde_json::{Value, json};

use super::database::Worker;

/// A command that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) command: &'static str,
    pub(crate) body: Value,
    pub(crate) id: Option<String>,
    pub(crate) deadline: Option<i64>,
}

pub(crate) fn ask(command: &'static str, body: Value) -> Ask {
    Ask { command, body, id: None, deadline: None }
}

pub(crate) fn create(username: &str) -> Ask {
    ask("create", json!({"username": username, "email": format!("{username}@example.com")}))
}

pub(crate) fn award(username: &str, points: i64) -> Ask {
    ask("award", json!({"username": username, "points": points}))
}

pub(crate) fn get(username: &str) -> Ask {
    ask("get", json!({"username": username}))
}

pub(crate) fn promote(username: &str) -> Ask {
    ask("promote", json!({"username": username}))
}

impl Ask {
    pub(crate) fn id(self, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..self }
    }

    pub(crate) fn deadline(self, unix_ms: i64) -> Self {
        Self { deadline: Some(unix_ms), ..self }
    }
}

impl<S: Service> Worker<S> {
    /// Answers one batch.
    pub(crate) async fn answer(&self, asks: &[Ask]) -> Vec<Reply> {
        let requests = self.requests(asks);
        self.store.apply(access(&requests), requests).await.unwrap()
    }

    /// Answers one command.
    pub(crate) async fn answer_one(&self, ask: &Ask) -> Reply {
        self.answer(std::slice::from_ref(ask)).await.remove(0)
    }

    pub(crate) fn requests(&self, asks: &[Ask]) -> Arc<[Request<S>]> {
        asks.iter().map(|ask| self.request(ask)).collect()
    }

    fn request(&self, ask: &Ask) -> Request<S> {
        let entry = S::entry(ask.command).unwrap();
        let body = ask.body.to_string();
        let (payload, fingerprint) = payload::decode(entry, body.as_bytes()).unwrap();
        let command = entry.spec;
        Request { command, id: ask.id.clone(), deadline: ask.deadline, fingerprint, payload }
    }
}

/// A read, if all of them are.
pub(crate) fn access<S>(requests: &[Request<S>]) -> Access {
    let is_read = |request: &Request<S>| request.command.access == Access::Read;
    if requests.iter().all(is_read) { Access::Read } else { Access::Write }
}

/// A reply's body.
pub(crate) fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

/// What a reply comes down to: a problem's code, or the status of a success.
pub(crate) fn gist(reply: &Reply) -> String {
    let body = body(reply);
    match body["code"].as_str() {
        Some(code) => {
            assert_eq!(body["status"], reply.status);
            code.to_owned()
        }
        None => reply.status.to_string(),
    }
}

pub(crate) fn gists(replies: &[Reply]) -> Vec<String> {
    replies.iter().map(gist).collect()
}
