//! What came of an operation, and what its replies say.

use std::fmt;

use serde::Deserialize;

use super::{
    end::{End, InboxRow},
    history::{Action, Answer, Operation},
    model::Expected,
};

/// What came of an operation with an effect.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// It was carried out or refused for good; the first reply that says so.
    Answered(&'a Answer),
    /// It was refused before it could do anything, and nothing of it was left under way.
    Nothing,
    /// It may have taken effect at any time since, may yet, or never will.
    Unknown,
}

impl<'a> Outcome<'a> {
    pub fn of(operation: &'a Operation) -> Self {
        if let Some(answer) = operation.replies.iter().find(|answer| !is_transient(answer)) {
            return Self::Answered(answer);
        }
        // A second sending may have been carried out and its reply lost. After `internal` (500) a message may be
        // delivered again, if the worker died before it had set it aside.
        let turned_away = operation.replies.iter().any(|answer| answer.status != 500 && is_transient(answer));
        if turned_away && operation.sends == 1 { Self::Nothing } else { Self::Unknown }
    }
}

/// Whether the same id may get another answer later.
pub fn is_transient(answer: &Answer) -> bool {
    matches!(answer.status, 500 | 503 | 504) || is_from_future(answer)
}

/// Whether a worker took the id for one that was made in the future. Another whose clock is right takes it.
fn is_from_future(answer: &Answer) -> bool {
    answer.status == 409 && Seen::of(answer.status, &answer.body).code() == Some("id_from_future")
}

/// Whether a repetition gets this reply again.
pub fn is_remembered(answer: &Answer) -> bool {
    match answer.status {
        409 => !matches!(Seen::of(answer.status, &answer.body).code(), Some("id_expired" | "id_from_future")),
        status => status < 400 || status == 404,
    }
}

/// The inbox row of an operation.
pub fn inbox_row<'a>(end: &'a End, operation: &Operation) -> Option<&'a InboxRow> {
    end.inbox.get(&(operation.action.command().to_owned(), operation.id.clone()))
}

/// What a reply says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Seen {
    status: u16,
    said: Said,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Said {
    User(UserBody),
    Problem(ProblemBody),
    Unreadable(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserBody {
    username: String,
    email: String,
    points: i64,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
struct ProblemBody {
    code: String,
    status: u16,
}

impl Seen {
    pub fn of(status: u16, body: &[u8]) -> Self {
        let said = if status < 400 {
            serde_json::from_slice(body).map(Said::User)
        } else {
            serde_json::from_slice(body).map(Said::Problem)
        };
        let unreadable = |_| Said::Unreadable(String::from_utf8_lossy(body).chars().take(200).collect());
        Self { status, said: said.unwrap_or_else(unreadable) }
    }

    /// What a `get` sees of a row of the store.
    pub fn row(username: &str, end: &End) -> Self {
        match end.users.get(username) {
            Some(row) => Self {
                status: 200,
                said: Said::User(UserBody {
                    username: username.to_owned(),
                    email: row.email.clone(),
                    points: row.points,
                    status: row.status.clone(),
                }),
            },
            None => Self {
                status: 404,
                said: Said::Problem(ProblemBody { code: "user_not_found".to_owned(), status: 404 }),
            },
        }
    }

    pub fn is_refusal(&self) -> bool {
        self.status >= 400
    }

    fn code(&self) -> Option<&str> {
        match &self.said {
            Said::Problem(problem) => Some(&problem.code),
            Said::User(_) | Said::Unreadable(_) => None,
        }
    }

    /// Whether this is the answer that a user of this name has to get.
    pub fn is(&self, expected: &Expected<'_>, username: &str) -> bool {
        match (*expected, &self.said) {
            (Expected::Done { status, user }, Said::User(body)) => {
                self.status == status
                    && body.username == username
                    && (body.email.as_str(), body.points, body.status.as_str())
                        == (user.email, user.points, user.status)
            }
            (Expected::Refused { status, code }, Said::Problem(problem)) => {
                self.status == status && problem.status == status && problem.code == code
            }
            _ => false,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.status)?;
        match &self.said {
            Said::User(UserBody { username, email, points, status }) => {
                write!(f, "{username} {email} {points} {status}")
            }
            Said::Problem(problem) => f.write_str(&problem.code),
            Said::Unreadable(body) => write!(f, "unreadable: {body:?}"),
        }
    }
}

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { status, user } => {
                write!(f, "{status} with {} {} {}", user.email, user.points, user.status)
            }
            Self::Refused { status, code } => write!(f, "{status} {code}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.command(), self.username())?;
        match self {
            Self::Create { email, points, .. } => write!(f, " {email} {points}"),
            Self::Award { points, .. } => write!(f, " {points:+}"),
            Self::Get { .. } | Self::Promote { .. } => Ok(()),
        }
    }
}
