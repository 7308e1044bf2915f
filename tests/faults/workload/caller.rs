//! A client: asks for one thing after another, and asks again until it is answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fastrand::Rng;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    link::Link,
    recorder::{Recorder, What},
};
use crate::history::Action;

/// First wait for a reply; it doubles.
const RESEND_AFTER: Duration = Duration::from_secs(1);
const RESEND_AFTER_MAX: Duration = Duration::from_secs(4);
/// Users who are asked about at a time, and how many commands later the next one comes in.
const USERS: usize = 12;
const COMMANDS_PER_USER: usize = 60;
/// Users who get arrays of awards.
pub const ARRAY_USERS: usize = 8;
/// Time to live of the commands that have a deadline.
const DEADLINE: Duration = Duration::from_secs(3);

pub struct Caller {
    pub client: usize,
    pub link: Arc<Link>,
    pub recorder: Arc<Recorder>,
    pub rng: Rng,
    /// Commands of all callers.
    pub commands: Arc<AtomicUsize>,
    /// How long a command is asked for.
    pub patience: Duration,
}

impl Caller {
    /// Asks until it is told to stop, and finishes what it has begun.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let turn = self.commands.fetch_add(1, Ordering::Relaxed);
            if turn % 53 == 52 {
                let users = (0..ARRAY_USERS).map(array_user).collect();
                self.ask(id(), What::Awards(users), None).await;
                continue;
            }
            let action = self.action(turn / COMMANDS_PER_USER);
            let id = id();
            let deadline = (self.rng.u8(..) < 20).then(|| unix_ms() + DEADLINE.as_millis() as i64);
            if self.rng.u8(..) < 25 && !action.is_read() {
                self.tell(id, action).await;
                continue;
            }
            let asked = self.ask(id.clone(), What::Command(action.clone()), deadline).await;
            let remembered = asked.is_some_and(|index| self.recorder.get(index).is_remembered());
            if self.rng.u8(..) < 6 && remembered {
                self.misuse(id, &action).await;
            }
        }
    }

    /// Takes the id of a command for another content, and for another command.
    async fn misuse(&mut self, id: String, action: &Action) {
        let username = action.username().to_owned();
        if let Action::Award { points, .. } = action {
            self.ask(id.clone(), What::Command(Action::Promote { username: username.clone() }), None).await;
            let other = Action::Award { username, points: points + 1000 };
            self.ask(id, What::OtherContent(other), None).await;
        }
    }

    fn action(&mut self, generation: usize) -> Action {
        let username = format!("u{}", generation + self.rng.usize(..USERS));
        match self.rng.u8(..100) {
            0..15 => {
                let (tag, points) = (self.rng.u16(..), self.rng.i64(0..90));
                let email = format!("{username}.{tag}@example.com");
                Action::Create { username, email, points }
            }
            15..40 => Action::Get { username },
            40..80 => Action::Award { username, points: self.rng.i64(1..30) },
            80..85 => Action::Award { username, points: -self.rng.i64(1..60) },
            _ => Action::Promote { username },
        }
    }

    /// Sends once, and again only until the broker has taken it: whoever does so relies on it that the command is
    /// done. The outcome is not waited for longer than a moment.
    async fn tell(&mut self, id: String, action: Action) {
        let queue = format!("users.{}", action.command());
        let what = What::Command(action);
        let body = body(&what).to_string();
        let index = self.recorder.ask(self.client, id, what, None);
        let end = Instant::now() + self.patience;
        while Instant::now() < end && {
            let ask = self.recorder.get(index);
            !ask.confirmed && ask.replies.is_empty()
        } {
            let attempt = async {
                self.link.publish(index, &queue, body.as_bytes(), self.properties(index)).await;
                self.recorder.wait_for_confirm(index).await;
            };
            let _ = timeout(RESEND_AFTER, attempt).await;
        }
        let _ = timeout(RESEND_AFTER, self.recorder.wait_for_replies(index, 1)).await;
    }

    /// Asks until there is a reply, or patience ends. Some commands are sent twice at once. Returns the ask's index if
    /// it was answered.
    pub async fn ask(&mut self, id: String, what: What, deadline: Option<i64>) -> Option<usize> {
        let queue = format!("users.{}", what.command());
        let body = body(&what).to_string();
        let index = self.recorder.ask(self.client, id, what, deadline);
        let twice = self.rng.u8(..) < 20;
        let end = Instant::now() + self.patience;
        let mut wait = RESEND_AFTER;
        loop {
            let resend_at = (Instant::now() + wait).min(end);
            let attempt = async {
                for _ in 0..=u8::from(twice) {
                    self.link.publish(index, &queue, body.as_bytes(), self.properties(index)).await;
                }
                self.recorder.wait_for_replies(index, 1).await;
            };
            if timeout(resend_at - Instant::now(), attempt).await.is_ok() {
                return Some(index);
            }
            if Instant::now() >= end {
                return None;
            }
            wait = (wait * 2).min(RESEND_AFTER_MAX);
        }
    }

    /// Asks once more for something that was answered, and waits for one more reply.
    pub async fn repeat(&mut self, index: usize) -> bool {
        let ask = self.recorder.get(index);
        let (queue, body) = (format!("users.{}", ask.what.command()), body(&ask.what).to_string());
        let end = Instant::now() + self.patience;
        let before = ask.replies.len();
        while Instant::now() < end {
            let attempt = async {
                self.link.publish(index, &queue, body.as_bytes(), self.properties(index)).await;
                self.recorder.wait_for_replies(index, before + 1).await;
            };
            if timeout(RESEND_AFTER, attempt).await.is_ok() {
                return true;
            }
        }
        false
    }

    fn properties(&self, index: usize) -> BasicProperties {
        let ask = self.recorder.get(index);
        let properties =
            BasicProperties::default().with_message_id(ask.id.as_str().into()).with_delivery_mode(2);
        match ask.deadline {
            Some(deadline) => {
                let mut headers = FieldTable::default();
                headers.insert("deadline".into(), AMQPValue::LongLongInt(deadline));
                properties.with_headers(headers)
            }
            None => properties,
        }
    }
}

pub fn id() -> String {
    uuid::Uuid::now_v7().to_string()
}

pub fn array_user(index: usize) -> String {
    format!("array{index}")
}

pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

fn body(what: &What) -> Value {
    match what {
        What::Command(action) | What::OtherContent(action) => match action {
            Action::Create { username, email, points } => {
                json!({"username": username, "email": email, "points": points})
            }
            Action::Get { username } | Action::Promote { username } => json!({"username": username}),
            Action::Award { username, points } => json!({"username": username, "points": points}),
        },
        What::Awards(users) => {
            users.iter().map(|username| json!({"username": username, "points": 1})).collect()
        }
    }
}
