//! Failures: what is told on standard error, and the exit code.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    amqp::{
        client::{CallError, Command, ProblemAnswer},
        connection::ConnectError,
    },
    config::ConfigError,
    exit,
    service::Access,
    users::commands::COMMANDS,
};

/// Why the program did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What happened and what to do.
    pub message: String,
    /// The problem that was answered, as it was answered.
    pub problem: Option<Value>,
}

impl Failure {
    /// A failure of which nothing more is known.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), problem: None }
    }

    /// A command that was answered with a problem.
    pub(super) fn of_problem(status: u16, problem: &ProblemAnswer) -> Self {
        let ProblemAnswer { code, detail, .. } = problem;
        let exit = match status {
            ..500 => exit::REFUSED,
            503 | 504 => exit::TRY_AGAIN,
            _ => exit::INTERNAL,
        };
        Self::new(exit, format!("{code} ({status}): {detail}{}", advice(code)))
    }

    /// A command whose answer did not come; without one, a look at its queue.
    pub(super) fn of_call(error: &CallError, command: Option<&Command>) -> Self {
        let exit = match error {
            CallError::Connect(error) => return Arc::clone(error).into(),
            CallError::TooLarge(_) => exit::REFUSED,
            CallError::Unroutable(_) => exit::UNAVAILABLE,
            CallError::NotPermitted(_) => exit::NOT_PERMITTED,
            CallError::Refused(_) | CallError::Timeout { .. } => exit::TRY_AGAIN,
        };
        let advice = match error {
            CallError::Timeout { .. } => command.map_or_else(String::new, advice_on_silence),
            CallError::TooLarge(command) if command == "create" => {
                "; `rabbitry import` sends many users in messages that fit".to_owned()
            }
            CallError::TooLarge(_) => "; send it in parts".to_owned(),
            _ => String::new(),
        };
        Self::new(exit, format!("{error}{advice}"))
    }
}

fn advice_on_silence(command: &Command) -> String {
    let reads = COMMANDS.iter().any(|spec| spec.name == command.name && spec.access == Access::Read);
    if reads {
        return "; try again".to_owned();
    }
    let id = &command.message_id;
    format!("; the outcome is not known: the same command with --message-id {id} tells it")
}

/// What the caller can do about a problem, where its detail does not say.
fn advice(code: &str) -> &'static str {
    match code {
        "internal" => "; the message is in the dead-letter queue, and the worker's log tells more",
        "user_not_found" => "; `rabbitry create` makes one",
        "unavailable" | "deadline_exceeded" => "; try again",
        _ => "",
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(error.exit, error.message)
    }
}

impl From<Arc<ConnectError>> for Failure {
    fn from(error: Arc<ConnectError>) -> Self {
        match &*error {
            ConnectError::Unreachable { .. } => {
                Self::new(exit::UNAVAILABLE, format!("{error}; `make up` starts one, AMQP_URL names another"))
            }
            ConnectError::NotPermitted { .. } => Self::new(
                exit::NOT_PERMITTED,
                format!("{error}; check the login and the virtual host in AMQP_URL"),
            ),
        }
    }
}
