//! `get`: returns a user.

use serde::{Deserialize, Serialize};

use super::existing;
use crate::{
    service::Problem,
    users::{
        model::{User, Username},
        working_set::WorkingSet,
    },
};

/// Payload of `get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// Who.
    pub username: Username,
}

impl Get {
    /// Returns the user.
    ///
    /// # Errors
    /// `user_not_found`.
    pub fn apply(&self, users: &WorkingSet) -> Result<User, Problem> {
        existing(users, &self.username)
    }
}
