//! What may be done to the bytes that pass.

use std::time::Duration;

use wildmatch::WildMatch;

use super::frames::{DELIVER, Frame, PUBLISH};

/// Where bytes go. The server is the broker, or a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
    Both,
}

/// One of the two ways of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    ToServer,
    ToClient,
}

impl Side {
    pub fn opposite(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

impl Direction {
    pub fn covers(self, side: Side) -> bool {
        match self {
            Self::Both => true,
            Self::ToServer => side == Side::ToServer,
            Self::ToClient => side == Side::ToClient,
        }
    }
}

/// What happens to the bytes of a direction. All but `Drop` are for any protocol.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Rule {
    #[default]
    Pass,
    /// Each byte comes later, by `by` and up to `jitter` more; order and throughput stay.
    Delay { by: Duration, jitter: Duration },
    /// Each connection for itself.
    Throttle { bytes_per_second: u64 },
    /// So many bytes in a packet.
    Slices { bytes: usize },
    /// Nothing passes and nobody is told, neither of the end of a connection. What was sent meanwhile comes when this
    /// ends, as TCP would send it again: what a network does whose cable is out.
    Blackhole,
    /// Whole AMQP frames vanish, a message's properties and body with it.
    Drop(Class),
}

/// Which AMQP frames. A network never loses something out of the middle of a connection, so each of them comes with a
/// side effect that is the rule's own.
#[derive(Debug, Clone, PartialEq)]
pub enum Class {
    /// `basic.ack` to the broker. The messages stay unacknowledged: they fill the prefetch, and are delivered again
    /// when the channel ends. A later ack with `multiple` that passes settles them after all.
    Acks,
    /// `basic.ack` and `basic.nack` to the client. The messages were taken, and their publisher waits; a later confirm
    /// with `multiple` that passes confirms them after all.
    Confirms,
    /// `basic.deliver` to the client, with its content. The broker takes the message for delivered. A consumer that
    /// acknowledges with `multiple` settles it with a later one, unseen: that loss is the rule's, not the consumer's.
    /// So use it where nothing is acknowledged (replies), or end the connection before anything later is acknowledged.
    Deliveries,
    /// Deliveries whose routing key is like this (`*` and `?`).
    DeliveriesTo(WildMatch),
    /// `basic.publish` to the broker, with its content. The broker numbers its confirms by what it got, so that a
    /// later message's confirm is taken for that of the lost one. So use it where nothing is confirmed (replies).
    Publishes,
    /// Publishes whose routing key is like this (`*` and `?`).
    PublishesTo(WildMatch),
}

impl Rule {
    /// # Panics
    /// If the rule could not do anything in that direction.
    pub(super) fn assert_fits(&self, direction: Direction) {
        match self {
            Self::Throttle { bytes_per_second: 0 } | Self::Slices { bytes: 0 } => {
                panic!("{self:?}: nothing would pass; that is Blackhole")
            }
            Self::Drop(class) => {
                assert!(direction.covers(class.side()), "{class:?} never travel {direction:?}");
            }
            _ => {}
        }
    }
}

impl Class {
    pub fn side(&self) -> Side {
        match self {
            Self::Acks | Self::Publishes | Self::PublishesTo(_) => Side::ToServer,
            Self::Confirms | Self::Deliveries | Self::DeliveriesTo(_) => Side::ToClient,
        }
    }

    /// Whether a method that goes to this side is of the class.
    pub fn holds(&self, side: Side, frame: &Frame) -> bool {
        let Some(method) = frame.method.filter(|_| side == self.side()) else { return false };
        let key_is = |like: &WildMatch| frame.routing_key.as_ref().is_some_and(|key| like.matches(key));
        match self {
            Self::Acks => method == (60, 80),
            Self::Confirms => method == (60, 80) || method == (60, 120),
            Self::Deliveries => method == DELIVER,
            Self::DeliveriesTo(like) => method == DELIVER && key_is(like),
            Self::Publishes => method == PUBLISH,
            Self::PublishesTo(like) => method == PUBLISH && key_is(like),
        }
    }
}
