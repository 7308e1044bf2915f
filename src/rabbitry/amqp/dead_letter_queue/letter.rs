//! Dead letters: where they come from, why they died, and which of them are meant. Pure.

use std::time::Duration;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use sha2::{Digest, Sha256};

use super::Held;
use crate::{amqp::envelope::header, service::inbox::minted_at};

/// A message of the dead-letter queue.
#[derive(Debug)]
pub struct Letter {
    /// What it takes to remove it.
    pub held: Held,
    /// The message id; `~` and a hash of the content for a message without one.
    pub id: String,
    /// Whether the id is the message's own.
    pub has_message_id: bool,
    /// The command whose queue it comes from; `None` if that is not one of this service.
    pub command: Option<String>,
    /// The queue that it comes from, if anything tells.
    pub queue: Option<String>,
    /// Why it is here: a problem's code, or what the broker says (expired, rejected, `delivery_limit`, maxlen).
    pub reason: Option<String>,
    /// What was wrong with it.
    pub detail: Option<String>,
    /// When it died, else when it was made, in milliseconds since the Unix epoch; `None` if nothing tells.
    pub at: Option<i64>,
    /// Its properties.
    pub properties: BasicProperties,
    /// Its body.
    pub body: Vec<u8>,
}

impl Letter {
    /// Reads a message of a service's dead-letter queue.
    pub fn read(service: &str, held: Held, properties: BasicProperties, body: Vec<u8>) -> Self {
        let death = last_death(&properties);
        let of_death = |name: &str| death.and_then(|death| string(death.inner().get(name)?));
        let own = is_set_aside(&properties);
        let own_header = |name: &str| own.then(|| string(header(&properties, name)?)).flatten();
        // The routing key tells nothing: it is whatever the producer published with.
        let queue = own_header("queue").or_else(|| of_death("queue"));
        let message_id = properties.message_id().as_ref().map(ToString::to_string);
        let message_id = message_id.filter(|id| !id.is_empty());
        Self {
            held,
            command: queue.as_deref().and_then(|queue| command(service, queue)),
            reason: own_header("code").or_else(|| of_death("reason")),
            detail: own_header("detail"),
            at: time(death, &properties, message_id.as_deref()),
            has_message_id: message_id.is_some(),
            id: message_id.unwrap_or_else(|| hash(queue.as_deref(), &body)),
            queue,
            properties,
            body,
        }
    }
}

/// Whether a worker set the message aside, and left the reason in its headers.
pub(super) fn is_set_aside(properties: &BasicProperties) -> bool {
    header(properties, "code").is_some() && header(properties, "queue").is_some()
}

/// The broker's record of the message's last death; the first entry is the latest.
fn last_death(properties: &BasicProperties) -> Option<&FieldTable> {
    let AMQPValue::FieldArray(deaths) = header(properties, "x-death")? else { return None };
    match deaths.as_slice().first()? {
        AMQPValue::FieldTable(death) => Some(death),
        _ => None,
    }
}

fn string(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn command(service: &str, queue: &str) -> Option<String> {
    Some(queue.strip_prefix(service)?.strip_prefix('.')?.to_owned())
}

fn time(death: Option<&FieldTable>, properties: &BasicProperties, message_id: Option<&str>) -> Option<i64> {
    let of_broker = death.and_then(|death| death.inner().get("time"));
    let of_worker = header(properties, "time").filter(|_| is_set_aside(properties));
    let died = of_worker.or(of_broker).and_then(|time| match time {
        AMQPValue::Timestamp(seconds) => Some(*seconds),
        _ => None,
    });
    let seconds = died.or(*properties.timestamp());
    let milliseconds = seconds.map(|seconds| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX));
    milliseconds.or_else(|| minted_at(message_id?))
}

/// A name for a message that has none, the same whenever it is looked at.
fn hash(queue: Option<&str>, body: &[u8]) -> String {
    let digest = Sha256::new().chain_update(queue.unwrap_or_default()).chain_update([0]).chain_update(body);
    let hex = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("~{hex}")
}

/// Which dead letters are meant: those that pass everything that is set.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One of these ids.
    pub ids: Vec<String>,
    /// This reason.
    pub reason: Option<String>,
    /// This command.
    pub command: Option<String>,
    /// Older than this; a letter without a time is not.
    pub older_than: Option<Duration>,
    /// Newer than this; a letter without a time is not.
    pub newer_than: Option<Duration>,
}

