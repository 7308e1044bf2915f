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
};

/// Why the program did not do what it was asked for.
#[derive(Debug)]
pub(super) struct Failure {
    /// The exit code.
    pub(super) code: u8,
    /// What happened and what to do.
    pub(super) message: String,
    /// The problem that was answered, as it was answered.
    pub(super) problem: Option<Value>,
}

impl Failure {
    /// A failure of which nothing more is known.
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
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

    /// Failure of a call; `command` is `None` if only the queue was inspected.
    pub(super) fn of_call(error: &CallError, command: Option<(&Command, Access)>) -> Self {
        let exit = match error {
            CallError::Connect(error) => return Arc::clone(error).into(),
            CallError::TooLarge(_) => exit::REFUSED,
            CallError::Unroutable(_) => exit::UNAVAILABLE,
            CallError::NotPermitted(_) => exit::NOT_PERMITTED,
            CallError::Refused(_) | CallError::Timeout { .. } => exit::TRY_AGAIN,
        };
        let advice = match (error, command) {
            (CallError::Timeout { .. }, Some((_, Access::Read))) => "; try again".to_owned(),
            (CallError::Timeout { .. }, Some((command, Access::Write))) => {
                let id = &command.message_id;
                format!("; the outcome is not known: the same command with --message-id {id} tells it")
            }
            (CallError::TooLarge(_), _) => {
                "; send it in parts (`rabbitry import` sends the rows of a file in messages that fit)"
                    .to_owned()
            }
            _ => String::new(),
        };
        Self::new(exit, format!("{error}{advice}"))
    }
}

/// What the caller can do about a problem, where its detail does not say.
fn advice(code: &str) -> &'static str {
    match code {
        "internal" => "; the message is in the dead-letter queue, and the worker's log tells more",
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
