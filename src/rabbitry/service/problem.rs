//! Refusals and errors as values: RFC 9457 members plus a stable code.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::limits::DETAIL_MAX;

/// A stable error code. Codes are part of the wire contract and listed in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Stable, snake case.
    pub name: &'static str,
    /// HTTP-like status.
    pub status: u16,
    /// Short and the same for every occurrence (RFC 9457, 3.1.3).
    pub title: &'static str,
    /// Whether sending the same command again may have another outcome.
    pub retryable: bool,
}

impl Code {
    /// Defines a code that is final: sending the same command again gives the same answer.
    pub const fn fatal(name: &'static str, status: u16, title: &'static str) -> Self {
        Self { name, status, title, retryable: false }
    }

    /// Defines a code whose cause may pass.
    pub const fn retryable(name: &'static str, status: u16, title: &'static str) -> Self {
        Self { name, status, title, retryable: true }
    }

    /// The body is not JSON.
    pub const MALFORMED: Self = Self::fatal("malformed", 400, "The message is not JSON");
    /// The body is JSON, but not a valid payload; or a property is not valid.
    pub const INVALID: Self = Self::fatal("invalid", 422, "The message is not a valid command");
    /// The message id was used for another command content.
    pub const IDEMPOTENCY_CONFLICT: Self =
        Self::fatal("idempotency_conflict", 422, "The message id was used for another content");
    /// The message id is older than replies are remembered.
    pub const ID_EXPIRED: Self = Self::fatal("id_expired", 409, "The message id is too old");
    /// The message id was made ahead of the worker's clock.
    pub const ID_FROM_FUTURE: Self =
        Self::retryable("id_from_future", 409, "The message id is from the future");
    /// The deadline passed before the command was executed.
    pub const DEADLINE_EXCEEDED: Self =
        Self::retryable("deadline_exceeded", 504, "The deadline passed before execution");
    /// A fault of ours; the message is set aside for a person to look at.
    pub const INTERNAL: Self = Self::fatal("internal", 500, "The command failed for an internal reason");
    /// The system cannot take the command now.
    pub const UNAVAILABLE: Self =
        Self::retryable("unavailable", 503, "The system cannot take the command now");

    /// The codes that every service shares.
    pub const SHARED: [Self; 8] = [
        Self::MALFORMED,
        Self::INVALID,
        Self::IDEMPOTENCY_CONFLICT,
        Self::ID_EXPIRED,
        Self::ID_FROM_FUTURE,
        Self::DEADLINE_EXCEEDED,
        Self::INTERNAL,
        Self::UNAVAILABLE,
    ];
}

/// Why a command was refused or not executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .code.name)]
pub struct Problem {
    /// What kind of problem.
    pub code: Code,
    /// This occurrence, for a person.
    pub detail: String,
    /// The fields at fault, if it is about fields.
    pub errors: Vec<FieldError>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// The field's name or path.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Problem {
    /// A problem with a sentence about this occurrence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: cut(detail.into()), errors: Vec::new() }
    }

    /// An `invalid` problem that names the field.
    pub fn invalid_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let error = FieldError { field: cut(field.into()), detail: cut(detail.into()) };
        Self {
            code: Code::INVALID,
            detail: cut(format!("{}: {}", error.field, error.detail)),
            errors: vec![error],
        }
    }
}

/// Cuts a text in which may stand what the sender wrote, and which may be as long as a payload.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > DETAIL_MAX {
        text.truncate(text.floor_char_boundary(DETAIL_MAX));
        text.push('…');
    }
    text
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { code, detail, errors } = self;
        let mut members = serializer.serialize_struct("Problem", 6 + usize::from(!errors.is_empty()))?;
        members.serialize_field("type", &Cow::from(format!("urn:rabbitry:problem:{}", code.name)))?;
        members.serialize_field("title", code.title)?;
        members.serialize_field("status", &code.status)?;
        members.serialize_field("detail", detail)?;
        members.serialize_field("code", code.name)?;
        members.serialize_field("retryable", &code.retryable)?;
        if !errors.is_empty() {
            members.serialize_field("errors", errors)?;
        }
        members.end()
    }
}
