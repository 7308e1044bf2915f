//! Messaging over AMQP 0-9-1, for any [`crate::service::Service`].
//!
//! This folder knows lapin and has never heard of users. [`server`] is the worker's side: sessions, batches, replies,
//! acknowledgements, dead letters; [`client`] the producer's.

pub mod client;

pub mod connection;
pub mod dead_letter;
pub mod dead_letter_queue;
mod direct;
pub mod envelope;
pub mod replies;
pub mod reply_to;
pub mod server;

use lapin::types::{AMQPValue, ShortString};

/// The name of a service's exchange for commands.
pub fn exchange(service: &str) -> String {
    format!("{service}.commands")
}

/// The name of a command's queue.
pub fn queue(service: &str, command: &str) -> String {
    format!("{service}.{command}")
}

/// The name of a service's dead-letter exchange and queue.
pub fn dead_letters(service: &str) -> String {
    format!("{service}.dead")
}

/// The name of the exchange by which a service's workers agree on one store, and the beginning of the queues bound to it.
pub fn store(service: &str) -> String {
    format!("{service}.store")
}

/// A short string of text that is known to be short enough; longer text is cut, as lapin would panic.
pub(crate) fn short(text: &str) -> ShortString {
    let end = text.floor_char_boundary(crate::limits::SHORT_STRING_MAX);
    ShortString::from(&text[..end])
}

/// A header's text. Headers are long strings: the broker answers a short one with INTERNAL_ERROR.
pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
