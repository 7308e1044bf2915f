//! The users service on a virtual host of its own, with worker processes on a store.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use lapin::{
    BasicProperties,
    message::Delivery,
    options::{BasicPublishOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use rabbitry::{Service, Spec};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use users::Users;

pub use super::database::ForeignWriter;
use super::{
    database::Database,
    eventually,
    process::{Place, WorkerProcess},
    vhost::{Replies, Vhost, header, request},
};

/// The commands of the users service.
pub const COMMANDS: &[Spec] = Users::COMMANDS;

/// A virtual host with the users' queues, a store, and a queue for replies.
pub struct Stage {
    pub vhost: Vhost,
    pub place: Place,
    pub replies: Replies,
}

impl Stage {
    pub async fn set() -> Self {
        let vhost = users_vhost().await;
        let replies = Replies::listen(&vhost, "reply.test").await;
        Self { vhost, place: Place::new(), replies }
    }

    /// A worker that consumes.
    pub async fn worker(&self) -> WorkerProcess {
        WorkerProcess::consuming(&self.vhost, &self.place).await
    }

    /// Properties that ask for a reply.
    pub fn asking(&self, id: &str) -> BasicProperties {
        BasicProperties::default()
            .with_reply_to(self.replies.queue.as_str().into())
            .with_correlation_id(id.into())
    }

    /// Sets the number of deliveries after which the broker moves a message to the dead-letter queue.
    pub fn limit_deliveries(&self, queue: &str, limit: u32) {
        let path = format!("/api/policies/{}/limit", self.vhost.name());
        let policy = json!({
            "pattern": format!("^{}$", queue.replace('.', "\\.")),
            "definition": {"delivery-limit": limit, "dead-letter-exchange": "users.dead"},
            "apply-to": "queues",
        });
        request(self.vhost.management_url(), "PUT", &path, Some(&policy));
    }

    /// Sends a command to its queue, without waiting for the reply.
    pub async fn send(&self, command: &str, payload: &Value, properties: BasicProperties) {
        self.vhost.publish(&format!("users.{command}"), payload.to_string().as_bytes(), properties).await;
    }

    /// Sends a command and returns the reply: status and body.
    pub async fn ask(&mut self, command: &str, payload: Value) -> (i32, Value) {
        self.send(command, &payload, self.asking("ask")).await;
        let reply = self.replies.next().await;
        (status(&reply), body(&reply))
    }

    /// The answers to commands whose message and correlation ids are these. As a reply may be lost with its worker, what
    /// is not answered for a while is asked for again, as the client does; what is answered twice must be the same.
    pub async fn answers(
        &mut self,
        command: &str,
        payload: &Value,
        ids: &BTreeSet<String>,
        answers: &mut BTreeMap<String, Delivery>,
    ) {
        let until = Instant::now() + super::SOON;
        while answers.len() < ids.len() {
            match timeout(Duration::from_secs(2), self.replies.next()).await {
                Ok(reply) => {
                    let id = correlation(&reply);
                    assert!(ids.contains(&id), "{reply:?}");
                    match answers.get(&id) {
                        Some(first) => {
                            assert_eq!((status(first), body(first)), (status(&reply), body(&reply)))
                        }
                        None => drop(answers.insert(id, reply)),
                    }
                }
                Err(_) => {
                    for id in ids.iter().filter(|id| !answers.contains_key(*id)) {
                        let properties = self.asking(id).with_message_id(id.as_str().into());
                        self.send(command, payload, properties).await;
                    }
                }
            }
            assert!(Instant::now() < until, "{} of {} are answered", answers.len(), ids.len());
        }
    }

    /// Stops the worker when it has nothing to do, and asserts what is left in the queues.
    pub async fn end(&self, worker: WorkerProcess, left: &[(&str, u32)]) -> String {
        for command in COMMANDS {
            let queue = format!("users.{}", command.name);
            let expected = left.iter().find(|(name, _)| *name == queue).map_or(0, |(_, count)| *count);
            // What was sent a second time, or comes back from a worker that was killed, is handled too. The broker has
            // noticed a worker's end when its consumer is gone.
            crate::support::eventually(&format!("{queue} is quiet"), async || {
                let (ready, consumers) = self.vhost.counts(&queue).await;
                ready == expected && consumers <= 1
            })
            .await;
        }
        let log = worker.stop().await;
        self.vhost.assert_left(left).await;
        log
    }
}

/// A virtual host with the users' queues, and the one for the management UI's replies.
pub async fn users_vhost() -> Vhost {
    let commands: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    let vhost = Vhost::with_service("users", &commands).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    vhost.channel.queue_declare("reply.console".into(), durable, FieldTable::default()).await.unwrap();
    vhost
}

pub fn status(reply: &Delivery) -> i32 {
    match header(reply, "status") {
        Some(AMQPValue::LongInt(status)) => status,
        other => panic!("the status is {other:?}"),
    }
}

pub fn body(reply: &Delivery) -> Value {
    serde_json::from_slice(&reply.data).unwrap()
}

pub fn is_replayed(reply: &Delivery) -> bool {
    header(reply, "replayed") == Some(AMQPValue::Boolean(true))
}

pub fn correlation(reply: &Delivery) -> String {
    reply.properties.correlation_id().as_ref().unwrap().to_string()
}

/// A user as replies show it.
pub fn user(username: &str, points: i64, status: &str) -> Value {
    json!({"username": username, "email": format!("{username}@example.com"), "points": points, "status": status})
}

/// The payload that creates this user.
pub fn new_user(username: &str, points: i64) -> Value {
    json!({"username": username, "email": format!("{username}@example.com"), "points": points})
}

pub fn points(store: &Database, username: &str) -> i64 {
    store.number(&format!("SELECT points FROM users WHERE username = '{username}'"))
}

pub async fn wait_for_points(store: &Database, username: &str, expected: i64) {
    eventually(&format!("{username} has {expected} points"), async || points(store, username) == expected)
        .await;
}

/// A login of the broker with its own rights on one virtual host; it is deleted when dropped.
pub struct Login {
    pub name: String,
    pub url: String,
    management: url::Url,
}

impl Login {
    pub const PASSWORD: &str = "hush-hush-4711";

    /// A login that may configure, write and read what these patterns match.
    pub fn new(vhost: &Vhost, configure: &str, write: &str, read: &str) -> Self {
        let name = format!("{}-login", vhost.name());
        let management = vhost.management_url().clone();
        let account = json!({"password": Self::PASSWORD, "tags": ""});
        request(&management, "PUT", &format!("/api/users/{name}"), Some(&account));
        let rights = json!({"configure": configure, "write": write, "read": read});
        request(&management, "PUT", &format!("/api/permissions/{}/{name}", vhost.name()), Some(&rights));
        let mut url = url::Url::parse(&vhost.url_text()).unwrap();
        url.set_username(&name).unwrap();
        url.set_password(Some(Self::PASSWORD)).unwrap();
        Self { name, url: url.to_string(), management }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        // A second panic would hide the first.
        let _ = std::panic::catch_unwind(|| {
            request(&self.management, "DELETE", &format!("/api/users/{}", self.name), None)
        });
    }
}

impl Vhost {
    /// Publishes to an exchange, and waits for the confirm.
    pub async fn publish_to(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        let confirmation = publish.await.unwrap().await.unwrap();
        assert!(confirmation.is_ack() && confirmation.take_message().is_none(), "{exchange} {key} takes it");
    }

    /// Publishes many messages to a queue and waits for all of their confirms together.
    pub async fn publish_all(
        &self,
        queue: &str,
        messages: impl IntoIterator<Item = (Vec<u8>, BasicProperties)>,
    ) {
        let mut confirms = Vec::new();
        for (body, properties) in messages {
            let options = BasicPublishOptions::default();
            let publish = self.channel.basic_publish("".into(), queue.into(), options, &body, properties);
            confirms.push(publish.await.unwrap());
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    }
}
