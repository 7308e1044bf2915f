//! The command that every service can have: a page of what it keeps. It stands in [`service!`](crate::service!) with the type
//! of the entity's key: `List(List<String>)`.

use std::{error::Error, fmt::Display, str::FromStr};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, ser::SerializeMap};

use super::{Command, Entity, Needs, Problem, Rows, Spec};
use crate::{
    limits::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX},
    whole,
};

/// Show a page, in the order of keys
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Args)]
#[serde(deny_unknown_fields, bound(deserialize = "K: DeserializeOwned"))]
pub struct List<K>
where
    K: Clone + Send + Sync + FromStr + 'static,
    K::Err: Into<Box<dyn Error + Send + Sync>>,
{
    /// Begin after this key
    #[arg(long)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub after: Option<K>,
    /// How many at most, 1 to 1000
    #[serde(default)]
    #[arg(long, default_value_t)]
    pub limit: Limit,
}

whole! {
    /// A page's size.
    pub struct Limit("the limit is": 1 => i64::from(LIST_LIMIT_MAX));
}

impl Limit {
    fn rows(self) -> u16 {
        u16::try_from(self.get()).expect("it is at most LIST_LIMIT_MAX")
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(LIST_LIMIT_DEFAULT.into())
    }
}

/// An optional field is there or not; `null` is neither.
fn present<'de, D: Deserializer<'de>, K: Deserialize<'de>>(deserializer: D) -> Result<Option<K>, D::Error> {
    K::deserialize(deserializer).map(Some)
}

/// A page: the entities, under the name of their table, and what to give as `after` for the next page, if there is one. There is
/// no snapshot across pages.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<E: Entity> {
    /// The entities, in the order of keys.
    pub entities: Vec<E>,
    /// The key of the last one, if more follow.
    pub next: Option<E::Key>,
}

impl<E: Entity<Key: Serialize>> Serialize for Page<E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(E::TABLE.name, &self.entities)?;
        if let Some(next) = &self.next {
            map.serialize_entry("next", next)?;
        }
        map.end()
    }
}

impl<E: Entity<Key: JsonSchema> + JsonSchema> JsonSchema for Page<E> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("PageOf{}", E::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let entities = generator.subschema_for::<Vec<E>>();
        let next = generator.subschema_for::<E::Key>();
        let name = E::TABLE.name;
        schemars::json_schema!({"type": "object", "properties": {name: entities, "next": next}, "required": [name]})
    }
}

impl<E> Command<E> for List<E::Key>
where
    E: Entity + JsonSchema,
    E::Key: FromStr<Err: Into<Box<dyn Error + Send + Sync>>>
        + Display
        + Serialize
        + DeserializeOwned
        + JsonSchema,
{
    const SPEC: Spec = Spec::read("list").paged();
    type Output = Page<E>;

    fn needs(&self) -> Needs<'_, E> {
        Needs::Page(self.after.as_ref(), self.limit.rows())
    }

    fn apply(&self, rows: &mut Rows<E>) -> Result<Page<E>, Problem> {
        let (found, more) = rows.page(self.after.as_ref(), self.limit.rows());
        let next = found.last().filter(|_| more).map(|last| last.key().clone());
        Ok(Page { entities: found.into_iter().cloned().collect(), next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::payload::parse;

    #[test]
    fn a_limit_that_is_none_is_told_in_plain_words() {
        let cases = [
            ("1.0", "limit: invalid type: floating point `1.0`, expected a whole number of at most 1000"),
            ("null", "limit: invalid type: null, expected a whole number of at most 1000"),
            ("-0", "limit: invalid value: minus zero, expected a whole number of at most 1000"),
            ("1001", "limit: the limit is a whole number from 1 to 1000, not 1001"),
        ];
        for (limit, expected) in cases {
            let problem = parse::<List<String>>(format!(r#"{{"limit":{limit}}}"#).as_bytes()).unwrap_err();
            assert!(problem.detail.starts_with(expected), "{}", problem.detail);
        }
        assert!(parse::<List<String>>(br#"{"after":null}"#).is_err());
    }
}
