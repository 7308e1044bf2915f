//! A user, and the values it is made of: valid by construction.

use std::{fmt, str::FromStr};

use email_address::EmailAddress;
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    limits::{EMAIL_MAX, POINTS_MAX, USERNAME_MAX},
    service::entity::{Entity, Field, Table, Type, Unreadable, Value},
};

/// A user, as stored and as replied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
        sqlite: &[("V1__users_and_inbox", include_str!("migrations/sqlite/V1__users_and_inbox.sql"))],
        postgres: &[("V1__users_and_inbox", include_str!("migrations/postgres/V1__users_and_inbox.sql"))],
    };

    crate::columns!(username, email, points, status);
}

/// What a user's points have earned at the last promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// 1–64 of `[A-Za-z0-9._-]`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Username(String);

impl Username {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Username {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let valid = (1..=USERNAME_MAX).contains(&text.len())
            && text.chars().all(allowed)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if valid {
            Ok(Self(text))
        } else {
            Err(format!(
                "a username has 1 to {USERNAME_MAX} characters of A-Z, a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"
            ))
        }
    }
}

/// A syntactically valid e-mail address (RFC 5321, 5322) of at most 254 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Email(String);

impl Email {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Email {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > EMAIL_MAX {
            return Err(format!(
                "an e-mail address has at most {EMAIL_MAX} bytes, this one has {}",
                text.len()
            ));
        }
        let plain = email_address::Options::default().without_display_text().without_domain_literal();
        EmailAddress::parse_with_options(&text, plain)
            .map_err(|error| format!("not an e-mail address: {error}"))?;
        if text.chars().any(char::is_control) {
            return Err("not an e-mail address: it holds a control character".to_owned());
        }
        Ok(Self(text))
    }
}

macro_rules! text_values {
    ($($name:ident),*) => {$(
        impl Field for $name {
            const TYPE: Type = Type::Text;

            fn value(&self) -> Value<'_> {
                Value::Text(&self.0)
            }

            // What is stored was valid once: a rule made stricter since must not make users unreadable.
            fn read(value: Value<'_>) -> Result<Self, Unreadable> {
                String::read(value).map(Self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::try_from(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
text_values!(Username, Email);

/// A balance of 0 … 2^53−1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Points(u64);

impl Points {
    /// The balance as a number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The balance as stores keep it.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).expect("points lie below 2^53")
    }
}

impl Field for Points {
    const TYPE: Type = Type::Integer;

    fn value(&self) -> Value<'_> {
        Value::Integer(i64::try_from(self.0).expect("points lie below 2^53"))
    }

    fn read(value: Value<'_>) -> Result<Self, Unreadable> {
        i64::read(value)?.try_into().map_err(Unreadable)
    }
}

impl TryFrom<i64> for Points {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        match u64::try_from(number) {
            Ok(points) if points <= POINTS_MAX => Ok(Self(points)),
            _ => Err(format!("points are a whole number from 0 to {POINTS_MAX}, not {number}")),
        }
    }
}

impl<'de> Deserialize<'de> for Points {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(deserialize_whole(deserializer, POINTS_MAX)?).map_err(de::Error::custom)
    }
}

/// Points to add: not 0, possibly negative, at most 2^53−1 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Award(i64);

impl Award {
    /// The number of points to add.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Award {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        if number != 0 && number.unsigned_abs() <= POINTS_MAX {
            Ok(Self(number))
        } else {
            Err(format!(
                "awarded points are a whole number from -{POINTS_MAX} to {POINTS_MAX} other than 0, not {number}"
            ))
        }
    }
}

impl<'de> Deserialize<'de> for Award {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(deserialize_whole(deserializer, POINTS_MAX)?).map_err(de::Error::custom)
    }
}

/// Reads an integer written as one: `1.0` and `1e3` are refused, as not every reader takes them for the same number.
/// Who calls it holds the number against `max`, which is named here only.
pub(in crate::users) fn deserialize_whole<'de, D: Deserializer<'de>>(
    deserializer: D,
    max: u64,
) -> Result<i64, D::Error> {
    struct Whole {
        max: u64,
    }
    impl de::Visitor<'_> for Whole {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a whole number of at most {}, without fraction or exponent", self.max)
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<i64, E> {
            // `-0` is read as a float too, and its writer has written none.
            if number == 0.0 && number.is_sign_negative() {
                return Err(E::invalid_value(de::Unexpected::Other("minus zero"), &self));
            }
            Err(E::invalid_type(de::Unexpected::Float(number), &self))
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<i64, E> {
            Ok(number)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<i64, E> {
            i64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
        }
    }
    deserializer.deserialize_i64(Whole { max })
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
