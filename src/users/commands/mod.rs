//! The commands: one file, one struct, one pure `apply` each, in a closed enum.
//!
//! A new command is a new file and its line in [`Users`]; a test holds them against the broker's definitions.

pub mod award;
pub mod create;
pub mod get;
pub mod promote;

use rabbitry::{Code, List, Problem, Rows};

use super::user::{User, Username};

/// The user is not there.
pub const USER_NOT_FOUND: Code = Code::fatal("user_not_found", 404, "There is no such user");
/// The username is taken.
pub const USER_EXISTS: Code = Code::fatal("user_exists", 409, "The username is taken");
/// The balance would fall below 0.
pub const INSUFFICIENT_POINTS: Code = Code::fatal("insufficient_points", 409, "The user has too few points");
/// The balance would rise above 2^53−1.
pub const POINTS_LIMIT: Code = Code::fatal("points_limit", 409, "The user would have too many points");

/// The refusals that follow from the state.
pub const REFUSALS: [Code; 4] = [USER_NOT_FOUND, USER_EXISTS, INSUFFICIENT_POINTS, POINTS_LIMIT];

rabbitry::service! {
    /// The users service; a value is one of its commands.
    pub enum Users("users") of User {
        /// Stores a new user.
        Create(create::Create),
        /// Returns a user.
        Get(get::Get),
        /// Adds points.
        Award(award::Award),
        /// Sets the status that the points have earned.
        Promote(promote::Promote),
        /// Returns a page of users.
        List(List<Username>),
    }
}

/// The user, or the refusal that every command on an existing user shares.
fn existing(users: &Rows<User>, username: &Username) -> Result<User, Problem> {
    users.get(username).cloned().ok_or_else(|| {
        let detail = format!("there is no user {username}");
        Problem::new(USER_NOT_FOUND, detail)
    })
}

#[cfg(test)]
mod tests {
    use rabbitry::Service;

    use super::*;

    #[test]
    fn every_command_wants_something_or_takes_nothing() {
        for entry in Users::ENTRIES {
            if let Err(problem) = (entry.parse)(b"{}", &[]) {
                assert_eq!(problem.errors.len(), 1, "{}: {problem}", entry.spec.name);
            }
        }
        assert!(Users::entry("gone").is_none());
    }
}
