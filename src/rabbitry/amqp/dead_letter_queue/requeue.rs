//! Sending dead letters again: first a copy that the broker confirms, and only then the letter is removed.
//!
//! Whatever interrupts it in between leaves both, and the inbox makes the second one harmless.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use futures::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, ShortString},
};
use serde::Serialize;

use super::{DeadLetterError, DeadLetterQueue, Filter, Letter, letter::is_set_aside, within};
use crate::{
    amqp::{
        connection::{BrokerUrl, close, connect, process_name},
        envelope::{deadline, header, republished},
        exchange, reply_to, short,
    },
    clock::unix_ms,
    limits::REQUEUE_WINDOW,
    service::{
        Access, Spec,
        inbox::{RETENTION, check_age},
    },
};

/// How letters are sent again.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The commands that the service has.
    pub commands: &'static [Spec],
    /// Whether a letter whose id is too old gets another one; its command may have been executed under the old id.
    pub new_id: bool,
    /// Whether a deadline that has passed is left out, so that the command is executed nevertheless.
    pub drop_deadline: bool,
}

/// Why a letter is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// It does not come from the queue of a command.
    UnknownOrigin,
    /// Its id is older than the inbox remembers.
    IdExpired,
    /// Its deadline has passed, so that no worker would execute it.
    DeadlinePassed,
    /// The command has no queue.
    Unroutable,
    /// The broker does not take it now: the queue is full.
    Refused,
}

/// A letter's copy, ready to be published.
#[derive(Debug)]
pub struct Outgoing {
    /// The command.
    pub command: &'static str,
    /// Its properties.
    pub properties: BasicProperties,
    /// What it lost or got on the way.
    pub changes: Changes,
}

/// How a copy differs from what the producer sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent")]
pub struct Changes {
    /// It has no id, so that it may be executed more than once.
    pub without_id: bool,
    /// It got another id.
    pub new_id: bool,
    /// Its reply would go to a caller that is gone.
    pub reply_to_dropped: bool,
    /// Its deadline was left out.
    pub deadline_dropped: bool,
}

impl Rules {
    /// The copy of a letter, or why there is none, by a clock in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// Why it is kept.
    pub fn prepare(&self, letter: &Letter, now: i64) -> Result<Outgoing, Kept> {
        let named = letter.command.as_deref();
        let command = self.commands.iter().find(|command| Some(command.name) == named);
        let command = command.ok_or(Kept::UnknownOrigin)?;
        let mut changes = Changes { without_id: !letter.has_message_id, ..Changes::default() };
        let mut headers = producers_headers(&letter.properties);
        if has_passed_deadline(&letter.properties, now) {
            if !self.drop_deadline {
                return Err(Kept::DeadlinePassed);
            }
            headers.retain(|name, _| name.as_str() != "deadline");
            changes.deadline_dropped = true;
        }
        let mut properties = republished(&letter.properties, headers.into());
        // Commands that have no effect are not in the inbox, so their ids do not expire.
        if letter.has_message_id
            && command.access == Access::Write
            && check_age(&letter.id, now, RETENTION).is_err()
        {
            if !self.new_id {
                return Err(Kept::IdExpired);
            }
            // The same one each time: an interrupted requeue may be done again and executes the command once.
            properties = properties.with_message_id(short(&format!("requeue-of-{}", letter.id)));
            changes.new_id = true;
        }
        match letter.properties.reply_to().clone() {
            // RabbitMQ 3.10.8 may close a worker's connection over the address of a caller that is gone.
            Some(direct) if direct.as_str().starts_with(reply_to::DIRECT) => changes.reply_to_dropped = true,
            Some(named) => properties = properties.with_reply_to(named),
            None => {}
        }
        Ok(Outgoing { command: command.name, properties, changes })
    }
}

