//! `create`: stores a new user.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::USER_EXISTS;
use crate::{
    service::{
        Problem,
        command::{Command, Spec},
        rows::{Needs, Rows},
    },
    users::user::{Email, Points, Status, User, Username},
};

/// Payload of `create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// The new user's name.
    pub username: Username,
    /// The new user's address.
    pub email: Email,
    /// The opening balance.
    #[serde(default)]
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
