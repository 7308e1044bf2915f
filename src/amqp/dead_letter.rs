//! Setting messages aside: a copy with the reason, confirmed, and only then the original is acknowledged.

use futures::future::join_all;
use lapin::{BasicProperties, message::Delivery, options::BasicPublishOptions};
use tokio::{sync::Mutex, time::timeout};

use super::{envelope::dead_letter_properties, replies::Replies, short};
use crate::{clock::unix_seconds, limits::DEAD_LETTER_TIMEOUT, service::Problem};

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

    /// Publishes a copy of each message with its reason. `true` means that every copy is safe in the dead-letter
    /// queue; otherwise some may be, and the originals have to be rejected, so that the broker moves them.
    ///
    /// Cancel safe: a copy may then have been published or not.
    pub async fn publish(&self, letters: &[(&Delivery, &str, &Problem)]) -> bool {
        let _turn = self.turn.lock().await;
        let Some(link) = self.replies.link().await else { return false };
        let seconds = unix_seconds();
        let all = letters.iter().map(|(delivery, queue, reason)| {
            let properties = dead_letter_properties(&delivery.properties, queue, reason, seconds);
            self.publish_one(&link.dead_letters, queue, &delivery.data, properties)
        });
        let done = match timeout(DEAD_LETTER_TIMEOUT, join_all(all)).await {
            Ok(confirmed) => confirmed.into_iter().all(|confirmed| confirmed),
            Err(_) => false,
        };
        if !done {
            link.broken.cancel();
        }
        done
    }

    async fn publish_one(
        &self,
        channel: &lapin::Channel,
        queue: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> bool {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish = channel.basic_publish(short(&self.exchange), short(queue), options, body, properties);
        let Ok(confirm) = publish.await else { return false };
        // A returned message may hang on another's confirm, so any return means that not all are safe.
        match confirm.await {
            Ok(confirmation) => confirmation.is_ack() && confirmation.take_message().is_none(),
            Err(_) => false,
        }
    }
}
