//! Values that are valid by construction. A rule stands in one place, and serves JSON, command line, schema and store.

use std::fmt;

use serde::{Deserializer, de};

/// A whole number between bounds: made by JSON (as an integer without fraction or exponent), by the command line, and by
/// the store.
///
/// ```
/// rabbitry::whole! {
///     /// How many.
///     pub struct Count("a count is": 1 => 1000);
/// }
/// assert!(serde_json::from_str::<Count>("7").is_ok());
/// assert_eq!(
///     Count::try_from(0).unwrap_err(),
///     "a count is a whole number from 1 to 1000, not 0"
/// );
/// ```
#[macro_export]
macro_rules! whole {
    ($(#[$about:meta])* $vis:vis struct $name:ident($what:literal: $min:expr => $max:expr $(, except $not:literal)?);) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        $vis struct $name(i64);

        impl $name {
            /// The number.
            #[allow(dead_code, reason = "not every rule looks into it")]
            $vis fn get(self) -> i64 {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = String;

            fn try_from(number: i64) -> Result<Self, String> {
                if ($min..=$max).contains(&number) $(&& number != $not)? {
                    Ok(Self(number))
                } else {
                    let except: &[i64] = &[$($not)?];
                    Err($crate::service::value::out_of_bounds($what, $min, $max, except, number))
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                text.parse::<i64>().map_err(|_| format!("{text:?} is not a whole number"))?.try_into()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::service::value::whole_number(deserializer, $max)?.try_into().map_err(serde::de::Error::custom)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $crate::service::entity::Field for $name {
            const TYPE: $crate::service::entity::Type = $crate::service::entity::Type::Integer;

            fn value(&self) -> $crate::service::entity::Value<'_> {
                $crate::service::entity::Value::Integer(self.0)
            }

            fn read(
                value: $crate::service::entity::Value<'_>,
            ) -> Result<Self, $crate::service::entity::Unreadable> {
                let number = <i64 as $crate::service::entity::Field>::read(value)?;
                number.try_into().map_err($crate::service::entity::Unreadable)
            }
        }

        impl $crate::schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut $crate::schemars::SchemaGenerator) -> $crate::schemars::Schema {
                #[allow(unused_mut)]
                let mut schema =
                    $crate::schemars::json_schema!({"type": "integer", "minimum": $min, "maximum": $max});
                $(schema.insert("not".to_owned(), $crate::serde_json::json!({"const": $not}));)?
                schema
            }
        }
    };
}

/// A text that follows a rule: a longest length in characters, and a pattern (in the syntax that JSON Schema and the
/// `regex` crate share); or a function that says what is wrong, and what the schema says of that.
///
/// ```
/// rabbitry::text! {
///     /// What an item is called.
///     pub struct Sku { max: 20, pattern: "^[A-Z0-9-]+$", otherwise: "a SKU has 1 to 20 characters of A-Z, 0-9 and '-'" }
/// }
/// assert!("PEN-7".parse::<Sku>().is_ok());
/// assert!("pen".parse::<Sku>().is_err());
/// ```
#[macro_export]
macro_rules! text {
    ($(#[$about:meta])* $vis:vis struct $name:ident {
        max: $max:expr, pattern: $pattern:expr, otherwise: $otherwise:expr $(,)?
    }) => {
        $crate::text! {
            $(#[$about])*
            $vis struct $name {
                max: $max,
                also: "pattern" = $pattern,
                check: |text: &str| {
                    static PATTERN: std::sync::LazyLock<$crate::regex::Regex> =
                        std::sync::LazyLock::new(|| $crate::regex::Regex::new($pattern).expect("a pattern"));
                    if text.chars().count() <= $max && PATTERN.is_match(text) {
                        Ok(())
                    } else {
                        Err($otherwise.to_owned())
                    }
                },
            }
        }
    };
    ($(#[$about:meta])* $vis:vis struct $name:ident {
        max: $max:expr, also: $key:literal = $also:expr, check: $check:expr $(,)?
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        $vis struct $name(String);

        impl $name {
            /// The text.
            #[allow(dead_code, reason = "not every rule looks into it")]
            $vis fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                text.to_owned().try_into()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $crate::service::entity::Field for $name {
            const TYPE: $crate::service::entity::Type = $crate::service::entity::Type::Text;

            fn value(&self) -> $crate::service::entity::Value<'_> {
                $crate::service::entity::Value::Text(&self.0)
            }

            // What is stored was valid once: a rule made stricter since must not make it unreadable.
            fn read(
                value: $crate::service::entity::Value<'_>,
            ) -> Result<Self, $crate::service::entity::Unreadable> {
                <String as $crate::service::entity::Field>::read(value).map(Self)
            }
        }

        impl $crate::schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut $crate::schemars::SchemaGenerator) -> $crate::schemars::Schema {
                let mut schema = $crate::schemars::json_schema!({"type": "string", "maxLength": $max});
                schema.insert($key.to_owned(), $also.into());
                schema
            }
        }
    };
}

/// What is wrong with a number that lies outside its bounds.
pub fn out_of_bounds(what: &str, min: i64, max: i64, except: &[i64], number: i64) -> String {
    let except = except.first().map_or_else(String::new, |not| format!(" other than {not}"));
    format!("{what} a whole number from {min} to {max}{except}, not {number}")
}

/// Reads an integer written as one: `1.0` and `1e3` are refused, as not every reader takes them for the same number.
/// The caller compares the number with `max`, which is only named here.
///
/// # Errors
/// If it is no integer of 64 bits.
pub fn whole_number<'de, D: Deserializer<'de>>(deserializer: D, max: i64) -> Result<i64, D::Error> {
    deserializer.deserialize_i64(Whole { max })
}

struct Whole {
    max: i64,
}

impl de::Visitor<'_> for Whole {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number of at most {}, without fraction or exponent", self.max)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<i64, E> {
        // serde_json reads `-0` as a float too.
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
