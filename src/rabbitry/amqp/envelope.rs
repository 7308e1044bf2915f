//! Messages ⇄ requests and replies. Pure.

use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};

use super::{reply_to::Trust, short, text};
use crate::{
    limits::{DEAD_LETTER_HEADERS_MAX, TRACE_CONTEXT_MAX},
    service::{Problem, Reply, Request, Service, Spec, command::Entry, payload},
};

/// What of a message the engine needs after its command was run.
#[derive(Debug)]
pub struct Envelope {
    /// The command that the message's queue stands for.
    pub command: Spec,
    /// The trusted queue that the reply goes to.
    pub reply_to: Option<String>,
    /// The queue that the message named, if it is not trusted.
    pub distrusted: Option<String>,
    /// The idempotency key.
    pub id: Option<String>,
    correlation_id: Option<String>,
    persistent: bool,
    trace: Vec<(&'static str, AMQPValue)>,
}

impl Envelope {
    /// Reads a message's properties.
    pub fn open(command: Spec, properties: &BasicProperties, trust: &Trust) -> Self {
        let owned = |property: &Option<lapin::types::ShortString>| {
            // A client that always sets the property leaves it empty when it has nothing to say.
            property.as_ref().map(ToString::to_string).filter(|text| !text.is_empty())
        };
        let named = owned(properties.reply_to());
        let reply_to = named.clone().filter(|queue| trust.allows(queue));
        let trace = ["traceparent", "tracestate"]
            .into_iter()
            .filter_map(|name| Some((name, trace_context(header(properties, name)?)?)));
        Self {
            command,
            distrusted: named.clone().filter(|_| reply_to.is_none()),
            // A direct reply cannot outlive its caller, so there is nothing to keep on disk.
            persistent: *properties.delivery_mode() == Some(2)
                && !named.is_some_and(|queue| queue.starts_with("amq.")),
            reply_to,
            id: owned(properties.message_id()),
            correlation_id: properties.correlation_id().as_ref().map(ToString::to_string),
            trace: trace.collect(),
        }
    }

    /// Reads the command.
    ///
    /// # Errors
    /// What the sender has to mend: `malformed` or `invalid`.
    pub fn request<S: Service>(
        &self,
        command: &Entry<S>,
        delivery: &Delivery,
    ) -> Result<Request<S>, Problem> {
        let deadline = header(&delivery.properties, "deadline").map(deadline).transpose()?;
        let (payload, fingerprint) = payload::decode(command, &delivery.data)?;
        Ok(Request { command: self.command, id: self.id.clone(), deadline, fingerprint, payload })
    }

    /// The properties of the reply.
    pub fn reply_properties(&self, service: &str, reply: &Reply) -> BasicProperties {
        let content_type = if reply.is_problem() { "application/problem+json" } else { "application/json" };
        let mut headers = FieldTable::default();
        headers.insert("status".into(), AMQPValue::LongInt(i32::from(reply.status)));
        if reply.replayed {
            headers.insert("replayed".into(), AMQPValue::Boolean(true));
        }
        for (name, value) in &self.trace {
            headers.insert((*name).into(), value.clone());
        }
        let properties = BasicProperties::default()
            .with_content_type(content_type.into())
            .with_type(short(&format!("{service}.{}.reply", self.command.name)))
            .with_delivery_mode(if self.persistent { 2 } else { 1 })
            .with_headers(headers);
        match &self.correlation_id {
            Some(id) => properties.with_correlation_id(short(id)),
            None => properties,
        }
    }
}

/// A header of the trace context, if it can be one. It is echoed, and all properties of a reply travel in one frame.
fn trace_context(value: &AMQPValue) -> Option<AMQPValue> {
    match value {
        AMQPValue::LongString(text) if text.as_bytes().len() <= TRACE_CONTEXT_MAX => Some(value.clone()),
        _ => None,
    }
}

/// How often the message was delivered before (quorum queues count; absent at first).
pub fn delivery_count(properties: &BasicProperties) -> i64 {
    header(properties, "x-delivery-count").and_then(integer).unwrap_or(0)
}

/// The properties of a dead letter: those of the message, and why it was set aside.
///
/// Its time to live is left out, as it was the command's; so is `user_id`, as the broker lets nobody publish under
/// another's name.
///
/// `seconds` is the time since the Unix epoch.
pub fn dead_letter_properties(
    message: &BasicProperties,
    queue: &str,
    reason: &Problem,
    seconds: u64,
) -> BasicProperties {
    let mut headers = message.headers().clone().unwrap_or_default();
    if table_bytes(&headers) > DEAD_LETTER_HEADERS_MAX {
        headers = FieldTable::default();
        headers.insert("headers-dropped".into(), AMQPValue::Boolean(true));
    }
    headers.insert("code".into(), text(reason.code.name));
    headers.insert("detail".into(), text(&reason.detail));
    headers.insert("queue".into(), text(queue));
    headers.insert("time".into(), AMQPValue::Timestamp(seconds));
    let dead = republished(message, headers);
    match message.reply_to().clone() {
        Some(reply_to) => dead.with_reply_to(reply_to),
        None => dead,
    }
}

/// The properties of a message that is published once more, persistent and with these headers: those that are the
/// producer's, but for `reply_to`.
pub(super) fn republished(message: &BasicProperties, headers: FieldTable) -> BasicProperties {
    let mut copy = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
    macro_rules! copy {
        ($($get:ident $with:ident),*) => {$(
            if let Some(value) = message.$get().clone() {
                copy = copy.$with(value);
            }
        )*};
    }
    copy!(
        content_type with_content_type, content_encoding with_content_encoding, priority with_priority,
        correlation_id with_correlation_id, message_id with_message_id, timestamp with_timestamp,
        kind with_type, app_id with_app_id
    );
    copy
}

/// All properties of a message travel in one frame, which a table cannot leave without closing the connection.
fn table_bytes(table: &FieldTable) -> usize {
    table.inner().iter().map(|(name, value)| name.as_str().len() + 2 + value_bytes(value)).sum()
}

fn value_bytes(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldTable(table) => 4 + table_bytes(table),
        AMQPValue::FieldArray(array) => {
            4 + array.as_slice().iter().map(|v| 1 + value_bytes(v)).sum::<usize>()
        }
        _ => 8,
    }
}