impl Filter {
    /// Whether nothing is set, so that every letter passes.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
            && self.reason.is_none()
            && self.command.is_none()
            && self.older_than.is_none()
            && self.newer_than.is_none()
    }

    /// Whether a letter is meant, by a clock in milliseconds since the Unix epoch.
    pub fn matches(&self, letter: &Letter, now: i64) -> bool {
        let age =
            letter.at.map(|at| Duration::from_millis(u64::try_from(now.saturating_sub(at)).unwrap_or(0)));
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && (self.reason.is_none() || self.reason == letter.reason)
            && (self.command.is_none() || self.command == letter.command)
            && self.older_than.is_none_or(|limit| age.is_some_and(|age| age > limit))
            && self.newer_than.is_none_or(|limit| age.is_some_and(|age| age < limit))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use lapin::types::FieldArray;

    use super::*;
    use crate::amqp::{short, text};

    /// A letter with this body and these properties.
    pub(in super::super) fn letter(properties: BasicProperties, body: &[u8]) -> Letter {
        Letter::read("users", Held::default(), properties, body.to_vec())
    }

    /// Headers as the broker leaves them.
    pub(in super::super) fn died(queue: &str, reason: &str, seconds: u64) -> FieldTable {
        let mut death = FieldTable::default();
        death.insert("queue".into(), text(queue));
        death.insert("reason".into(), text(reason));
        death.insert("time".into(), AMQPValue::Timestamp(seconds));
        let older = FieldTable::default();
        let deaths = FieldArray::from(vec![AMQPValue::FieldTable(death), AMQPValue::FieldTable(older)]);
        let mut headers = FieldTable::default();
        headers.insert("x-death".into(), AMQPValue::FieldArray(deaths));
        headers
    }

    /// Headers as a worker leaves them.
    pub(in super::super) fn set_aside(queue: &str, code: &str) -> FieldTable {
        let mut headers = FieldTable::default();
        headers.insert("queue".into(), text(queue));
        headers.insert("code".into(), text(code));
        headers.insert("detail".into(), text("why"));
        headers
    }

    #[test]
    fn the_brokers_dead_letters_tell_their_origin_by_their_last_death() {
        let properties =
            BasicProperties::default().with_headers(died("users.create", "expired", 1_700_000_000));
        let letter = letter(properties.with_message_id("m1".into()), b"{}");
        assert_eq!((letter.id.as_str(), letter.command.as_deref()), ("m1", Some("create")));
        assert_eq!((letter.reason.as_deref(), letter.at), (Some("expired"), Some(1_700_000_000_000)));
    }

    #[test]
    fn a_workers_dead_letters_tell_their_origin_and_reason_themselves() {
        let mut headers = died("users.create", "expired", 5);
        for (name, value) in &set_aside("users.award", "malformed") {
            headers.insert(name.clone(), value.clone());
        }
        let letter = letter(BasicProperties::default().with_headers(headers), b"{");
        assert_eq!((letter.command.as_deref(), letter.reason.as_deref()), (Some("award"), Some("malformed")));
        assert_eq!(letter.detail.as_deref(), Some("why"));
    }

    #[test]
    fn a_producers_own_header_called_queue_tells_no_origin() {
        let mut headers = died("users.create", "expired", 5);
        headers.insert("queue".into(), text("users.award"));
        let letter = letter(BasicProperties::default().with_headers(headers), b"{");
        assert_eq!(letter.command.as_deref(), Some("create"));
    }

    #[test]
    fn a_letter_without_an_id_gets_a_name_that_stays() {
        let one = letter(BasicProperties::default(), b"one");
        let other = letter(BasicProperties::default().with_message_id("".into()), b"other");
        assert!(one.id.starts_with('~') && other.id.starts_with('~') && one.id != other.id);
        assert_eq!(one.id, letter(BasicProperties::default(), b"one").id);
        assert!((&one.command, &one.reason, one.at) == (&None, &None, None));
    }

    #[test]
    fn the_time_is_that_of_death_else_the_timestamp_else_the_ids() {
        let id = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        let with_id = BasicProperties::default().with_message_id(short(id));
        assert_eq!(letter(with_id.clone(), b"").at, Some(0x017f_22e2_79b0));
        let with_timestamp = with_id.with_timestamp(7);
        assert_eq!(letter(with_timestamp.clone(), b"").at, Some(7000));
        assert_eq!(letter(with_timestamp.with_headers(died("q", "expired", 9)), b"").at, Some(9000));
        assert_eq!(letter(BasicProperties::default().with_timestamp(u64::MAX), b"").at, Some(i64::MAX));
    }

    #[test]
    fn a_letter_has_to_pass_every_filter_that_is_set() {
        let properties = BasicProperties::default().with_headers(died("users.create", "expired", 100));
        let letter = letter(properties.with_message_id("m1".into()), b"{}");
        let passes = |filter: &Filter| filter.matches(&letter, 160_000);
        let some = |text: &str| Some(text.to_owned());
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let none = Filter::default();
        assert!(none.is_empty() && passes(&none));
        let cases = [
            (Filter { ids: vec!["m0".into(), "m1".into()], ..none.clone() }, true),
            (Filter { ids: vec!["m0".into()], ..none.clone() }, false),
            (Filter { reason: some("expired"), ..none.clone() }, true),
            (Filter { reason: some("rejected"), ..none.clone() }, false),
            (Filter { command: some("create"), ..none.clone() }, true),
            (Filter { command: some("get"), ..none.clone() }, false),
            (Filter { older_than: seconds(59), ..none.clone() }, true),
            (Filter { older_than: seconds(60), ..none.clone() }, false),
            (Filter { newer_than: seconds(61), ..none.clone() }, true),
            (Filter { newer_than: seconds(60), ..none.clone() }, false),
            (Filter { reason: some("expired"), command: some("get"), ..none.clone() }, false),
        ];
        for (filter, expected) in cases {
            assert_eq!(passes(&filter), expected, "{filter:?}");
            assert!(!filter.is_empty(), "{filter:?}");
        }
    }

    #[test]
    fn a_letter_without_a_time_is_neither_old_nor_new() {
        let letter = letter(BasicProperties::default(), b"");
        let second = Some(Duration::from_secs(1));
        assert!(!Filter { older_than: second, ..Filter::default() }.matches(&letter, i64::MAX));
        assert!(!Filter { newer_than: second, ..Filter::default() }.matches(&letter, 0));
    }
}
