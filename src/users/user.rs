//! A user, and the values it is made of: valid by construction.

use std::{iter::repeat_n, str::FromStr};

use email_address::EmailAddress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use rabbitry::{
    Entity, Field, Table, columns,
    service::entity::{Type, Unreadable, Value},
    text, whole,
};

use crate::limits::{EMAIL_MAX, POINTS_MAX, USERNAME_MAX};

/// A user, as stored and as replied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// Unique, case-sensitive.
    pub username: Username,
    /// Need not be unique.
    pub email: Email,
    /// The balance.
    pub points: Points,
    /// Changes only by `promote`.
    pub status: Status,
}

impl Entity for User {
    type Key = Username;

    const TABLE: Table = Table {
        name: "users",
        sqlite: &[("V1__users", include_str!("migrations/sqlite/V1__users.sql"))],
        postgres: &[("V1__users", include_str!("migrations/postgres/V1__users.sql"))],
    };

    columns!(username, email, points, status);
}

/// What a user's points have earned at the last promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Status {
    /// Up to 50 points.
    Bronze,
    /// Above 50 points.
    Silver,
    /// Above 100 points.
    Gold,
}

impl Status {
    /// The status as stores and replies write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bronze => "Bronze",
            Self::Silver => "Silver",
            Self::Gold => "Gold",
        }
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Bronze, Self::Silver, Self::Gold]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("there is no status {text:?}"))
    }
}

impl Field for Status {
    const TYPE: Type = Type::Text;

    fn value(&self) -> Value<'_> {
        Value::Text(self.as_str())
    }

    fn read(value: Value<'_>) -> Result<Self, Unreadable> {
        String::read(value)?.parse().map_err(Unreadable)
    }
}

text! {
    /// 1–64 of `[A-Za-z0-9._-]`, beginning with a letter or digit.
    pub struct Username {
        max: USERNAME_MAX,
        pattern: "^[A-Za-z0-9][A-Za-z0-9._-]*$",
        otherwise: format!(
            "a username has 1 to {USERNAME_MAX} characters of A-Z, a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"
        ),
    }
}

text! {
    /// A syntactically valid e-mail address (RFC 5321, 5322) of at most 254 bytes. Beyond ASCII every character is taken
    /// that is no control character, where a letter may stand and within quotes (RFC 6532).
    pub struct Email { max: EMAIL_MAX, also: "format" = "email", check: check_address }
}

fn check_address(text: &str) -> Result<(), String> {
    if text.len() > EMAIL_MAX {
        return Err(format!("an e-mail address has at most {EMAIL_MAX} bytes, this one has {}", text.len()));
    }
    let plain = email_address::Options::default().without_display_text().without_domain_literal();
    // The library takes some characters beyond ASCII here and others there; the lengths are those in bytes.
    let ascii: String =
        text.chars().flat_map(|c| repeat_n(if c.is_ascii() { c } else { 'x' }, c.len_utf8())).collect();
    EmailAddress::parse_with_options(&ascii, plain)
        .map_err(|error| format!("not an e-mail address: {error}"))?;
    if text.chars().any(char::is_control) {
        return Err("not an e-mail address: it holds a control character".to_owned());
    }
    Ok(())
}

whole! {
    /// A balance.
    #[derive(Default)]
    pub struct Points("points are": 0 => POINTS_MAX);
}

whole! {
    /// Points to add, or with a minus to take away: never nothing.
    pub struct Award("awarded points are": -POINTS_MAX => POINTS_MAX, except 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_are_short_and_plain() {
        for good in ["a", "9lives", "ann.b_c-d", &"x".repeat(USERNAME_MAX)] {
            assert!(Username::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a b", "ä", "a\0", &"x".repeat(USERNAME_MAX + 1)] {
            assert!(Username::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn email_addresses_follow_the_rfc() {
        for good in ["john@example.com", "a+b@c.de", "x@localhost"] {
            assert!(Email::try_from(good.to_owned()).is_ok(), "{good}");
        }
        let long = format!("{}@{}.com", "x".repeat(64), "y".repeat(190));
        for bad in
            ["", "john", "john@", "@example.com", "a b@c.de", "Ann <ann@example.com>", "a\0@b.c", &long]
        {
            assert!(Email::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn characters_beyond_ascii_are_taken_quoted_or_not() {
        for name in ["chloé", "हिन्दी", "名", "😀"] {
            for good in [
                format!("{name}@example.com"),
                format!("\"{name} x\"@example.com"),
                format!("x@{name}.example"),
                format!("{}@example.com", name.repeat(64 / name.len())),
            ] {
                assert!(Email::try_from(good.clone()).is_ok(), "{good}");
            }
            for bad in [
                format!("{name} x@example.com"),
                format!("\"{name}@example.com"),
                format!("\"{name}\u{85}\"@example.com"),
                format!("{name}\u{9b}@example.com"),
                format!("{name}@"),
                format!("{}@example.com", name.repeat(64 / name.len() + 1)),
            ] {
                assert!(Email::try_from(bad.clone()).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn points_are_whole_numbers_within_their_bounds() {
        for good in ["0", "9007199254740991"] {
            assert!(serde_json::from_str::<Points>(good).is_ok(), "{good}");
        }
        for bad in ["-1", "9007199254740992", "18446744073709551616", "1.0", "1e3", "\"1\"", "null", "true"] {
            assert!(serde_json::from_str::<Points>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_whole_number_is_told_in_plain_words() {
        let cases = [
            ("1.0", "invalid type: floating point `1.0`, expected a whole number"),
            ("-0", "invalid value: minus zero, expected a whole number"),
            ("null", "invalid type: null, expected a whole number"),
        ];
        for (text, expected) in cases {
            let points = serde_json::from_str::<Points>(text).unwrap_err().to_string();
            assert!(points.starts_with(&format!("{expected} of at most {POINTS_MAX}, without")), "{points}");
        }
    }

    #[test]
    fn a_status_is_stored_under_the_name_that_replies_show() {
        for status in [Status::Bronze, Status::Silver, Status::Gold] {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert!("bronze".parse::<Status>().is_err());
    }

    #[test]
    fn an_award_is_never_nothing() {
        for good in ["1", "-1", "-9007199254740991"] {
            assert!(serde_json::from_str::<Award>(good).is_ok(), "{good}");
        }
        for bad in ["0", "-9007199254740992", "-9223372036854775808", "0.5"] {
            assert!(serde_json::from_str::<Award>(bad).is_err(), "{bad}");
        }
    }
}