/// A header's value.
pub(super) fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

pub(super) fn deadline(value: &AMQPValue) -> Result<i64, Problem> {
    integer(value).or_else(|| decimal(value)).ok_or_else(|| {
        Problem::invalid_field(
            "deadline",
            "the header is an integer or a decimal string: milliseconds since the Unix epoch",
        )
    })
}

/// A header's value, if it is an integer of any width.
pub(super) fn integer(value: &AMQPValue) -> Option<i64> {
    match *value {
        AMQPValue::ShortShortInt(n) => Some(n.into()),
        AMQPValue::ShortShortUInt(n) => Some(n.into()),
        AMQPValue::ShortInt(n) => Some(n.into()),
        AMQPValue::ShortUInt(n) => Some(n.into()),
        AMQPValue::LongInt(n) => Some(n.into()),
        AMQPValue::LongUInt(n) => Some(n.into()),
        AMQPValue::LongLongInt(n) => Some(n),
        _ => None,
    }
}

/// A decimal string. What lies beyond 64 bits is as good as never, or long ago.
fn decimal(value: &AMQPValue) -> Option<i64> {
    let text = match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok()?,
        AMQPValue::ShortString(text) => text.as_str(),
        _ => return None,
    };
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if negative { i64::MIN } else { i64::MAX }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Code;

    #[test]
    fn a_deadline_is_an_integer_of_any_width_or_a_decimal_string() {
        let good = [
            (AMQPValue::ShortShortInt(-7), -7),
            (AMQPValue::ShortShortUInt(7), 7),
            (AMQPValue::ShortInt(7), 7),
            (AMQPValue::ShortUInt(7), 7),
            (AMQPValue::LongInt(7), 7),
            (AMQPValue::LongUInt(7), 7),
            (AMQPValue::LongLongInt(1 << 60), 1 << 60),
            (text("1700000000000"), 1_700_000_000_000),
            (text("-1"), -1),
            (text("99999999999999999999"), i64::MAX),
        ];
        for (value, expected) in good {
            assert_eq!(deadline(&value), Ok(expected), "{value:?}");
        }
    }

    #[test]
    fn any_other_deadline_is_invalid_and_never_ignored() {
        let bad = [
            AMQPValue::Boolean(true),
            AMQPValue::Float(1.0),
            AMQPValue::Double(1.0),
            AMQPValue::Timestamp(7),
            AMQPValue::Void,
            AMQPValue::FieldTable(FieldTable::default()),
            text(""),
            text("-"),
            text("+5"),
            text(" 5"),
            text("5.0"),
            text("soon"),
            AMQPValue::LongString(vec![0xff, 0xfe].into()),
        ];
        for value in bad {
            assert_eq!(deadline(&value).unwrap_err().code, Code::INVALID, "{value:?}");
        }
    }

    #[test]
    fn a_dead_letter_keeps_everything_but_the_time_to_live() {
        let message = BasicProperties::default()
            .with_message_id("m1".into())
            .with_reply_to("reply.x".into())
            .with_type("t".into())
            .with_expiration("60000".into());
        let reason = Problem::new(Code::MALFORMED, "why");
        let dead = dead_letter_properties(&message, "users.create", &reason, 7);
        assert_eq!(dead.message_id().as_ref().unwrap().as_str(), "m1");
        assert_eq!(dead.reply_to().as_ref().unwrap().as_str(), "reply.x");
        assert_eq!(dead.kind().as_ref().unwrap().as_str(), "t");
        assert_eq!((dead.expiration(), dead.delivery_mode()), (&None, &Some(2)));
        assert_eq!(header(&dead, "code"), Some(&text("malformed")));
        assert_eq!(header(&dead, "queue"), Some(&text("users.create")));
        assert_eq!(header(&dead, "time"), Some(&AMQPValue::Timestamp(7)));
    }
}
