//! The description of a topology, in the form that RabbitMQ exports and imports.

use std::collections::BTreeSet;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    amqp::{dead_letters, exchange, queue},
    config::ConfigError,
    service::Spec,
};

/// The queue for replies to what is published by hand in the management UI.
const CONSOLE: &str = "reply.console";
/// Deliveries without an acknowledgement after which the broker dead-letters a command.
const DELIVERY_LIMIT: u32 = 20;
/// Commands that a queue holds at most; more are refused to their publishers.
const LENGTH_MAX: u32 = 100_000;
/// Bytes that a command queue holds at most.
const LENGTH_BYTES_MAX: u32 = 512 * 1024 * 1024;
/// How long a command waits in its queue, in milliseconds, before it is dead-lettered: 3 days. It must be shorter than
/// the time for which replies are remembered.
const TTL_MS: u32 = 3 * 24 * 3600 * 1000;

/// Exchanges, queues, bindings and policies. Whatever else a file of definitions holds (users, permissions) is never
/// read, so that it cannot be sent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Definitions {
    /// The exchanges.
    pub exchanges: Vec<Exchange>,
    /// The queues.
    pub queues: Vec<Queue>,
    /// What goes from which exchange where.
    pub bindings: Vec<Binding>,
    /// The settings of queues.
    pub policies: Vec<Policy>,
}

/// An exchange.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    #[serde(default, skip_serializing)]
    vhost: Option<String>,
    /// direct, fanout, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it outlives the broker's restart.
    pub durable: bool,
    /// Whether it goes with its last binding.
    #[serde(default)]
    pub auto_delete: bool,
    /// Whether only other exchanges may publish to it.
    #[serde(default)]
    pub internal: bool,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// A queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: String,
    #[serde(default, skip_serializing)]
    vhost: Option<String>,
    /// Whether it outlives the broker's restart.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    #[serde(default)]
    pub auto_delete: bool,
    /// Its arguments; they cannot be changed later.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// Its type, as a broker tells it: it may be the virtual host's default, and no argument.
    #[serde(default, rename = "type", skip_serializing)]
    pub reported_type: Option<String>,
    /// The name of the policy in force; only a broker tells it.
    #[serde(default, skip_serializing)]
    pub policy: Option<String>,
}

impl Exchange {
    fn durable(name: &str, kind: &str) -> Self {
        Self {
            name: name.to_owned(),
            vhost: None,
            kind: kind.to_owned(),
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Map::new(),
        }
    }
}

impl Binding {
    fn to_queue(source: &str, destination: &str, routing_key: &str) -> Self {
        Self {
            source: source.to_owned(),
            vhost: None,
            destination: destination.to_owned(),
            destination_type: "queue".to_owned(),
            routing_key: routing_key.to_owned(),
            arguments: Map::new(),
        }
    }
}

impl Queue {
    fn durable(name: &str, kind: &str) -> Self {
        Self {
            name: name.to_owned(),
            vhost: None,
            durable: true,
            auto_delete: false,
            arguments: Map::from_iter([("x-queue-type".to_owned(), kind.into())]),
            reported_type: None,
            policy: None,
        }
    }

    /// classic, quorum, …
    pub fn kind(&self) -> &str {
        let declared = || self.arguments.get("x-queue-type").and_then(Value::as_str);
        self.reported_type.as_deref().or_else(declared).unwrap_or("classic")
    }
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// The exchange.
    pub source: String,
    #[serde(default, skip_serializing)]
    vhost: Option<String>,
    /// The queue or exchange.
    pub destination: String,
    /// Which of the two.
    pub destination_type: String,
    /// The routing key.
    pub routing_key: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// A policy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    #[serde(default, skip_serializing)]
    vhost: Option<String>,
    /// A regular expression of names.
    pub pattern: String,
    /// queues, exchanges or all (later brokers know more).
    #[serde(rename = "apply-to", default = "all")]
    pub apply_to: String,
    /// Of several policies whose pattern fits, the one with the highest priority is in force.
    #[serde(default)]
    pub priority: i64,
    /// The settings.
    pub definition: Map<String, Value>,
}

