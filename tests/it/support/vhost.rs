//! A virtual host of its own for each test, on the broker that `make test` brings up.

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
};

use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    message::{BasicGetMessage, Delivery},
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use rabbitry::{amqp::connection::BrokerUrl, home::Home};
use serde_json::{Value, json};

use super::{eventually, soon};

/// A virtual host; it is deleted when dropped.
pub struct Vhost {
    name: String,
    broker: url::Url,
    management: url::Url,
    pub channel: Channel,
    connection: Connection,
}

impl Vhost {
    /// Makes a virtual host without any queue.
    pub async fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (broker, management) = test_broker();
        request(&management, "PUT", &format!("/api/vhosts/{name}"), None);
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        request(
            &management,
            "PUT",
            &format!("/api/permissions/{name}/{}", management.username()),
            Some(&all),
        );
        let mut url = broker.clone();
        url.set_path(&name);
        let connection = Connection::connect(url.as_str(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { name, broker, management, channel, connection }
    }

    /// Makes a virtual host with the queues of a service, as its definitions would bring them.
    pub async fn with_service(service: &str, commands: &[&str]) -> Self {
        let vhost = Self::create().await;
        vhost.declare_service(service, commands, 20).await;
        vhost
    }

    pub async fn declare_service(&self, service: &str, commands: &[&str], delivery_limit: i64) {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (exchange, dead) = (format!("{service}.commands"), format!("{service}.dead"));
        for (name, kind) in [(&exchange, lapin::ExchangeKind::Direct), (&dead, lapin::ExchangeKind::Fanout)] {
            let declare =
                self.channel.exchange_declare(name.as_str().into(), kind, durable, FieldTable::default());
            declare.await.unwrap();
        }
        self.declare_queue(&dead, FieldTable::default()).await;
        self.bind(&dead, &dead, "").await;
        for command in commands {
            let queue = format!("{service}.{command}");
            let mut arguments = FieldTable::default();
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(delivery_limit));
            arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(dead.as_str().into()));
            arguments.insert("x-dead-letter-strategy".into(), AMQPValue::LongString("at-least-once".into()));
            arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
            self.declare_queue(&queue, arguments).await;
            self.bind(&queue, &exchange, command).await;
        }
    }

    /// Declares a durable quorum queue.
    pub async fn declare_queue(&self, name: &str, mut arguments: FieldTable) {
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), durable, arguments).await.unwrap();
    }

    async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        let options = QueueBindOptions::default();
        self.channel
            .queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())
            .await
            .unwrap();
    }

    pub async fn delete_queue(&self, name: &str) {
        self.channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL of this virtual host, with the login.
    pub fn url_text(&self) -> String {
        let mut url = self.broker.clone();
        url.set_path(&self.name);
        url.to_string()
    }

    pub fn url(&self) -> BrokerUrl {
        self.url_text().parse().unwrap()
    }

    pub fn management_url(&self) -> &url::Url {
        &self.management
    }

    /// Publishes to a queue through the default exchange, and waits for the confirm.
    pub async fn publish(&self, queue: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish =
            self.channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap();
        let confirmation = publish.await.unwrap();
        assert!(confirmation.is_ack() && confirmation.take_message().is_none(), "{queue} takes the message");
    }

    /// Takes a message out of a queue, waiting for one.
    pub async fn take(&self, queue: &str) -> BasicGetMessage {
        let until = tokio::time::Instant::now() + super::SOON;
        loop {
            let options = BasicGetOptions { no_ack: true };
            if let Some(message) = self.channel.basic_get(queue.into(), options).await.unwrap() {
                return message;
            }
            assert!(tokio::time::Instant::now() < until, "no message comes to {queue}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Messages that are ready in a queue, and its consumers.
    pub async fn counts(&self, queue: &str) -> (u32, u32) {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let channel = self.connection.create_channel().await.unwrap();
        let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap();
        channel.close(200, "done".into()).await.unwrap();
        (found.message_count(), found.consumer_count())
    }

    pub async fn ready(&self, queue: &str) -> u32 {
        self.counts(queue).await.0
    }

    pub async fn wait_for_messages(&self, queue: &str, messages: u32) {
        eventually(&format!("{messages} messages in {queue}"), async || self.ready(queue).await == messages)
            .await;
    }

    pub async fn wait_for_consumers(&self, queue: &str, consumers: u32) {
        eventually(&format!("{consumers} consumers of {queue}"), async || {
            self.counts(queue).await.1 == consumers
        })
        .await;
    }

    /// Asserts what is left at the end of a test: nothing ready, and (after the workers have gone) nothing
    /// unacknowledged, in any queue but those named, which hold as many messages as said.
    pub async fn assert_left(&self, expected: &[(&str, u32)]) {
        let path = format!("/api/queues/{}?disable_stats=true&enable_queue_totals=true", self.name);
        let queues = request(&self.management, "GET", &path, None);
        for queue in queues.as_array().unwrap() {
            let name = queue["name"].as_str().unwrap();
            let expected = expected.iter().find(|(queue, _)| *queue == name).map_or(0, |(_, count)| *count);
            eventually(&format!("{expected} messages are left in {name}"), async || {
                self.ready(name).await == expected
            })
            .await;
        }
    }

    /// Closes the connections whose name contains a text, as an operator would; returns how many.
    pub async fn close_connections(&self, named: &str) -> usize {
        let named_so = |connection: &Value| {
            let name = connection["client_properties"]["connection_name"].as_str()?;
            name.contains(named).then(|| connection["name"].as_str().unwrap().to_owned())
        };
        // The management API learns of a connection some moments after it was opened.
        let found = || self.connections().iter().filter_map(named_so).collect::<Vec<_>>();
        eventually(&format!("a connection named {named}"), async || !found().is_empty()).await;
        let names = found();
        for name in &names {
            let id = name.replace(' ', "%20").replace('>', "%3E");
            request(&self.management, "DELETE", &format!("/api/connections/{id}"), None);
        }
        names.len()
    }

    /// The connections to this virtual host, as the management API shows them.
    pub fn connections(&self) -> Vec<Value> {
        let path = format!("/api/vhosts/{}/connections", self.name);
        request(&self.management, "GET", &path, None).as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let _ = std::panic::catch_unwind(|| {
            request(&self.management, "DELETE", &format!("/api/vhosts/{}", self.name), None)
        });
    }
}

/// The replies to one test, on a queue of its own.
pub struct Replies {
    pub queue: String,
    consumer: lapin::Consumer,
}

impl Replies {
    /// Listens on a queue that workers trust.
    pub async fn listen(vhost: &Vhost, queue: &str) -> Self {
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        vhost.channel.queue_declare(queue.into(), exclusive, FieldTable::default()).await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consume = vhost.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        Self { queue: queue.to_owned(), consumer: consume.await.unwrap() }
    }

    pub async fn next(&mut self) -> Delivery {
        soon("a reply", self.consumer.next()).await.unwrap().unwrap()
    }
}

/// A header of a message.
pub fn header(delivery: &Delivery, name: &str) -> Option<AMQPValue> {
    delivery.properties.headers().as_ref()?.inner().get(name).cloned()
}

/// A header of a message, as text.
pub fn header_text(delivery: &Delivery, name: &str) -> String {
    match header(delivery, name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("header {name} is {other:?}"),
    }
}

fn test_broker() -> (url::Url, url::Url) {
    let state = Home::find().ok().flatten().and_then(|home| home.state().ok()).unwrap_or_default();
    let find = |name: &str, key: &str| {
        let url = env::var(name).ok().or_else(|| state.get(key).cloned());
        let url = url.unwrap_or_else(|| panic!("no broker for the tests; run them with `make test`"));
        url::Url::parse(&url).unwrap()
    };
    (find("RABBITRY_TEST_AMQP_URL", "AMQP_URL"), find("RABBITRY_TEST_MANAGEMENT_URL", "AMQP_MANAGEMENT_URL"))
}

/// Asks the management API.
///
/// # Panics
/// If it refuses.
pub fn request(management: &url::Url, method: &str, path: &str, body: Option<&Value>) -> Value {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let login = format!("{}:{}", management.username(), management.password().unwrap_or_default());
    let mut url = management.clone();
    url.set_username("").unwrap();
    url.set_password(None).unwrap();
    let builder = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", url.as_str().trim_end_matches('/')))
        .header("authorization", format!("Basic {}", STANDARD.encode(login)))
        .header("content-type", "application/json");
    let body = body.map(Value::to_string).unwrap_or_default();
    let response = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .new_agent()
        .run(builder.body(body).unwrap());
    let mut response = response.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let text = response.body_mut().read_to_string().unwrap_or_default();
    assert!(response.status().is_success(), "{method} {path}: {} {text}", response.status());
    serde_json::from_str(&text).unwrap_or(Value::Null)
}
