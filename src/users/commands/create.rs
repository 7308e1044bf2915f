//! `create`: stores a new user.

use rabbitry::{Command, Needs, Problem, Rows, Spec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::USER_EXISTS;
use crate::user::{Email, Points, Status, User, Username};

/// Store a new user
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// 1 to 64 of A-Z a-z 0-9 . _ -
    pub username: Username,
    /// E-mail address
    #[arg(long)]
    pub email: Email,
    /// Opening balance
    #[serde(default)]
    #[arg(long, default_value_t, allow_negative_numbers = true)]
    pub points: Points,
}

impl Command<User> for Create {
    const SPEC: Spec = Spec::write("create").created();
    type Output = User;

    fn needs(&self) -> Needs<'_, User> {
        Needs::Key(&self.username)
    }

    /// Stores the user as `Bronze`; a status has to be earned by `promote`.
    ///
    /// # Errors
    /// `user_exists`.
    fn apply(&self, users: &mut Rows<User>) -> Result<User, Problem> {
        let Self { username, email, points } = self.clone();
        if users.get(&username).is_some() {
            return Err(Problem::new(USER_EXISTS, format!("there is a user {username} already")));
        }
        let user = User { username, email, points, status: Status::Bronze };
        users.put(user.clone());
        Ok(user)
    }
}