fn all() -> String {
    "all".to_owned()
}

impl Definitions {
    /// The topology that services need, each a name and its commands, and a queue for replies to what is published by
    /// hand.
    pub fn of(services: &[(&str, &[Spec])]) -> Self {
        let mut all = Self::default();
        for &(service, commands) in services {
            all.add(service, commands);
        }
        all.queues.push(Queue::durable(CONSOLE, "classic"));
        let settings = json!({"max-length": 1000, "overflow": "drop-head", "message-ttl": 24 * 3600 * 1000});
        all.policies.push(Policy::on_queues("reply-console", &regex::escape(CONSOLE), settings));
        all
    }

    fn add(&mut self, service: &str, commands: &[Spec]) {
        let (commands_exchange, dead) = (exchange(service), dead_letters(service));
        self.exchanges.push(Exchange::durable(&commands_exchange, "direct"));
        self.exchanges.push(Exchange::durable(&dead, "fanout"));
        for command in commands {
            let queue = queue(service, command.name);
            self.bindings.push(Binding::to_queue(&commands_exchange, &queue, command.name));
            self.queues.push(Queue::durable(&queue, "quorum"));
        }
        self.queues.push(Queue::durable(&dead, "quorum"));
        self.bindings.push(Binding::to_queue(&dead, &dead, ""));
        let names: Vec<_> = commands.iter().map(|command| command.name).collect();
        let pattern = format!("{}\\.({})", regex::escape(service), names.join("|"));
        let settings = json!({
            "delivery-limit": DELIVERY_LIMIT,
            "dead-letter-exchange": dead,
            "dead-letter-strategy": "at-least-once",
            "overflow": "reject-publish",
            "max-length": LENGTH_MAX,
            "max-length-bytes": LENGTH_BYTES_MAX,
            "message-ttl": TTL_MS,
            "queue-leader-locator": "balanced",
        });
        self.policies.push(Policy::on_queues(&format!("{service}-commands"), &pattern, settings));
        // What is looked at counts as delivered, and nothing may leave the dead-letter queue by itself.
        let settings = json!({"delivery-limit": 1_000_000_000, "queue-leader-locator": "balanced"});
        self.policies.push(Policy::on_queues(&format!("{service}-dead"), &regex::escape(&dead), settings));
    }

    /// The definitions as a broker loads them at its start: everything on the default virtual host.
    pub fn to_file(&self) -> String {
        let mut file = serde_json::to_value(self).expect("definitions serialize to JSON");
        for objects in file.as_object_mut().into_iter().flat_map(Map::values_mut) {
            for object in objects.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                object.insert("vhost".to_owned(), "/".into());
            }
        }
        format!("{file:#}\n")
    }

    /// Reads a file of definitions.
    ///
    /// # Errors
    /// [`ConfigError`] if it is none, or one of several virtual hosts.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let definitions: Self = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| ConfigError::new(format!("not a file of RabbitMQ definitions: {error}")))?;
        let vhosts = definitions.vhosts();
        if vhosts.len() > 1 {
            let example = "export one of them: GET /api/definitions/{vhost}";
            return Err(ConfigError::new(format!(
                "the definitions are of several virtual hosts ({vhosts:?}); {example}"
            )));
        }
        if definitions.queues.is_empty() && definitions.exchanges.is_empty() {
            return Err(ConfigError::new("the definitions hold neither queues nor exchanges".to_owned()));
        }
        for policy in &definitions.policies {
            policy.regex()?;
        }
        Ok(definitions)
    }

    fn vhosts(&self) -> BTreeSet<&str> {
        let exchanges = self.exchanges.iter().map(|exchange| &exchange.vhost);
        let queues = self.queues.iter().map(|queue| &queue.vhost);
        let bindings = self.bindings.iter().map(|binding| &binding.vhost);
        let policies = self.policies.iter().map(|policy| &policy.vhost);
        exchanges.chain(queues).chain(bindings).chain(policies).flatten().map(String::as_str).collect()
    }

    /// The policy that is to be in force for a queue.
    pub fn policy_of(&self, queue: &Queue) -> Option<&Policy> {
        let fits = |policy: &&Policy| {
            let on_queues = matches!(policy.apply_to.as_str(), "queues" | "all")
                || policy.apply_to.strip_suffix("_queues").is_some_and(|kind| kind == queue.kind());
            on_queues && policy.regex().is_ok_and(|pattern| pattern.is_match(&queue.name))
        };
        self.policies.iter().filter(fits).max_by_key(|policy| policy.priority)
    }
}

