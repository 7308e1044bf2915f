//! Setting messages aside: a copy with the reason, confirmed, and only then the original is acknowledged.

use futures::future::join_all;
use lapin::{message::Delivery, options::BasicPublishOptions};
use tokio::{sync::Mutex, time::timeout};

use super::{
    envelope::dead_letter_properties,
    replies::{Link, Replies},
    short,
};
use crate::{clock::unix_seconds, failpoints::mutant, limits::DEAD_LETTER_TIMEOUT, service::Problem};

/// A message, the queue it lay in, and why it is set aside.
pub type Letter<'a> = (&'a Delivery, &'a str, &'a Problem);

/// What became of a copy.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// It is in the dead-letter queue.
    Safe,
    /// No queue takes it.
    Returned,
    /// It was refused, or the confirm did not come.
    Unknown,
}

/// Publishes dead letters on the publishing connection.
pub struct DeadLetters {
    replies: Replies,
    exchange: String,
    /// Returned messages and confirms are told apart only if one task at a time publishes on the channel.
    turn: Mutex<()>,
}

impl DeadLetters {
    /// Publishes to this exchange.
    pub fn new(replies: Replies, exchange: String) -> Self {
        Self { replies, exchange, turn: Mutex::new(()) }
    }

    /// Publishes a copy of each message with its reason. Returns which of them (by index) are not known to be safe in
    /// the dead-letter queue: their originals have to be rejected, so that the broker moves them.
    ///
    /// The reply that was sent a moment ago may have closed the connection, so what was not confirmed is tried once
    /// more on the next one.
    ///
    /// Cancel safe: a copy may then have been published or not.
    pub async fn publish(&self, letters: &[Letter<'_>]) -> Vec<usize> {
        let _turn = self.turn.lock().await;
        let mut left: Vec<usize> = (0..letters.len()).collect();
        for _ in 0..2 {
            if left.is_empty() {
                break;
            }
            let Some(link) = self.replies.link().await else { break };
            let outcomes = join_all(left.iter().map(|&index| self.publish_one(&link, &letters[index]))).await;
            // A returned message may hang on another's confirm, so any return means that none is known to be safe.
            if !outcomes.contains(&Outcome::Returned) {
                let mut outcomes = outcomes.iter();
                left.retain(|_| outcomes.next() != Some(&Outcome::Safe));
            }
            if !left.is_empty() {
                link.broken.cancel();
            }
        }
        if mutant!(NackIgnored) {
            left.clear();
        }
        left
    }

    async fn publish_one(&self, link: &Link, (delivery, queue, reason): &Letter<'_>) -> Outcome {
        let properties = dead_letter_properties(&delivery.properties, queue, reason, unix_seconds());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (short(&self.exchange), short(queue));
        let publish = link.dead_letters.basic_publish(exchange, key, options, &delivery.data, properties);
        match timeout(DEAD_LETTER_TIMEOUT, async { publish.await?.await }).await {
            Ok(Ok(confirmation)) => match (confirmation.is_ack(), confirmation.take_message()) {
                (_, Some(_)) => Outcome::Returned,
                (true, None) => Outcome::Safe,
                (false, None) => Outcome::Unknown,
            },
            _ => Outcome::Unknown,
        }
    }
}
