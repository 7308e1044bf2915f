//! Which nodes direct replies are sent to.
//!
//! RabbitMQ 3.10 closes the connection that publishes to a direct reply-to address of a node that is gone, and takes along
//! the replies of others. A producer can name such an address as often as it likes. So a node is tried at first: if the
//! connection outlives a reply to it, it is known, and if not, it gets no replies for a while, longer each time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::reply_to::node_of;
use crate::limits::{DIRECT_BLOCK, DIRECT_BLOCK_MAX, DIRECT_NODES_MAX, DIRECT_TRIAL};

/// What is known of nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes(HashMap<String, Node>);

#[derive(Debug)]
struct Node {
    standing: Standing,
    /// How long it is blocked the next time.
    next_block: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Standing {
    Known,
    TriedSince(Instant),
    BlockedUntil(Instant),
}

impl Nodes {
    /// Whether a reply may be sent to this queue now.
    pub(super) fn admits(&mut self, reply_to: &str, now: Instant) -> bool {
        let Some(name) = node_of(reply_to) else { return true };
        if !self.0.contains_key(&name) && self.0.len() >= DIRECT_NODES_MAX {
            self.0.retain(|_, node| node.standing == Standing::Known);
            if self.0.len() >= DIRECT_NODES_MAX {
                return false;
            }
        }
        let new = || Node { standing: Standing::TriedSince(now), next_block: DIRECT_BLOCK };
        let node = self.0.entry(name).or_insert_with(new);
        match node.standing {
            Standing::BlockedUntil(until) if now < until => return false,
            Standing::BlockedUntil(_) => node.standing = Standing::TriedSince(now),
            Standing::TriedSince(since) if now - since >= DIRECT_TRIAL => {
                *node = Node { standing: Standing::Known, next_block: DIRECT_BLOCK };
            }
            _ => {}
        }
        true
    }

    /// The connection is lost, mostly by a reply: to one of the nodes that are tried, or else to one of those that are known,
    /// which are tried again. Nodes that are blocked together are not tried together again.
    pub(super) fn closed(&mut self, now: Instant) {
        let is_tried =
            |node: &Node| matches!(node.standing, Standing::TriedSince(since) if now - since < DIRECT_TRIAL);
        if self.0.values().any(is_tried) {
            for node in self.0.values_mut().filter(|node| is_tried(node)) {
                node.standing = Standing::BlockedUntil(now + node.next_block.mul_f64(0.5 + fastrand::f64()));
                node.next_block = (node.next_block * 2).min(DIRECT_BLOCK_MAX);
            }
        } else {
            self.0.retain(|_, node| matches!(node.standing, Standing::BlockedUntil(_)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::reply_to::tests::direct;

    #[test]
    fn a_node_that_closed_the_connection_is_blocked_and_others_are_not() {
        let (mut nodes, start) = (Nodes::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let (good, gone) = (direct("rabbit@good"), direct("rabbit@gone"));
        assert!(nodes.admits(&good, start) && nodes.admits("reply.named", start));
        assert!(nodes.admits(&good, start + DIRECT_TRIAL), "the connection lives");
        assert!(nodes.admits(&gone, start + DIRECT_TRIAL));
        nodes.closed(start + DIRECT_TRIAL);
        assert!(nodes.admits(&good, start + DIRECT_TRIAL) && !nodes.admits(&gone, start + DIRECT_TRIAL));
        // Later it may be back, and longer and longer away if it is not.
        let mut now = at(10_000);
        for _ in 0..20 {
            while !nodes.admits(&gone, now) {
                now += Duration::from_millis(100);
            }
            nodes.closed(now);
        }
        assert!(!nodes.admits(&gone, now + DIRECT_BLOCK_MAX / 3));
        assert!(nodes.admits(&gone, now + DIRECT_BLOCK_MAX * 2));
    }

    #[test]
    fn a_known_node_that_has_gone_is_found_by_trying_all_again() {
        let (mut nodes, start) = (Nodes::default(), Instant::now());
        let node = direct("rabbit@was-there");
        assert!(nodes.admits(&node, start) && nodes.admits(&node, start + DIRECT_TRIAL));
        let later = start + 10 * DIRECT_TRIAL;
        nodes.closed(later);
        assert!(nodes.admits(&node, later));
        nodes.closed(later);
        assert!(!nodes.admits(&node, later));
    }

    #[test]
    fn a_producer_that_makes_up_nodes_takes_a_bounded_memory() {
        let (mut nodes, now) = (Nodes::default(), Instant::now());
        for n in 0..10 * DIRECT_NODES_MAX {
            nodes.admits(&direct(&format!("rabbit@made-up-{n}")), now);
        }
        assert!(nodes.0.len() <= DIRECT_NODES_MAX);
    }
}
