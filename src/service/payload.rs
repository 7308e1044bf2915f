//! How a body is read: size, one command or an array of them, and errors that name the field.

use serde::de::DeserializeOwned;
use serde_json::{error::Category, value::RawValue};

use super::{Code, Fingerprint, Payload, Problem, Service};
use crate::limits::{ARRAY_BYTES_MAX, ARRAY_ITEMS_MAX, PAYLOAD_BYTES_MAX};

/// Reads a body: a JSON object is one command, a JSON array a list of them.
///
/// # Errors
/// `malformed` if it is not JSON; `invalid` if it is too large, no valid payload, or an array that is empty, too
/// long or nested.
pub fn decode<S: Service>(
    service: &S,
    command: &'static str,
    body: &[u8],
) -> Result<(Payload<S::Command>, Fingerprint), Problem> {
    let is_array = first_byte(body) == Some(b'[');
    check_size(body, is_array)?;
    if is_array {
        return decode_many(service, command, body);
    }
    let content = service.parse(command, body)?;
    let fingerprint = Fingerprint::of(command, &content);
    Ok((Payload::One(content), fingerprint))
}

fn decode_many<S: Service>(
    service: &S,
    command: &'static str,
    body: &[u8],
) -> Result<(Payload<S::Command>, Fingerprint), Problem> {
    let texts: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    if texts.is_empty() || texts.len() > ARRAY_ITEMS_MAX {
        let detail =
            format!("an array holds 1 to {ARRAY_ITEMS_MAX} payloads, this one holds {}", texts.len());
        return Err(Problem::new(Code::INVALID, detail));
    }
    if texts.iter().any(|text| text.get().starts_with('[')) {
        return Err(Problem::new(Code::INVALID, "an array of payloads cannot hold another array"));
    }
    let parse = |text: &&RawValue| match text.get() {
        text if text.len() > PAYLOAD_BYTES_MAX => Err(too_large(text.len(), PAYLOAD_BYTES_MAX)),
        text => service.parse(command, text.as_bytes()),
    };
    let items: Vec<_> = texts.iter().map(parse).collect();
    let contents = items.iter().zip(&texts).map(|(item, text)| (item.as_ref().ok(), text.get()));
    let fingerprint = Fingerprint::of_many(command, contents);
    Ok((Payload::Many(items), fingerprint))
}

/// Reads one payload as a value of a service's type.
///
/// # Errors
/// `malformed` if it is not JSON, `invalid` with the field's name if it is not a valid `T`.
pub fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Problem> {
    // serde would take an array for a struct, field by field; the contract has objects only.
    if first_byte(payload) != Some(b'{') {
        return Err(match serde_json::from_slice::<&RawValue>(payload) {
            Ok(_) => Problem::new(Code::INVALID, "a payload is a JSON object"),
            Err(error) => not_json_text(payload, &error),
        });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(payload);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
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
