//! Which `reply_to` a worker answers. A worker may write to every queue, so without a rule a producer could make it
//! publish into any of them, for instance forge commands.

use base64::{Engine, engine::general_purpose::STANDARD};
use wildmatch::WildMatch;

/// Patterns of the reply queues that are answered by default; `*` stands for any text. Names that the broker gives begin
/// with `amq.gen-`, those that aio-pika gives on a connection that it keeps open with `amq_`.
pub const TRUSTED: &[&str] = &["amq.gen-*", "amq_*", "reply.*", "*.reply.*"];

/// The pseudo-queue of direct replies; a worker sees it with the caller's address behind a dot (RabbitMQ, "Direct
/// Reply-to").
pub const DIRECT: &str = "amq.rabbitmq.reply-to";

/// The reply queues that are trusted.
#[derive(Debug, Clone)]
pub struct Trust {
    patterns: Vec<WildMatch>,
    /// Queues that are never answered, even if the patterns are widened.
    never: Vec<String>,
}

impl Trust {
    /// Trusts queues by pattern, beside the direct reply-to that is always trusted, and never the queues of `never`.
    pub fn new(patterns: &[String], never: Vec<String>) -> Self {
        Self { patterns: patterns.iter().map(|pattern| WildMatch::new(pattern)).collect(), never }
    }

    /// Whether a reply may be published to this queue.
    pub fn allows(&self, reply_to: &str) -> bool {
        if self.never.iter().any(|queue| queue == reply_to) {
            return false;
        }
        match reply_to.strip_prefix(DIRECT).and_then(|rest| rest.strip_prefix('.')) {
            Some(address) => node_of_address(address).is_some(),
            None => self.patterns.iter().any(|pattern| pattern.matches(reply_to)),
        }
    }
}

/// The node that an address of direct reply-to names; nothing if it is no such address.
pub(super) fn node_of(reply_to: &str) -> Option<String> {
    node_of_address(reply_to.strip_prefix(DIRECT)?.strip_prefix('.')?)
}

/// An address of direct reply-to: `<base64 of a process id in Erlang's external term format>.<base64 of a key>`.
///
/// RabbitMQ 3.10.8 closes the connection that publishes to anything malformed, so the check is strict: 0x83 begins
/// an external term, 0x58 is the tag of a process id (Erlang External Term Format, `NEW_PID_EXT`).
fn node_of_address(address: &str) -> Option<String> {
    let (process, key) = address.split_once('.')?;
    let term = STANDARD.decode(process).ok()?;
    let node = node_of_pid(term.strip_prefix(&[0x83, 0x58])?)?;
    (!key.is_empty() && STANDARD.decode(key).is_ok()).then(|| String::from_utf8_lossy(node).into_owned())
}

/// A process id's body: the node's name as an atom, then id, serial and creation of 4 bytes each.
fn node_of_pid(pid: &[u8]) -> Option<&[u8]> {
    const SMALL_ATOM_UTF8: u8 = 119;
    const ATOM_UTF8: u8 = 118;
    const ATOM: u8 = 100;
    let (length, rest) = match *pid {
        [SMALL_ATOM_UTF8, length, ref rest @ ..] => (usize::from(length), rest),
        [ATOM_UTF8 | ATOM, high, low, ref rest @ ..] => (usize::from(u16::from_be_bytes([high, low])), rest),
        _ => return None,
    };
    let (node, numbers) = rest.split_at_checked(length)?;
    (numbers.len() == 12).then_some(node)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn trust(patterns: &[&str]) -> Trust {
        let patterns: Vec<_> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Trust::new(&patterns, vec!["users.create".to_owned(), "users.dead".to_owned()])
    }

    pub(in crate::amqp) fn direct(node: &str) -> String {
        let length = u8::try_from(node.len()).unwrap();
        let pid =
            [&[0x83, 0x58, 119, length], node.as_bytes(), &[0, 0, 3, 1, 0, 0, 0, 0, 1, 2, 3, 4]].concat();
        format!("{DIRECT}.{}.{}", STANDARD.encode(pid), STANDARD.encode("key"))
    }

    #[test]
    fn reply_queues_are_answered() {
        let trust = trust(TRUSTED);
        for queue in [
            "amq.gen-JzTY20BRgKO",
            "amq_0a1b",
            "reply.console",
            "shop.reply.7",
            "users.reply.x",
            &direct("rabbit@host"),
        ] {
            assert!(trust.allows(queue), "{queue}");
        }
    }

    #[test]
    fn other_queues_are_not() {
        let trust = trust(TRUSTED);
        for queue in
            ["users.create", "users.dead", "orders", "", "reply", "amq.rabbitmq.reply-to", "amq.direct"]
        {
            assert!(!trust.allows(queue), "{queue}");
        }
    }

    #[test]
    fn a_malformed_direct_address_is_not_answered_as_it_would_close_the_connection() {
        let trust = trust(&["*"]);
        let good = direct("rabbit@host");
        assert!(trust.allows(&good));
        let truncated = format!("{DIRECT}.{}.a2V5", STANDARD.encode([0x83, 0x58, 119, 4, b'a']));
        for bad in ["a.b", "!!!.x", "", ".", "xxx", "g1g=.", &good[DIRECT.len() + 1..good.len() - 1]] {
            assert!(!trust.allows(&format!("{DIRECT}.{bad}")), "{bad}");
        }
        assert!(!trust.allows(&truncated));
    }

    #[test]
    fn command_and_dead_letter_queues_are_never_answered_even_if_the_list_is_widened() {
        let trust = trust(&["*"]);
        assert!(trust.allows("orders"));
        assert!(!trust.allows("users.create"));
        assert!(!trust.allows("users.dead"));
    }
}
