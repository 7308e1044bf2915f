//! What a user is and what commands do to one, as the README tells it.

use super::history::Action;

/// The largest balance.
const POINTS_MAX: i64 = (1 << 53) - 1;

/// A user; `None` before it is created.
pub type State<'a> = Option<User<'a>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct User<'a> {
    pub email: &'a str,
    pub points: i64,
    pub status: &'static str,
}

/// What a command has to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected<'a> {
    Done { status: u16, user: User<'a> },
    Refused { status: u16, code: &'static str },
}

/// Carries out one command: the user afterwards, and the answer.
pub fn apply<'a>(state: State<'a>, action: &'a Action) -> (State<'a>, Expected<'a>) {
    match (action, state) {
        (Action::Create { email, points, .. }, None) => {
            done(201, User { email, points: *points, status: "Bronze" })
        }
        (Action::Create { .. }, Some(_)) => refused(state, 409, "user_exists"),
        (_, None) => refused(state, 404, "user_not_found"),
        (Action::Get { .. }, Some(user)) => done(200, user),
        (Action::Award { points, .. }, Some(user)) => match user.points + points {
            ..0 => refused(state, 409, "insufficient_points"),
            sum if sum > POINTS_MAX => refused(state, 409, "points_limit"),
            sum => done(200, User { points: sum, ..user }),
        },
        (Action::Promote { .. }, Some(user)) => done(200, User { status: earned_by(user.points), ..user }),
    }
}

fn done(status: u16, user: User<'_>) -> (State<'_>, Expected<'_>) {
    (Some(user), Expected::Done { status, user })
}

fn refused<'a>(state: State<'a>, status: u16, code: &'static str) -> (State<'a>, Expected<'a>) {
    (state, Expected::Refused { status, code })
}

fn earned_by(points: i64) -> &'static str {
    match points {
        ..=50 => "Bronze",
        51..=100 => "Silver",
        _ => "Gold",
    }
}
