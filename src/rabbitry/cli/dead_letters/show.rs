//! Dead letters as text and as JSON. Everything in them was written by somebody else.

use std::time::{Duration, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Map, Value, json};

use crate::{amqp::dead_letter_queue::Letter, cli::output::printable};

/// Characters of a detail in a table.
const DETAIL_SHOWN: usize = 60;

/// A line of `list`.
pub(super) fn row(letter: &Letter) -> [String; 5] {
    let known = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    let mut detail = printable(letter.detail.as_deref().unwrap_or_default());
    if let Some((end, _)) = detail.char_indices().nth(DETAIL_SHOWN) {
        detail.truncate(end);
        detail.push('…');
    }
    let command = letter.command.as_ref().or(letter.queue.as_ref()).cloned();
    let time = letter.at.map_or_else(|| "-".to_owned(), time);
    [printable(&letter.id), known(&command), known(&letter.reason), time, detail]
}

/// An element of `list` as JSON.
pub(super) fn summary(letter: &Letter) -> Value {
    json!({
        "id": letter.id,
        "message_id": letter.has_message_id.then_some(&letter.id),
        "time": letter.at.map(time),
        "command": letter.command,
        "queue": letter.queue,
        "reason": letter.reason,
        "detail": letter.detail,
        "bytes": letter.body.len(),
    })
}

/// Everything of a letter, as JSON.
pub(super) fn json_of(letter: &Letter) -> Value {
    let mut all = summary(letter);
    all["properties"] = properties(&letter.properties);
    all["headers"] = letter.properties.headers().as_ref().map_or_else(|| json!({}), table);
    match std::str::from_utf8(&letter.body) {
        Ok(text) => all["body"] = text.into(),
        Err(_) => all["body_base64"] = STANDARD.encode(&letter.body).into(),
    }
    all
}

/// Everything of a letter, for people.
pub(super) fn detailed(letter: &Letter) -> String {
    let all = json_of(letter);
    let mut text = String::new();
    let mut line = |name: &str, value: &Value| {
        let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        text.push_str(&format!("{:<25} {}\n", printable(name), printable(&value)));
    };
    for name in ["id", "time", "command", "queue", "reason", "detail", "bytes"] {
        if !all[name].is_null() {
            line(name, &all[name]);
        }
    }
    for (name, value) in all["properties"].as_object().into_iter().flatten() {
        line(name, value);
    }
    for (name, value) in all["headers"].as_object().into_iter().flatten() {
        line(&format!("header {name}"), value);
    }
    let body = all["body"].as_str().map_or_else(
        || format!("not UTF-8, in base64: {}", all["body_base64"].as_str().unwrap_or_default()),
        |body| body.split('\n').map(printable).collect::<Vec<_>>().join("\n"),
    );
    format!("{text}\n{body}\n")
}

/// Milliseconds since the Unix epoch, as RFC 3339; what lies beyond the year 9999 as a number.
fn time(at: i64) -> String {
    const YEAR_10000: u64 = 253_402_300_800_000;
    match u64::try_from(at) {
        Ok(at) if at < YEAR_10000 => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(at)).to_string()
        }
        _ => at.to_string(),
    }
}

fn properties(properties: &BasicProperties) -> Value {
    let mut all = Map::new();
    macro_rules! take {
        ($($get:ident as $name:literal: $convert:expr),*) => {$(
            if let Some(value) = properties.$get() {
                all.insert($name.to_owned(), $convert(value));
            }
        )*};
    }
    let text = |value: &lapin::types::ShortString| Value::from(value.as_str());
    take!(
        message_id as "message_id": text,
        correlation_id as "correlation_id": text,
        reply_to as "reply_to": text,
        kind as "type": text,
        app_id as "app_id": text,
        user_id as "user_id": text,
        content_type as "content_type": text,
        content_encoding as "content_encoding": text,
        expiration as "expiration": text,
        timestamp as "timestamp": |value: &u64| Value::from(*value),
        delivery_mode as "delivery_mode": |value: &u8| Value::from(*value),
        priority as "priority": |value: &u8| Value::from(*value)
    );
    Value::Object(all)
}

fn table(table: &FieldTable) -> Value {
    table.into_iter().map(|(name, entry)| (name.to_string(), value(entry))).collect::<Map<_, _>>().into()
}

fn value(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(flag) => (*flag).into(),
        AMQPValue::ShortShortInt(n) => (*n).into(),
        AMQPValue::ShortShortUInt(n) => (*n).into(),
        AMQPValue::ShortInt(n) => (*n).into(),
        AMQPValue::ShortUInt(n) => (*n).into(),
        AMQPValue::LongInt(n) => (*n).into(),
        AMQPValue::LongUInt(n) => (*n).into(),
        AMQPValue::LongLongInt(n) => (*n).into(),
        AMQPValue::Float(n) => (*n).into(),
        AMQPValue::Double(n) => (*n).into(),
        AMQPValue::DecimalValue(n) => format!("{n:?}").into(),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(self::value).collect(),
        AMQPValue::Timestamp(seconds) => {
            time(i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)).into()
        }
        AMQPValue::FieldTable(entries) => table(entries),
        AMQPValue::ByteArray(bytes) => STANDARD.encode(bytes.as_slice()).into(),
        AMQPValue::Void => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::{dead_letter_queue::Held, text};

    fn letter(body: &[u8]) -> Letter {
        let mut headers = FieldTable::default();
        headers.insert("queue".into(), text("users.create"));
        headers.insert("code".into(), text("malformed"));
        headers.insert("detail".into(), text(&format!("\u{1b}[2J{}", "x".repeat(100))));
        let properties = BasicProperties::default()
            .with_message_id("m1".into())
            .with_timestamp(1_700_000_000)
            .with_headers(headers);
        Letter::read("users", Held::default(), properties, body.to_vec())
    }

    #[test]
    fn nothing_in_a_letter_steers_the_terminal() {
        let letter = letter(b"{\x1b]0;x\x07\n}");
        let shown = format!("{}{}", row(&letter).join(" "), detailed(&letter));
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        assert!(shown.contains("m1 create malformed 2023-11-14T22:13:20Z"), "{shown:?}");
        assert!(row(&letter)[4].ends_with('…'));
    }

    #[test]
    fn a_body_that_is_no_text_is_shown_in_base64() {
        let all = json_of(&letter(&[0xff, 0x00]));
        assert_eq!((&all["body"], all["body_base64"].as_str()), (&Value::Null, Some("/wA=")));
        assert_eq!(json_of(&letter(b"{}"))["body"], "{}");
    }

    #[test]
    fn no_time_that_a_message_may_carry_is_a_panic() {
        for at in [i64::MIN, -1, 253_402_300_800_000, i64::MAX] {
            assert_eq!(time(at), at.to_string());
        }
        assert_eq!(time(253_402_300_799_999), "9999-12-31T23:59:59Z");
    }
}
