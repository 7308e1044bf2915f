//! `list`: returns a page of users.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    limits::{LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX},
    service::{
        Problem,
        command::{Command, Spec},
        rows::{Needs, Rows},
    },
    users::user::{User, Username},
    whole,
};

/// Show a page of users by username
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Begin after this username
    #[arg(long)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub after: Option<Username>,
    /// How many users at most, 1 to 1000
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
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Username>, D::Error> {
    Username::deserialize(deserializer).map(Some)
}

/// A page of users. There is no snapshot across pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page {
    /// Users by username.
    pub users: Vec<User>,
    /// What to give as `after` for the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Username>,
}

impl Command<User> for List {
    const SPEC: Spec = Spec::read("list");
    type Output = Page;

    fn needs(&self) -> Needs<'_, User> {
        Needs::Page(self.after.as_ref(), self.limit.rows())
    }

    fn apply(&self, users: &mut Rows<User>) -> Result<Page, Problem> {
        let (found, more) = users.page(self.after.as_ref(), self.limit.rows());
        let next = found.last().filter(|_| more).map(|last| last.username.clone());
        Ok(Page { users: found.into_iter().cloned().collect(), next })
    }
}

#[cfg(test)]
mod tests {
    use crate::{service::Service, users::commands::Users};

    #[test]
    fn a_limit_that_is_none_is_told_in_plain_words() {
        let cases = [
            ("1.0", "limit: invalid type: floating point `1.0`, expected a whole number of at most 1000"),
            ("null", "limit: invalid type: null, expected a whole number of at most 1000"),
            ("-0", "limit: invalid value: minus zero, expected a whole number of at most 1000"),
            ("1001", "limit: the limit is a whole number from 1 to 1000, not 1001"),
        ];
        for (limit, expected) in cases {
            let problem = Users::parse("list", format!(r#"{{"limit":{limit}}}"#).as_bytes()).unwrap_err();
            assert!(problem.detail.starts_with(expected), "{}", problem.detail);
        }
    }
}
