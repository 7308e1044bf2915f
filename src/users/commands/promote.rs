//! `promote`: sets the status that the points have earned.

use rabbitry::{Command, Needs, Problem, Rows, Spec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::existing;
use crate::{
    promotion::earned_by,
    user::{User, Username},
};

/// Set the status that a user's points have earned
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// Who
    pub username: Username,
}

impl Command<User> for Promote {
    const SPEC: Spec = Spec::write("promote");
    type Output = User;

    fn needs(&self) -> Needs<'_, User> {
        Needs::Key(&self.username)
    }

    /// Sets the earned status, up or down, and returns the user.
    ///
    /// # Errors
    /// `user_not_found`.
    fn apply(&self, users: &mut Rows<User>) -> Result<User, Problem> {
        let mut user = existing(users, &self.username)?;
        let earned = earned_by(user.points);
        if user.status != earned {
            user.status = earned;
            users.put(user.clone());
        }
        Ok(user)
    }
}
