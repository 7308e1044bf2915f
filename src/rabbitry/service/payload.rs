//! How a body is read: size, one command or an array of them, and errors that name the field.

use serde::de::DeserializeOwned;
use serde_json::{error::Category, value::RawValue};

use super::{Code, Fingerprint, Payload, Problem, Service, command::Entry, members::Without};
use crate::limits::{ARRAY_BYTES_MAX, ARRAY_ITEMS_MAX, PAYLOAD_BYTES_MAX};

/// Reads a body: a JSON object is one command, a JSON array a list of them.
///
/// # Errors
/// `malformed` if it is not JSON; `invalid` if it is too large, no valid payload, or an array that is empty, too
/// long or nested.
pub fn decode<S: Service>(command: &Entry<S>, body: &[u8]) -> Result<(Payload<S>, Fingerprint), Problem> {
    let is_array = first_byte(body) == Some(b'[');
    check_size(body, is_array)?;
    if is_array {
        return decode_many(command, body);
    }
    let content = (command.parse)(body, &[])?;
    let fingerprint = Fingerprint::of(command.spec.name, &content);
    Ok((Payload::One(content), fingerprint))
}

fn decode_many<S: Service>(command: &Entry<S>, body: &[u8]) -> Result<(Payload<S>, Fingerprint), Problem> {
    let texts: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    if texts.is_empty() || texts.len() > ARRAY_ITEMS_MAX {
        let detail =
            format!("an array holds 1 to {ARRAY_ITEMS_MAX} payloads, this one holds {}", texts.len());
        return Err(Problem::new(Code::INVALID, detail));
    }
    if texts.iter().any(|text| text.get().starts_with('[')) {
        return Err(Problem::new(Code::INVALID, "an array of payloads cannot hold another array"));
    }
    let mut room = ARRAY_ITEMS_MAX;
    let parse = |text: &&RawValue| match text.get() {
        text if text.len() > PAYLOAD_BYTES_MAX => Err(too_large(text.len(), PAYLOAD_BYTES_MAX)),
        text => {
            let item = (command.parse)(text.as_bytes(), &[])?;
            room = room.checked_sub(item.needs().weight()).ok_or_else(too_much)?;
            Ok(item)
        }
    };
    let items: Vec<_> = texts.iter().map(parse).collect();
    let contents = items.iter().zip(&texts).map(|(item, text)| (item.as_ref().ok(), text.get()));
    let fingerprint = Fingerprint::of_many(command.spec.name, contents);
    Ok((Payload::Many(items), fingerprint))
}

/// Reads one payload as a value of a service's type.
///
/// # Errors
/// `malformed` if it is not JSON, `invalid` with the field's name if it is not a valid `T`.
pub fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Problem> {
    parse_without(payload, &[])
}