impl Policy {
    fn on_queues(name: &str, pattern: &str, settings: Value) -> Self {
        Self {
            name: name.to_owned(),
            vhost: None,
            pattern: format!("^{pattern}$"),
            apply_to: "queues".to_owned(),
            priority: 10,
            definition: serde_json::from_value(settings).expect("settings are an object"),
        }
    }

    fn regex(&self) -> Result<Regex, ConfigError> {
        Regex::new(&self.pattern).map_err(|error| {
            ConfigError::new(format!("the pattern of policy {:?} cannot be read: {error}", self.name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_needs_is_read_as_it_is_written_and_loses_its_virtual_host() {
        let own = Definitions::of(&[("shop", &[Spec::write("order"), Spec::read("get")])]);
        assert!(own.to_file().contains("\"vhost\": \"/\""));
        let read = Definitions::parse(&own.to_file()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&own).unwrap());
        assert!(!serde_json::to_string(&read).unwrap().contains("vhost"));
        let policy = |name: &str| {
            let queue = own.queues.iter().find(|queue| queue.name == name).unwrap();
            own.policy_of(queue).unwrap().name.as_str()
        };
        assert_eq!(
            ["shop.order", "shop.get", "shop.dead", "reply.console"].map(policy),
            ["shop-commands", "shop-commands", "shop-dead", "reply-console"]
        );
    }

    #[test]
    fn users_and_permissions_are_never_sent() {
        let file = r#"{"rabbit_version": "4.0.9", "users": [{"name": "root"}], "permissions": [{"user": "root"}],
            "queues": [{"name": "q", "durable": true}]}"#;
        let sent = serde_json::to_string(&Definitions::parse(file).unwrap()).unwrap();
        assert!(!sent.contains("root"), "{sent}");
    }

    #[test]
    fn what_is_no_single_topology_is_refused() {
        let two = r#"{"queues": [{"name": "q", "vhost": "a", "durable": true}, {"name": "q", "vhost": "b", "durable": true}]}"#;
        let pattern = r#"{"queues": [{"name": "q", "durable": true}], "policies": [{"name": "p", "pattern": "(", "definition": {}}]}"#;
        for (file, names) in
            [("{}", "neither"), ("[1]", "not a file"), (two, "several"), (pattern, "pattern of policy \"p\"")]
        {
            let refused = Definitions::parse(file).unwrap_err();
            assert!(refused.message.contains(names), "{refused}");
        }
    }

    #[test]
    fn the_policy_with_the_highest_priority_that_fits_is_the_one_in_force() {
        let file = r#"{"queues": [{"name": "a.b", "durable": true}], "policies": [
            {"name": "low", "pattern": "^a", "apply-to": "queues", "priority": 1, "definition": {}},
            {"name": "high", "pattern": "b$", "priority": 2, "definition": {}},
            {"name": "other", "pattern": "^b", "priority": 3, "definition": {}},
            {"name": "quorum", "pattern": "", "apply-to": "quorum_queues", "priority": 4, "definition": {}},
            {"name": "exchanges", "pattern": "", "apply-to": "exchanges", "priority": 5, "definition": {}}]}"#;
        let definitions = Definitions::parse(file).unwrap();
        let policy = definitions.policy_of(&definitions.queues[0]).unwrap();
        assert_eq!(policy.name, "high");
    }
}
