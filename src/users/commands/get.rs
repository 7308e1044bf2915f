//! `get`: returns a user.

use rabbitry::{Command, Needs, Problem, Rows, Spec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::existing;
use crate::user::{User, Username};

/// Show a user
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// Who
    pub username: Username,
}

impl Command<User> for Get {
    const SPEC: Spec = Spec::read("get");
    type Output = User;

    fn needs(&self) -> Needs<'_, User> {
        Needs::Key(&self.username)
    }

    /// Returns the user.
    ///
    /// # Errors
    /// `user_not_found`.
    fn apply(&self, users: &mut Rows<User>) -> Result<User, Problem> {
        existing(users, &self.username)
    }
}
