//! The commands: one file, one struct, one pure `apply` each, in a closed enum.
//!
//! A new command is a new file and its lines in this one; the compiler names the places that are missing, and a test
//! holds [`COMMANDS`] against the broker's definitions.

pub mod award;
pub mod create;
pub mod get;
pub mod list;
pub mod promote;

use serde::Serialize;

use super::{
    model::{User, Username},
    working_set::WorkingSet,
};
use crate::service::{Access, Code, CommandSpec, Problem, payload, to_json};

/// What the service can be asked for.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "create", access: Access::Write },
    CommandSpec { name: "get", access: Access::Read },
    CommandSpec { name: "award", access: Access::Write },
    CommandSpec { name: "promote", access: Access::Write },
    CommandSpec { name: "list", access: Access::Read },
];

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

/// A valid command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Command {
    /// Stores a new user.
    Create(create::Create),
    /// Returns a user.
    Get(get::Get),
    /// Adds points.
    Award(award::Award),
    /// Sets the status that the points have earned.
    Promote(promote::Promote),
    /// Returns a page of users.
    List(list::List),
}

impl Command {
    /// Reads the payload of the command with this name.
    ///
    /// # Errors
    /// `malformed`, or `invalid` with the field.
    pub fn parse(name: &str, body: &[u8]) -> Result<Self, Problem> {
        match name {
            "create" => payload::parse(body).map(Self::Create),
            "get" => payload::parse(body).map(Self::Get),
            "award" => payload::parse(body).map(Self::Award),
            "promote" => payload::parse(body).map(Self::Promote),
            "list" => payload::parse(body).map(Self::List),
            other => Err(Problem::new(Code::INVALID, format!("there is no command {other:?}"))),
        }
    }

    /// The user that the command is about; `list` is about none.
    pub fn username(&self) -> Option<&Username> {
        match self {
            Self::Create(create::Create { username, .. })
            | Self::Get(get::Get { username })
            | Self::Award(award::Award { username, .. })
            | Self::Promote(promote::Promote { username }) => Some(username),
            Self::List(_) => None,
        }
    }

    /// Applies the command: status and JSON of its success, or a refusal.
    ///
    /// # Errors
    /// The refusals of the single commands.
    pub fn apply(&self, users: &mut WorkingSet) -> Result<(u16, Vec<u8>), Problem> {
        match self {
            Self::Create(create) => create.apply(users).map(|user| (201, to_json(&user))),
            Self::Get(get) => get.apply(users).map(|user| (200, to_json(&user))),
            Self::Award(award) => award.apply(users).map(|user| (200, to_json(&user))),
            Self::Promote(promote) => promote.apply(users).map(|user| (200, to_json(&user))),
            Self::List(list) => Ok((200, to_json(&list.apply(users)))),
        }
    }
}

/// The user, or the refusal that every command on an existing user shares.
fn existing(users: &WorkingSet, username: &Username) -> Result<User, Problem> {
    users.get(username).cloned().ok_or_else(|| {
        let detail = format!("there is no user {username}");
        Problem::new(USER_NOT_FOUND, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_list_can_be_read() {
        for command in COMMANDS {
            if let Err(problem) = Command::parse(command.name, b"{}") {
                assert_eq!(problem.errors.len(), 1, "{}: {problem}", command.name);
            }
        }
        assert!(Command::parse("gone", b"{}").unwrap_err().errors.is_empty());
    }
}
