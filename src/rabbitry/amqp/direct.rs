//! Which nodes direct replies are sent to.
//!
//! RabbitMQ 3.10 closes the connection that publishes to a direct reply-to address of a node that is gone, and takes along
//! the replies of others. A producer can name such an address as often as it likes. So the first reply to a node travels
//! on a connection of its own: if the broker confirms it, the node is known, and if it closes the connection, the node gets
//! no replies for a while, longer each time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    connection::{BrokerUrl, close, connect},
    replies::{OutgoingReply, Replies},
    reply_to::node_of,
    short,
};
use crate::limits::{DIRECT_BLOCK, DIRECT_BLOCK_MAX, DIRECT_NODES_MAX, REPLY_TIMEOUT};

/// What is known of nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes(Arc<Mutex<HashMap<String, Node>>>);

#[derive(Debug, Clone, Copy)]
enum Node {
    Known,
    Blocked { until: Instant, next_block: Duration },
}

/// What to do with a reply.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Send,
    Try,
    Drop,
}

impl Nodes {
    fn locked<T>(&self, act: impl FnOnce(&mut HashMap<String, Node>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What to do with a reply to this queue now.
    pub(super) fn judge(&self, reply_to: &str, now: Instant) -> Verdict {
        let Some(name) = node_of(reply_to) else { return Verdict::Send };
        self.locked(|nodes| match nodes.get(&name) {
            Some(Node::Known) => Verdict::Send,
            Some(Node::Blocked { until, .. }) if now < *until => Verdict::Drop,
            Some(Node::Blocked { .. }) => Verdict::Try,
            None if nodes.len() < DIRECT_NODES_MAX => Verdict::Try,
            None => {
                nodes.retain(|_, node| !matches!(node, Node::Blocked { until, .. } if *until <= now));
                if nodes.len() < DIRECT_NODES_MAX { Verdict::Try } else { Verdict::Drop }
            }
        })
    }

    fn confirmed(&self, name: String) {
        self.locked(|nodes| nodes.insert(name, Node::Known));
    }

    /// The node closed the connection. Returns how long it is blocked.
    fn closed(&self, name: String, now: Instant) -> Duration {
        self.locked(|nodes| {
            let block = match nodes.get(&name) {
                Some(Node::Blocked { next_block, .. }) => *next_block,
                _ => DIRECT_BLOCK,
            };
            let next_block = (block * 2).min(DIRECT_BLOCK_MAX);
            nodes.insert(name, Node::Blocked { until: now + block, next_block });
            block
        })
    }

    /// The connection of known nodes is lost, perhaps because one of them has gone: each is tried again.
    pub(super) fn forget_known(&self) {
        self.locked(|nodes| nodes.retain(|_, node| !matches!(node, Node::Known)));
    }
}

/// Tries nodes, one after another, until `stop` is cancelled and no reply waits.
pub(super) async fn try_nodes(
    url: &BrokerUrl,
    name: &str,
    waiting: &mut mpsc::Receiver<OutgoingReply>,
    replies: &Replies,
    stop: &CancellationToken,
) {
    loop {
        let reply = tokio::select! {
            biased;
            reply = waiting.recv() => reply,
            () = stop.cancelled() => None,
        };
        let Some(reply) = reply else { return };
        // Another reply may have told meanwhile.
        let lost = match replies.nodes.judge(&reply.reply_to, Instant::now()) {
            Verdict::Send => replies.publish(&[reply]).await > 0,
            Verdict::Try => !try_node(url, name, reply, &replies.nodes).await,
            Verdict::Drop => true,
        };
        if lost {
            debug!("a direct reply was dropped; its caller gets it by asking again with the same message id");
        }
    }
}

/// Publishes a reply on a connection of its own. Returns whether it was confirmed.
async fn try_node(url: &BrokerUrl, name: &str, reply: OutgoingReply, nodes: &Nodes) -> bool {
    let Some(node) = node_of(&reply.reply_to) else { return false };
    let Ok(connection) = connect(url, name).await else { return false };
    let mut published = false;
    let confirm = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        published = true;
        let (queue, options) = (short(&reply.reply_to), BasicPublishOptions::default());
        let confirm = channel.basic_publish("".into(), queue, options, &reply.body, reply.properties);
        confirm.await?.await?;
        Ok::<_, lapin::Error>(channel)
    };
    let confirmed = timeout(REPLY_TIMEOUT, confirm).await;
    match &confirmed {
        Ok(Ok(_)) => nodes.confirmed(node),
        Ok(Err(error)) if published => {
            let block = nodes.closed(node.clone(), Instant::now());
            warn!(%error, node, ?block, "the broker cannot send direct replies to this node; it gets none for a while");
        }
        // A broker that is slow or blocked tells nothing of the node.
        _ => {}
    }
    close(&connection).await;
    matches!(confirmed, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::reply_to::tests::direct;

    #[test]
    fn a_node_that_closed_the_connection_is_blocked_and_others_are_not() {
        let (nodes, start) = (Nodes::default(), Instant::now());
        let (good, gone) = (direct("rabbit@good"), direct("rabbit@gone"));
        assert_eq!(nodes.judge("reply.named", start), Verdict::Send);
        assert_eq!(nodes.judge(&good, start), Verdict::Try);
        nodes.confirmed("rabbit@good".to_owned());
        assert_eq!(nodes.judge(&good, start), Verdict::Send);
        // Longer and longer, up to a limit.
        let mut now = start;
        let mut blocks = Vec::new();
        for _ in 0..20 {
            assert_eq!(nodes.judge(&gone, now), Verdict::Try);
            let block = nodes.closed("rabbit@gone".to_owned(), now);
            assert_eq!(nodes.judge(&gone, now + block / 2), Verdict::Drop);
            now += block;
            blocks.push(block);
        }
        assert!(blocks.is_sorted() && blocks[0] == DIRECT_BLOCK && blocks[19] == DIRECT_BLOCK_MAX);
        assert_eq!(nodes.judge(&good, now), Verdict::Send);
        nodes.confirmed("rabbit@gone".to_owned());
        assert_eq!(nodes.judge(&gone, now), Verdict::Send, "it is back");
    }

    #[test]
    fn known_nodes_are_tried_again_when_their_connection_was_lost() {
        let (nodes, now) = (Nodes::default(), Instant::now());
        nodes.confirmed("rabbit@was-there".to_owned());
        nodes.closed("rabbit@gone".to_owned(), now);
        nodes.forget_known();
        assert_eq!(nodes.judge(&direct("rabbit@was-there"), now), Verdict::Try);
        assert_eq!(nodes.judge(&direct("rabbit@gone"), now), Verdict::Drop);
    }

    #[test]
    fn a_producer_that_makes_up_nodes_takes_a_bounded_memory() {
        let (nodes, now) = (Nodes::default(), Instant::now());
        for n in 0..10 * DIRECT_NODES_MAX {
            let name = format!("rabbit@made-up-{n}");
            if nodes.judge(&direct(&name), now) == Verdict::Try {
                nodes.closed(name, now);
            }
        }
        assert_eq!(nodes.0.lock().unwrap().len(), DIRECT_NODES_MAX);
        assert_eq!(nodes.judge(&direct("rabbit@late"), now), Verdict::Drop);
        assert_eq!(nodes.judge(&direct("rabbit@late"), now + DIRECT_BLOCK), Verdict::Try);
    }
}