/// Reads one payload whose members of some names are not looked at.
///
/// # Errors
/// As [`parse`].
pub fn parse_without<T: DeserializeOwned>(payload: &[u8], ignored: &[&str]) -> Result<T, Problem> {
    // serde would take an array for a struct, field by field; the contract has objects only.
    if first_byte(payload) != Some(b'{') {
        return Err(match serde_json::from_slice::<&RawValue>(payload) {
            Ok(_) => Problem::new(Code::INVALID, "a payload is a JSON object"),
            Err(error) => not_json_text(payload, &error),
        });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(payload);
    let value = match ignored {
        [] => serde_path_to_error::deserialize(&mut deserializer),
        _ => serde_path_to_error::deserialize(Without { inner: &mut deserializer, ignored }),
    }
    .map_err(|error| {
        let path = error.path().to_string();
        match error.into_inner() {
            inner if inner.classify() == Category::Data => invalid(&path, &inner),
            inner => not_json(&inner),
        }
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn check_size(body: &[u8], is_array: bool) -> Result<(), Problem> {
    let limit = if is_array { ARRAY_BYTES_MAX } else { PAYLOAD_BYTES_MAX };
    if body.len() > limit { Err(too_large(body.len(), limit)) } else { Ok(()) }
}

fn too_large(bytes: usize, limit: usize) -> Problem {
    Problem::new(Code::INVALID, format!("the payload has {bytes} bytes, the limit is {limit}"))
}

fn too_much() -> Problem {
    let detail =
        format!("an array may ask for {ARRAY_ITEMS_MAX} things in all; send this item in another message");
    Problem::new(Code::INVALID, detail)
}

fn first_byte(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

fn not_json_text(payload: &[u8], error: &serde_json::Error) -> Problem {
    if first_byte(payload).is_none() {
        return Problem::new(Code::MALFORMED, "the body is empty; send a JSON object");
    }
    if payload.starts_with(b"\xEF\xBB\xBF") {
        return Problem::new(
            Code::MALFORMED,
            "the body begins with a byte order mark; send JSON in UTF-8 without one",
        );
    }
    not_json(error)
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(Code::MALFORMED, format!("the body is not JSON: {error}"))
}

/// serde names a missing, unknown or duplicate field in its message and any other by the path.
fn invalid(path: &str, error: &serde_json::Error) -> Problem {
    let message = error.to_string();
    let detail = message.split(" at line ").next().unwrap_or(&message).to_owned();
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|kind| detail.strip_prefix(kind)?.split('`').next());
    match named {
        Some(field) => {
            let field = field.to_owned();
            Problem::invalid_field(field, detail)
        }
        None if path == "." => Problem::new(Code::INVALID, detail),
        None => Problem::invalid_field(path, detail),
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{Command, Entity, Needs, Rows, Spec, Table};

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Item {
        item: String,
    }

    impl Entity for Item {
        type Key = String;
        const TABLE: Table = Table { name: "items", sqlite: &[], postgres: &[] };
        crate::columns!(item);
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema, clap::Args)]
    #[serde(deny_unknown_fields)]
    struct Order {
        item: String,
        #[serde(default)]
        #[arg(default_value_t)]
        count: u8,
    }

    impl Command<Item> for Order {
        const SPEC: Spec = Spec::write("order");
        type Output = ();

        fn needs(&self) -> Needs<'_, Item> {
            Needs::Page(None, self.count.into())
        }

        fn apply(&self, _: &mut Rows<Item>) -> Result<(), Problem> {
            Ok(())
        }
    }

    crate::service! {
        enum Shop("shop") of Item { Order(Order) }
    }

    fn read(body: &[u8]) -> Result<(Payload<Order>, Fingerprint), Problem> {
        let (payload, fingerprint) = decode(Shop::entry("order").unwrap(), body)?;
        let order = |Shop::Order(order)| order;
        let payload = match payload {
            Payload::One(one) => Payload::One(order(one)),
            Payload::Many(all) => Payload::Many(all.into_iter().map(|one| one.map(order)).collect()),
        };
        Ok((payload, fingerprint))
    }

    fn problem(body: &[u8]) -> Problem {
        let text = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        read(body).map(|_| ()).expect_err(&text)
    }

    fn items(body: &str) -> Vec<Result<Order, Problem>> {
        match read(body.as_bytes()).unwrap().0 {
            Payload::Many(items) => items,
            Payload::One(order) => panic!("{order:?}"),
        }
    }

    fn padded(bytes: usize) -> Vec<u8> {
        let mut body = br#"{"item":""#.to_vec();
        body.resize(bytes - 2, b'x');
        body.extend(br#""}"#);
        body
    }

    #[test]
    fn an_object_is_one_command_whatever_space_is_around_it() {
        for body in [r#"{"item":"pen"}"#, "{\"item\":\"pen\"}\n", " \r\n\t{ \"item\" : \"pen\" } \n"] {
            let Payload::One(order) = read(body.as_bytes()).unwrap().0 else { panic!("{body}") };
            assert_eq!(order, Order { item: "pen".to_owned(), count: 0 }, "{body}");
        }
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        let cases: &[&[u8]] = &[
            b"",
            b" \n",
            b"\xEF\xBB\xBF{\"item\":\"pen\"}",
            b"{",
            b"{\"item\":\"pen\"",
            b"{\"item\":\"pen\",}",
            b"{'item':'pen'}",
            b"{\"item\":\"pen\"} x",
            b"{\"item\":\"pen\"}{\"item\":\"pen\"}",
            b"{\"item\":\"\xFF\"}",
            b"{\"item\":\"a\0b\"}",
            b"{\"item\":\"\\ud800\"}",
            b"{\"item\":\"\\x\"}",
            b"{\"item\":\"pen\",\"count\":01}",
            b"\0",
            b"pen",
            b"[",
            b"[{\"item\":\"pen\"},]",
            b"[{\"item\":\"pen\"}] x",
            b"\xEF\xBB\xBF[]",
        ];
        for body in cases {
            assert_eq!(problem(body).code, Code::MALFORMED, "{}", String::from_utf8_lossy(body));
        }
        assert!(problem(b"").detail.contains("empty"));
        assert!(problem(b"\xEF\xBB\xBF{}").detail.contains("byte order mark"));
    }

    #[test]
    fn what_is_no_valid_payload_is_invalid_and_names_the_field() {
        let cases = [
            ("{}", "item"),
            (r#"{"item":null}"#, "item"),
            (r#"{"item":1}"#, "item"),
            (r#"{"item":["pen"]}"#, "item"),
            (r#"{"item":"pen","item":"pen"}"#, "item"),
            (r#"{"item":"pen","colour":"red"}"#, "colour"),
            (r#"{"item":"pen","Count":1}"#, "Count"),
            (r#"{"item":"pen","count":1.0}"#, "count"),
            (r#"{"item":"pen","count":1e0}"#, "count"),
            (r#"{"item":"pen","count":"1"}"#, "count"),
            (r#"{"item":"pen","count":-1}"#, "count"),
            (r#"{"item":"pen","count":256}"#, "count"),
            (r#"{"item":"pen","count":18446744073709551616}"#, "count"),
        ];
        for (body, field) in cases {
            let problem = problem(body.as_bytes());
            assert_eq!(problem.code, Code::INVALID, "{body}");
            assert_eq!(problem.errors.len(), 1, "{body}");
            assert_eq!(problem.errors[0].field, field, "{body}");
            assert!(!problem.detail.contains("line"), "{}", problem.detail);
        }
    }

    #[test]
    fn json_that_is_no_object_is_invalid() {
        for body in ["null", "1", "true", "\"{}\""] {
            assert_eq!(problem(body.as_bytes()).code, Code::INVALID, "{body}");
        }
    }

    #[test]
    fn nesting_however_deep_is_refused_without_harm() {
        let deep = |open: &str, close: &str| [open.repeat(30_000), close.repeat(30_000)].concat();
        let value = format!(r#"{{"item":{}}}"#, deep("[", "]"));
        assert_eq!(problem(value.as_bytes()).code, Code::INVALID);
        assert_eq!(problem(deep("[", "]").as_bytes()).code, Code::INVALID);
        let unclosed = "[".repeat(PAYLOAD_BYTES_MAX);
        assert_eq!(problem(unclosed.as_bytes()).code, Code::MALFORMED);
        let unclosed = r#"{"item":"#.repeat(8_000);
        assert_eq!(problem(unclosed.as_bytes()).code, Code::INVALID);
    }

    #[test]
    fn bodies_are_taken_up_to_their_limit() {
        assert!(read(&padded(PAYLOAD_BYTES_MAX)).is_ok());
        let large = problem(&padded(PAYLOAD_BYTES_MAX + 1));
        assert_eq!(large.code, Code::INVALID);
        assert!(large.detail.contains("65537 bytes, the limit is 65536"), "{}", large.detail);

        let mut array = vec![b'['];
        array.extend(padded(PAYLOAD_BYTES_MAX));
        array.extend(b",");
        array.extend(padded(PAYLOAD_BYTES_MAX + 1));
        array.extend(b"]");
        let Payload::Many(items) = read(&array).unwrap().0 else { panic!("not an array") };
        assert!(items[0].is_ok());
        assert_eq!(items[1].as_ref().unwrap_err().detail, large.detail);

        array.resize(ARRAY_BYTES_MAX, b' ');
        assert!(read(&array).is_ok());
        array.push(b' ');
        assert_eq!(problem(&array).code, Code::INVALID);
    }

    #[test]
    fn arrays_have_one_to_a_thousand_items_and_are_not_nested() {
        let array = |count: usize| format!("[{}]", vec![r#"{"item":"pen"}"#; count].join(","));
        assert_eq!(items(&array(1)).len(), 1);
        assert_eq!(items(&array(ARRAY_ITEMS_MAX)).len(), ARRAY_ITEMS_MAX);
        for body in ["[]", " [ ] ", &array(ARRAY_ITEMS_MAX + 1), r#"[{"item":"pen"}, [{"item":"pen"}]]"#] {
            assert_eq!(problem(body.as_bytes()).code, Code::INVALID);
        }
    }

    #[test]
    fn what_an_array_asks_for_is_bounded_too() {
        let array = r#"[{"item":"a","count":250}, {"item":"b","count":250}, {"item":"c","count":250},
            {"item":"d","count":249}, {"item":"e","count":2}, {"item":"f"}, {"item":"g"}]"#;
        let codes: Vec<_> = items(array)
            .iter()
            .map(|item| item.as_ref().map_err(|problem| problem.code.name).err())
            .collect();
        assert_eq!(codes, [None, None, None, None, Some("invalid"), None, Some("invalid")]);
    }

    #[test]
    fn items_are_refused_one_by_one() {
        let items = items(r#"[{"item":"pen"}, {"count":1}, null, "pen", {"item":"\ud800"} ]"#);
        let codes: Vec<_> = items
            .iter()
            .map(|item| item.as_ref().map_or_else(|problem| problem.code.name, |_| "fine"))
            .collect();
        assert_eq!(codes, ["fine", "invalid", "invalid", "invalid", "malformed"]);
        assert_eq!(items[1].as_ref().unwrap_err().errors[0].field, "item");
    }

    #[test]
    fn the_fingerprint_is_of_the_content_and_not_of_its_spelling() {
        let print = |body: &str| read(body.as_bytes()).unwrap().1;
        let plain = print(r#"{"item":"pen"}"#);
        for same in [r#" {"count": 0, "item" : "pen"}"#, r#"{"item":"p\u0065n"}"#] {
            assert_eq!(print(same), plain, "{same}");
        }
        let others = [
            r#"{"item":"pen","count":1}"#,
            r#"[{"item":"pen"}]"#,
            r#"[{"item":"pen"},{"item":"pen"}]"#,
            r#"[{"item":"pen"},{"item":"ink"}]"#,
            r#"[{"item":"ink"},{"item":"pen"}]"#,
            r#"[{"item":"pen"},1]"#,
            r#"[{"item":"pen"},2]"#,
        ];
        let prints: Vec<_> = others.iter().map(|other| print(other)).chain([plain]).collect();
        for (index, one) in prints.iter().enumerate() {
            assert!(!prints[..index].contains(one), "{:?}", others.get(index));
        }
        assert_ne!(Fingerprint::of("cancel", &Order { item: "pen".to_owned(), count: 0 }), plain);
        assert_eq!(
            print(r#"[{"item":"pen"},{"item":"ink"}]"#),
            print(r#"[{"item":"pen","count":0}, {"item":"ink"} ]"#)
        );
    }
}
