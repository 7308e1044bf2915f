//! `promote`: sets the status that the points have earned.

use serde::{Deserialize, Serialize};

use super::existing;
use crate::{
    service::Problem,
    users::{
        model::{User, Username},
        promotion::earned_by,
        working_set::WorkingSet,
    },
};

/// Payload of `promote`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// Who.
    pub username: Username,
}

impl Promote {
    /// Sets the earned status, up or down, and returns the user.
    ///
    /// # Errors
    /// `user_not_found`.
    pub fn apply(&self, users: &mut WorkingSet) -> Result<User, Problem> {
        let mut user = existing(users, &self.username)?;
        let earned = earned_by(user.points);
        if user.status != earned {
            user.status = earned;
            users.put(user.clone());
        }
        Ok(user)
    }
}
