//! `award`: adds points.

use rabbitry::{Command, Needs, Problem, Rows, Spec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{INSUFFICIENT_POINTS, POINTS_LIMIT, existing};
use crate::{
    limits::POINTS_MAX,
    user::{self, Points, User, Username},
};

/// Add points to a user, or take them away
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Award {
    /// Who
    pub username: Username,
    /// How many, for instance 25 or -25
    #[arg(allow_negative_numbers = true)]
    pub points: user::Award,
}

impl Command<User> for Award {
    const SPEC: Spec = Spec::write("award");
    type Output = User;

    fn needs(&self) -> Needs<'_, User> {
        Needs::Key(&self.username)
    }

    /// Adds the points; the status stays until the next `promote`.
    ///
    /// # Errors
    /// `user_not_found`; `insufficient_points` or `points_limit` if the balance would leave its bounds.
    fn apply(&self, users: &mut Rows<User>) -> Result<User, Problem> {
        let mut user = existing(users, &self.username)?;
        let (balance, award) = (user.points.get(), self.points.get());
        // Neither side exceeds 2^53, so the sum cannot overflow.
        user.points = Points::try_from(balance + award).map_err(|_| {
            let (code, bound) = match award {
                ..0 => (INSUFFICIENT_POINTS, "0".to_owned()),
                _ => (POINTS_LIMIT, POINTS_MAX.to_string()),
            };
            let username = &self.username;
            Problem::new(
                code,
                format!("{username} has {balance} points, {award:+} would leave the bound of {bound}"),
            )
        })?;
        users.put(user.clone());
        Ok(user)
    }
}
