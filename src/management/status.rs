//! The state of a service: its queues, its workers, its broker.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{Management, ManagementError};
use crate::amqp::{dead_letters, queue};

/// What a service's part of the broker is like. Numbers of messages are statistics, up to 5 seconds old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The virtual host.
    pub vhost: String,
    /// The broker.
    pub broker: Broker,
    /// The commands' queues and the dead-letter queue, in this order, also those that are not there.
    pub queues: Vec<QueueStatus>,
    /// Messages in the dead-letter queue; `None` if it is not there.
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
    /// Host and process id.
    pub process: String,
    /// What its connections are for, and their states.
    pub connections: BTreeMap<String, String>,
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
}

/// Reads the state of a service's queues, workers and broker.
///
/// # Errors
/// [`ManagementError`]. Cancel safe.
pub async fn read(
    management: &Management,
    vhost: &str,
    service: &str,
    commands: &[&str],
) -> Result<Status, ManagementError> {
    let overview: Overview = management.get(&["overview"], &[]).await?;
    let current = [("disable_stats", "true"), ("enable_queue_totals", "true")];
    let totals: Vec<QueueTotals> = management.get(&["queues", vhost], &current).await?;
    let consumers: Vec<Consumer> = management.get(&["consumers", vhost], &[]).await?;
    let connections: Vec<Connection> = management.get(&["vhosts", vhost, "connections"], &[]).await?;
    let names = commands.iter().map(|command| queue(service, command)).chain([dead_letters(service)]);
    let queues: Vec<_> = names.map(|name| queue_status(name, &totals, &consumers)).collect();
    let dead = queues.last().filter(|queue| !queue.missing);
    Ok(Status {
        vhost: vhost.to_owned(),
        broker: Broker {
            version: overview.rabbitmq_version,
            node: overview.node,
            alarms: alarms(management).await?,
        },
        dead_letters: dead.map(|queue| queue.ready + queue.unacknowledged),
        queues,
        workers: workers(service, &connections),
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
    let mut workers: HashMap<&str, BTreeMap<String, String>> = HashMap::new();
    for connection in connections {
        let name = connection.user_provided_name.as_deref().and_then(|name| name.strip_prefix(&prefix));
        let Some((process, purpose)) = name.and_then(|name| name.split_once(" (")) else { continue };
        let purpose = purpose.trim_end_matches(')').to_owned();
        let state = connection.state.clone().unwrap_or_else(|| "running".to_owned());
        workers.entry(process).or_default().insert(purpose, state);
    }
    let mut workers: Vec<_> = workers
        .into_iter()
        .map(|(process, connections)| Worker { process: process.to_owned(), connections })
        .collect();
    workers.sort_by(|one, other| one.process.cmp(&other.process));
    workers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(name: &str, state: &str) -> Connection {
        Connection { user_provided_name: Some(name.to_owned()), state: Some(state.to_owned()) }
    }

    #[test]
    fn one_process_is_one_worker_however_many_connections_it_has() {
        let connections = [
            connection("users worker b:2 (commands)", "running"),
            connection("users worker a:1 (replies)", "blocked"),
            connection("users worker a:1 (commands)", "running"),
            connection("orders worker a:1 (commands)", "running"),
            connection("rabbitry a:3", "running"),
            Connection { user_provided_name: None, state: None },
        ];
        let workers = workers("users", &connections);
        let told: Vec<_> =
            workers.iter().map(|worker| (worker.process.as_str(), worker.connections.len())).collect();
        assert_eq!(told, [("a:1", 2), ("b:2", 1)]);
        assert_eq!(workers[0].connections["replies"], "blocked");
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
