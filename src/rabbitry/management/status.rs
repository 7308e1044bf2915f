//! The state of services: their queues, their workers, their broker.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Management, ManagementError};
use crate::{
    Spec,
    amqp::{
        connection::{STORE_ID_PROPERTY, STORE_PROPERTY},
        dead_letters, queue,
    },
};

/// What the services' part of the broker is like. Numbers of messages are statistics, up to 5 seconds old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The virtual host.
    pub vhost: String,
    /// The broker.
    pub broker: Broker,
    /// For each service the commands' queues and the dead-letter queue, in this order, also those that are not there.
    pub queues: Vec<QueueStatus>,
    /// Messages in the dead-letter queues; `None` if none is there.
    pub dead_letters: Option<u64>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// Publishing connections to this virtual host that the broker makes wait.
    pub blocked_publishers: usize,
}

/// The broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broker {
    /// RabbitMQ's version.
    pub version: String,
    /// The node that answers; `None` if the login may not see it.
    pub node: Option<String>,
    /// Alarms and nodes that are down; `None` if the login may not see them.
    pub alarms: Option<Vec<String>>,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueStatus {
    /// Its name.
    pub name: String,
    /// Whether the broker does not have it.
    pub missing: bool,
    /// classic or quorum.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// running, idle, down, …
    pub state: Option<String>,
    /// Messages that wait.
    pub ready: u64,
    /// Messages that consumers have, and have not acknowledged.
    pub unacknowledged: u64,
    /// Consumers.
    pub consumers: usize,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Worker {
    /// Whose commands it takes.
    pub service: String,
    /// Host and process id.
    pub process: String,
    /// What its connections are for, and their states.
    pub connections: BTreeMap<String, String>,
    /// Where it keeps its state, if it tells.
    pub store: Option<String>,
    /// The same for workers of the same store, whatever they call it.
    pub store_id: Option<String>,
}

impl Status {
    /// What is wrong with the broker, or with the workers.
    pub fn alarms(&self) -> Vec<String> {
        let stores = self.stores_differ().then(|| {
            "the workers of a service have different stores: those that wait consume once the others are gone, and where two consume \
             (--allow-other-stores), each command meets the store of whichever worker takes it; stop those that are wrong"
                .to_owned()
        });
        self.broker.alarms.iter().flatten().cloned().chain(stores).collect()
    }

    /// Whether workers keep their state in different places. A command is then answered by the state of whichever
    /// takes it, and a repetition may be executed again.
    fn stores_differ(&self) -> bool {
        let mut stores: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for worker in &self.workers {
            let id = worker.store_id.as_deref().or(worker.store.as_deref());
            stores.entry(&worker.service).or_default().extend(id);
        }
        stores.values().any(|stores| stores.len() > 1)
    }
}

#[derive(Deserialize)]
struct Overview {
    rabbitmq_version: String,
    node: Option<String>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    #[serde(default)]
    running: bool,
    #[serde(default)]
    mem_alarm: bool,
    #[serde(default)]
    disk_free_alarm: bool,
    #[serde(default)]
    partitions: Vec<String>,
}

#[derive(Deserialize)]
struct QueueTotals {
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    state: Option<String>,
    #[serde(default)]
    messages_ready: u64,
    #[serde(default)]
    messages_unacknowledged: u64,
}

#[derive(Deserialize)]
struct Consumer {
    queue: ConsumerQueue,
}

#[derive(Deserialize)]
struct ConsumerQueue {
    name: String,
}

#[derive(Deserialize)]
struct Connection {
    user_provided_name: Option<String>,
    state: Option<String>,
    #[serde(default)]
    client_properties: serde_json::Map<String, serde_json::Value>,
}

/// Reads the state of services, each with its commands.
///
/// # Errors
/// [`ManagementError`]. Cancel safe.
pub async fn read(
    management: &Management,
    vhost: &str,
    services: &[(&str, &[Spec])],
) -> Result<Status, ManagementError> {
    let overview: Overview = management.get(&["overview"], &[]).await?;
    let current = [("disable_stats", "true"), ("enable_queue_totals", "true")];
    let totals: Vec<QueueTotals> = management.get(&["queues", vhost], &current).await?;
    let consumers: Vec<Consumer> = management.get(&["consumers", vhost], &[]).await?;
    let connections: Vec<Connection> = management.get(&["vhosts", vhost, "connections"], &[]).await?;
    let state = |name| queue_status(name, &totals, &consumers);
    let (mut queues, mut dead, mut all_workers) = (Vec::new(), Vec::new(), Vec::new());
    for (service, commands) in services {
        queues.extend(commands.iter().map(|command| state(queue(service, command.name))));
        let letters = state(dead_letters(service));
        dead.extend((!letters.missing).then_some(letters.ready + letters.unacknowledged));
        queues.push(letters);
        all_workers.extend(workers(service, &connections));
    }
    Ok(Status {
        vhost: vhost.to_owned(),
        broker: Broker {
            version: overview.rabbitmq_version,
            node: overview.node,
            alarms: alarms(management).await?,
        },
        dead_letters: (!dead.is_empty()).then(|| dead.iter().sum()),
        queues,
        workers: all_workers,
        blocked_publishers: connections.iter().filter(|connection| connection.is_blocked()).count(),
    })
}

/// What is wrong with the cluster's nodes. Seeing them takes a right that reading queues does not.
async fn alarms(management: &Management) -> Result<Option<Vec<String>>, ManagementError> {
    let nodes: Vec<Node> = match management.get(&["nodes"], &[]).await {
        Ok(nodes) => nodes,
        Err(ManagementError::NotPermitted { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(nodes.iter().flat_map(Node::alarms).collect()))
}

impl Node {
    fn alarms(&self) -> Vec<String> {
        let Self { name, .. } = self;
        let wrong = [
            (!self.running, "is down"),
            (self.mem_alarm, "lacks memory, publishers are blocked"),
            (self.disk_free_alarm, "lacks disk space, publishers are blocked"),
            (!self.partitions.is_empty(), "is partitioned from other nodes"),
        ];
        wrong.into_iter().filter(|(wrong, _)| *wrong).map(|(_, what)| format!("{name} {what}")).collect()
    }
}

impl Connection {
    fn is_blocked(&self) -> bool {
        matches!(self.state.as_deref(), Some("blocked" | "blocking"))
    }
}

fn queue_status(name: String, totals: &[QueueTotals], consumers: &[Consumer]) -> QueueStatus {
    let found = totals.iter().find(|totals| totals.name == name);
    QueueStatus {
        missing: found.is_none(),
        kind: found.and_then(|totals| totals.kind.clone()),
        state: found.and_then(|totals| totals.state.clone()),
        ready: found.map_or(0, |totals| totals.messages_ready),
        unacknowledged: found.map_or(0, |totals| totals.messages_unacknowledged),
        consumers: consumers.iter().filter(|consumer| consumer.queue.name == name).count(),
        name,
    }
}

/// A worker's connections are called `<service> worker <host>:<pid> (<what for>)`.
fn workers(service: &str, connections: &[Connection]) -> Vec<Worker> {
    let prefix = format!("{service} worker ");
    let mut workers: BTreeMap<&str, Worker> = BTreeMap::new();
    for connection in connections {
        let name = connection.user_provided_name.as_deref().and_then(|name| name.strip_prefix(&prefix));
        let Some((process, purpose)) = name.and_then(|name| name.split_once(" (")) else { continue };
        let purpose = purpose.trim_end_matches(')').to_owned();
        let state = connection.state.clone().unwrap_or_else(|| "running".to_owned());
        let new = || Worker {
            service: service.to_owned(),
            process: process.to_owned(),
            connections: BTreeMap::new(),
            store: None,
            store_id: None,
        };
        let worker = workers.entry(process).or_insert_with(new);
        worker.connections.insert(purpose, state);
        let told = |name| connection.client_properties.get(name)?.as_str().map(ToOwned::to_owned);
        worker.store = told(STORE_PROPERTY).or(worker.store.take());
        worker.store_id = told(STORE_ID_PROPERTY).or(worker.store_id.take());
    }
    workers.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(name: &str, state: &str) -> Connection {
        let told = serde_json::json!({"user_provided_name": name, "state": state});
        serde_json::from_value(told).unwrap()
    }

    fn on_store(name: &str, store: &str) -> Connection {
        let properties = serde_json::json!({"product": "lapin", "store": store, "capabilities": {}});
        let told = serde_json::json!({"user_provided_name": name, "client_properties": properties});
        serde_json::from_value(told).unwrap()
    }

    #[test]
    fn one_process_is_one_worker_however_many_connections_it_has() {
        let connections = [
            connection("users worker b:2 (commands)", "running"),
            connection("users worker a:1 (replies)", "blocked"),
            connection("users worker a:1 (commands)", "running"),
            connection("orders worker a:1 (commands)", "running"),
            connection("rabbitry a:3", "running"),
            serde_json::from_str("{}").unwrap(),
        ];
        let workers = workers("users", &connections);
        let told: Vec<_> =
            workers.iter().map(|worker| (worker.process.as_str(), worker.connections.len())).collect();
        assert_eq!(told, [("a:1", 2), ("b:2", 1)]);
        assert_eq!(workers[0].connections["replies"], "blocked");
    }

    #[test]
    fn workers_on_different_stores_are_noticed() {
        let status = |connections: &[Connection]| Status {
            vhost: "/".to_owned(),
            broker: Broker { version: String::new(), node: None, alarms: None },
            queues: Vec::new(),
            dead_letters: None,
            workers: workers("users", connections),
            blocked_publishers: 0,
        };
        let mut connections = vec![
            on_store("users worker a:1 (commands)", "sqlite:/one on a"),
            on_store("users worker a:2 (commands)", "sqlite:/one on a"),
            connection("users worker a:1 (replies)", "running"),
            connection("users worker old:3 (commands)", "running"),
        ];
        assert_eq!(status(&connections).workers[0].store.as_deref(), Some("sqlite:/one on a"));
        assert!(!status(&connections).stores_differ());
        connections.push(on_store("users worker b:1 (commands)", "sqlite:/one on b"));
        assert!(status(&connections).stores_differ());
    }

    #[test]
    fn a_queue_that_is_not_there_is_told_as_missing() {
        let totals: Vec<QueueTotals> = serde_json::from_str(
            r#"[{"name": "users.get", "type": "quorum", "state": "running", "messages": 5, "messages_ready": 3, "messages_unacknowledged": 2}]"#,
        )
        .unwrap();
        let consumers: Vec<Consumer> =
            serde_json::from_str(r#"[{"queue": {"name": "users.get"}, "consumer_tag": "c"}]"#).unwrap();
        let there = queue_status("users.get".to_owned(), &totals, &consumers);
        assert_eq!((there.missing, there.ready, there.unacknowledged, there.consumers), (false, 3, 2, 1));
        assert!(queue_status("users.list".to_owned(), &totals, &consumers).missing);
    }

    #[test]
    fn alarms_name_the_node() {
        let node: Node =
            serde_json::from_str(r#"{"name": "r@h", "running": true, "disk_free_alarm": true}"#).unwrap();
        assert_eq!(node.alarms(), ["r@h lacks disk space, publishers are blocked"]);
    }
}
