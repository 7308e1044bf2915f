//! Commands about one user.

use super::history::Action;

pub fn create(points: i64) -> Action {
    Action::Create { username: "ann".to_owned(), email: "ann@example.com".to_owned(), points }
}

pub fn award(points: i64) -> Action {
    Action::Award { username: "ann".to_owned(), points }
}

pub fn get() -> Action {
    Action::Get { username: "ann".to_owned() }
}

pub fn promote() -> Action {
    Action::Promote { username: "ann".to_owned() }
}