/// The headers without what the broker and the worker added.
fn producers_headers(properties: &BasicProperties) -> BTreeMap<ShortString, AMQPValue> {
    const BROKERS: [&str; 5] =
        ["x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count"];
    const WORKERS: [&str; 5] = ["code", "detail", "queue", "time", "headers-dropped"];
    let set_aside = is_set_aside(properties);
    let headers = properties.headers().iter().flatten();
    let kept = headers.filter(|(name, _)| {
        let name = name.as_str();
        let added = BROKERS.iter().any(|added| name.starts_with(added));
        !(added || set_aside && WORKERS.contains(&name))
    });
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether a worker would refuse it for its deadline. Headers that a worker had to leave out may have held one.
fn has_passed_deadline(properties: &BasicProperties, now: i64) -> bool {
    let passed = |value| deadline(value).is_ok_and(|deadline| deadline < now);
    let unknown = is_set_aside(properties) && header(properties, "headers-dropped").is_some();
    unknown || header(properties, "deadline").is_some_and(passed)
}

/// Publishes copies of letters on a connection of its own: a broker that blocks publishers must not block the one on
/// which letters are removed.
pub struct Publisher {
    connection: Connection,
    channel: Channel,
    exchange: String,
    patience: Duration,
}

impl Publisher {
    /// Opens a connection for publishing to a service's commands.
    ///
    /// # Errors
    /// [`DeadLetterError`]. Cancel safe.
    pub async fn open(url: &BrokerUrl, service: &str, patience: Duration) -> Result<Self, DeadLetterError> {
        let connection = connect(url, &format!("{service} requeue {}", process_name())).await?;
        let opened = async {
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        };
        let channel = within(patience, "opening a channel", opened).await?;
        Ok(Self { connection, channel, exchange: exchange(service), patience })
    }

    /// Publishes copies together and waits for all confirms. Tells for each whether the broker has it safe, in their
    /// order.
    ///
    /// # Errors
    /// [`DeadLetterError`]: each of them may then be published or not. The same when cancelled.
    pub async fn publish(
        &self,
        copies: &[(Outgoing, Letter)],
    ) -> Result<Vec<Result<(), Kept>>, DeadLetterError> {
        let all = copies.iter().map(async |(copy, letter)| {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let (exchange, key) = (short(&self.exchange), short(copy.command));
            let publish =
                self.channel.basic_publish(exchange, key, options, &letter.body, copy.properties.clone());
            publish.await?.await
        });
        let confirmations = within(self.patience, "publishing", try_join_all(all)).await?;
        let mut refused = Vec::with_capacity(copies.len());
        // A returned message may hang on another one's confirm, and what is unroutable is so for its routing key.
        let mut unroutable = HashSet::new();
        for confirmation in confirmations {
            refused.push(!confirmation.is_ack());
            unroutable.extend(confirmation.take_message().map(|message| message.delivery.routing_key));
        }
        let told = copies.iter().zip(refused).map(|((copy, _), refused)| match refused {
            _ if unroutable.contains(copy.command) => Err(Kept::Unroutable),
            true => Err(Kept::Refused),
            false => Ok(()),
        });
        Ok(told.collect())
    }

    /// Closes the connection.
    pub async fn close(self) {
        close(&self.connection).await;
    }
}

/// What became of one letter.
#[derive(Debug, Clone, Serialize)]
pub struct Sent {
    /// Its id before.
    pub id: String,
    /// Its command.
    pub command: Option<String>,
    /// Why it was kept, if it was.
    pub kept: Option<Kept>,
    /// How it was changed.
    #[serde(flatten)]
    pub changes: Changes,
}

/// Sends the letters that are meant again and removes them, window by window. Tells of each one in `sent` as soon as it
/// is known, so that an error leaves what was done before.
///
/// # Errors
/// [`DeadLetterError`]. When cancelled or failed, letters may have been published and not removed; none is lost.
pub async fn requeue(
    queue: &mut DeadLetterQueue,
    publisher: &Publisher,
    rules: &Rules,
    filter: &Filter,
    limit: u32,
    sent: &mut Vec<Sent>,
) -> Result<(), DeadLetterError> {
    let mut window = Vec::with_capacity(REQUEUE_WINDOW);
    while queue.taken() < limit {
        let Some(letter) = queue.next().await? else { break };
        let now = unix_ms();
        if !filter.matches(&letter, now) {
            continue;
        }
        match rules.prepare(&letter, now) {
            Ok(copy) => window.push((copy, letter)),
            Err(kept) => sent.push(Sent::new(&letter, Some(kept), Changes::default())),
        }
        // What the broker refuses now it would refuse again a moment later.
        if window.len() == REQUEUE_WINDOW && !flush(queue, publisher, &mut window, sent).await? {
            return Ok(());
        }
    }
    flush(queue, publisher, &mut window, sent).await.map(drop)
}

/// `false` if some were not taken.
async fn flush(
    queue: &mut DeadLetterQueue,
    publisher: &Publisher,
    window: &mut Vec<(Outgoing, Letter)>,
    sent: &mut Vec<Sent>,
) -> Result<bool, DeadLetterError> {
    let results = publisher.publish(window).await?;
    let all = results.iter().all(Result::is_ok);
    for ((copy, letter), result) in window.drain(..).zip(results) {
        if result.is_ok() {
            queue.remove(letter.held).await?;
        }
        sent.push(Sent::new(&letter, result.err(), copy.changes));
    }
    Ok(all)
}

impl Sent {
    /// What became of a letter.
    pub fn new(letter: &Letter, kept: Option<Kept>, changes: Changes) -> Self {
        Self { id: letter.id.clone(), command: letter.command.clone(), kept, changes }
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldTable;

    use super::{
        super::letter::tests::{died, letter, set_aside},
        *,
    };
    use crate::amqp::text;

    const COMMANDS: &[Spec] = &[Spec::write("create"), Spec::read("get")];
    const RULES: Rules = Rules { commands: COMMANDS, new_id: false, drop_deadline: false };
    /// Minted on 22 February 2022.
    const OLD_ID: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
    const NOW: i64 = 1_800_000_000_000;

    fn prepare(rules: &Rules, headers: FieldTable, properties: BasicProperties) -> Result<Outgoing, Kept> {
        rules.prepare(&letter(properties.with_headers(headers), b"{}"), NOW)
    }

    fn with(mut headers: FieldTable, name: &str, value: AMQPValue) -> FieldTable {
        headers.insert(name.into(), value);
        headers
    }

    #[test]
    fn what_the_producer_sent_is_kept_and_what_was_added_is_removed() {
        let headers = with(set_aside("users.create", "internal"), "traceparent", text("00-1"));
        let headers = with(headers, "x-delivery-count", AMQPValue::LongInt(3));
        let headers = with(headers, "x-first-death-queue", text("users.create"));
        let headers = with(headers, "x-last-death-queue", text("users.create"));
        let headers = with(headers, "x-death", AMQPValue::FieldArray(vec![].into()));
        let properties = BasicProperties::default()
            .with_message_id("m1".into())
            .with_correlation_id("c1".into())
            .with_reply_to("reply.console".into())
            .with_expiration("5".into());
        let outgoing = prepare(&RULES, headers, properties).unwrap();
        assert_eq!((outgoing.command, outgoing.changes), ("create", Changes::default()));
        let expected = BasicProperties::default()
            .with_headers(with(FieldTable::default(), "traceparent", text("00-1")))
            .with_delivery_mode(2)
            .with_message_id("m1".into())
            .with_correlation_id("c1".into())
            .with_reply_to("reply.console".into());
        assert_eq!(outgoing.properties, expected);
    }

    #[test]
    fn a_producers_headers_are_its_own_if_no_worker_set_it_aside() {
        let headers = with(died("users.create", "expired", 1), "code", text("mine"));
        let outgoing = prepare(&RULES, headers, BasicProperties::default()).unwrap();
        assert_eq!(header(&outgoing.properties, "code"), Some(&text("mine")));
        assert!(outgoing.changes.without_id);
    }

    #[test]
    fn a_direct_reply_is_not_asked_for_again() {
        let direct = BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to.g1h3.abc".into());
        let outgoing = prepare(&RULES, died("users.get", "expired", 1), direct).unwrap();
        assert_eq!((outgoing.properties.reply_to(), outgoing.changes.reply_to_dropped), (&None, true));
    }

    #[test]
    fn what_comes_from_elsewhere_is_kept() {
        for headers in
            [died("users.drop", "expired", 1), died("orders.create", "expired", 1), FieldTable::default()]
        {
            let kept = prepare(&RULES, headers, BasicProperties::default()).map(|outgoing| outgoing.command);
            assert_eq!(kept, Err(Kept::UnknownOrigin));
        }
    }

    #[test]
    fn an_expired_id_is_kept_or_replaced_by_the_same_one_each_time() {
        let prepared = |rules: &Rules, queue: &str| {
            prepare(
                rules,
                died(queue, "expired", 1),
                BasicProperties::default().with_message_id(OLD_ID.into()),
            )
        };
        assert_eq!(prepared(&RULES, "users.create").map(drop), Err(Kept::IdExpired));
        let outgoing = prepared(&Rules { new_id: true, ..RULES }, "users.create").unwrap();
        let id = outgoing.properties.message_id().as_ref().unwrap().as_str();
        assert_eq!((id, outgoing.changes.new_id), (format!("requeue-of-{OLD_ID}").as_str(), true));
        // A command without an effect is never looked up by its id.
        assert!(prepared(&RULES, "users.get").is_ok());
    }

    #[test]
    fn a_deadline_that_has_passed_is_kept_or_dropped_and_another_one_stays() {
        let prepared = |rules: &Rules, headers| prepare(rules, headers, BasicProperties::default());
        let headers =
            |deadline| with(died("users.get", "expired", 1), "deadline", AMQPValue::LongLongInt(deadline));
        assert_eq!(prepared(&RULES, headers(NOW - 1)).map(drop), Err(Kept::DeadlinePassed));
        let late = prepared(&Rules { drop_deadline: true, ..RULES }, headers(NOW - 1)).unwrap();
        assert_eq!((header(&late.properties, "deadline"), late.changes.deadline_dropped), (None, true));
        let early = prepared(&Rules { drop_deadline: true, ..RULES }, headers(NOW)).unwrap();
        assert_eq!(header(&early.properties, "deadline"), Some(&AMQPValue::LongLongInt(NOW)));
        assert!(!early.changes.deadline_dropped);
    }

    #[test]
    fn headers_that_were_dropped_may_have_held_a_deadline() {
        let headers = with(set_aside("users.get", "internal"), "headers-dropped", AMQPValue::Boolean(true));
        let kept = prepare(&RULES, headers, BasicProperties::default()).map(drop);
        assert_eq!(kept, Err(Kept::DeadlinePassed));
    }
}
