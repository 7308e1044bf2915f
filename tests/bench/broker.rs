//! The broker that was brought up for this: its addresses, and queues that are made alike.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use lapin::{
    options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use rabbitry::{
    amqp::connection::{BrokerUrl, connect},
    home::Home,
};
use serde_json::{Value, json};
use url::Url;

const DEFINITIONS: &str = include_str!("../../rabbitmq/definitions.json");

pub(crate) struct Broker {
    amqp: Url,
    management: Url,
    pub(crate) pid: Option<u32>,
}

impl Broker {
    /// The broker that `broker.sh up` started.
    pub(crate) fn find() -> Result<Self> {
        let state = Home::find()?.context("no broker: run `make bench`")?.state()?;
        let find = |key: &str| state.get(key).with_context(|| format!("no {key}: run `make bench`"));
        Ok(Self {
            amqp: Url::parse(find("AMQP_URL")?)?,
            management: Url::parse(find("AMQP_MANAGEMENT_URL")?)?,
            pid: state.get("BROKER_PID").and_then(|pid| pid.parse().ok()),
        })
    }

    /// The URL as text, for the environment of a process.
    pub(crate) fn url_text(&self, vhost: &str) -> String {
        let mut url = self.amqp.clone();
        url.path_segments_mut().expect("the URL of a broker has a path").clear().push(vhost);
        url.into()
    }

    pub(crate) fn url(&self, vhost: &str) -> Result<BrokerUrl> {
        self.url_text(vhost).parse().map_err(anyhow::Error::msg)
    }

    /// Refuses to measure, and to spoil, queues that somebody uses.
    pub(crate) async fn check_unused(&self, vhost: &str) -> Result<()> {
        let connection = connect(&self.url(vhost)?, "bench").await?;
        let channel = connection.create_channel().await?;
        for queue in ["users.create", "users.get"] {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
            ensure!(
                (found.message_count(), found.consumer_count()) == (0, 0),
                "queue {queue} is in use; run `make bench`, which brings a broker of its own"
            );
        }
        Ok(connection.close(200, "done".into()).await?)
    }

    /// Makes a queue for the echo that is set up like those of the commands, and reached in the same way.
    pub(crate) async fn declare_echo(&self, vhost: &str, queue: &str) -> Result<()> {
        let connection = connect(&self.url(vhost)?, "bench").await?;
        let channel = connection.create_channel().await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        channel.queue_declare(queue.into(), durable, settings_of_commands()?).await?;
        let options = QueueBindOptions::default();
        channel
            .queue_bind(queue.into(), "users.commands".into(), queue.into(), options, FieldTable::default())
            .await?;
        Ok(connection.close(200, "done".into()).await?)
    }

    /// Makes a virtual host with the commands' queues, for a second worker.
    pub(crate) fn create_vhost(&self, vhost: &str) -> Result<()> {
        self.manage("PUT", &format!("/api/vhosts/{vhost}"), &json!({}))?;
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        self.manage("PUT", &format!("/api/permissions/{vhost}/{}", self.management.username()), &all)?;
        let mut definitions: Value = serde_json::from_str(DEFINITIONS)?;
        for kind in definitions.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
            for item in kind.as_array_mut().into_iter().flatten() {
                item["vhost"] = vhost.into();
            }
        }
        self.manage("POST", "/api/definitions", &definitions)
    }

    fn manage(&self, method: &str, path: &str, body: &Value) -> Result<()> {
        let login = (self.management.username(), self.management.password().unwrap_or_default());
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(self.management.join(path)?.as_str())
            .header("authorization", format!("Basic {}", STANDARD.encode(format!("{}:{}", login.0, login.1))))
            .header("content-type", "application/json")
            .body(body.to_string())?;
        ureq::run(request).with_context(|| format!("{method} {path}"))?;
        Ok(())
    }
}

/// What type and policy make of a command's queue, as arguments.
fn settings_of_commands() -> Result<FieldTable> {
    let definitions: Value = serde_json::from_str(DEFINITIONS)?;
    let find = |kind: &str, name: &str| {
        let mut all = definitions[kind].as_array().into_iter().flatten();
        all.find(|item| item["name"] == name).with_context(|| format!("no {name} among the {kind}"))
    };
    let own = &find("queues", "users.create")?["arguments"];
    let policy = &find("policies", "users-commands")?["definition"];
    let mut arguments = FieldTable::default();
    for (name, value) in own.as_object().into_iter().flatten() {
        arguments.insert(name.as_str().into(), argument(value)?);
    }
    for (name, value) in policy.as_object().into_iter().flatten() {
        arguments.insert(format!("x-{name}").into(), argument(value)?);
    }
    Ok(arguments)
}

fn argument(value: &Value) -> Result<AMQPValue> {
    match value {
        Value::String(text) => Ok(AMQPValue::LongString(text.as_str().into())),
        Value::Number(number) => {
            Ok(AMQPValue::LongLongInt(number.as_i64().context("an argument is an integer")?))
        }
        other => bail!("{other} is no argument of a queue"),
    }
}
