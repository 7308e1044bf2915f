//! The search for an order: what is one and what is none, and how far it goes.

use std::time::Duration;

use super::{
    ann::{award, create, get, promote},
    check::{self, end::End},
    history::{Action, Answer, History, Operation},
    world::{Shape, problem, simulate, to_body, user},
};

/// A reply about Ann.
type Reply = (u16, Vec<u8>);

fn ann(status: u16, points: i64, rank: &str) -> Option<Reply> {
    Some((status, to_body(&user("ann", "ann@example.com", points, rank))))
}

fn refused(status: u16, code: &str) -> Option<Reply> {
    Some(problem(status, code))
}

/// Operations from one millisecond to another, with the reply that came at the end, if one came.
fn history(spans: Vec<(u64, u64, Action, Option<Reply>)>) -> History {
    let operation = |(index, (began, at, action, reply)): (usize, (u64, u64, Action, Option<Reply>))| {
        let kind = format!("users.{}.reply", action.command());
        let at = Duration::from_millis(at);
        let replies = reply.map(|(status, body)| Answer { at, status, kind, body, replayed: false });
        Operation {
            client: index,
            id: index.to_string(),
            action,
            began: Duration::from_millis(began),
            sends: 1,
            confirmed: true,
            replies: replies.into_iter().collect(),
        }
    };
    let operations = spans.into_iter().enumerate().map(operation).collect();
    History { operations, strays: Vec::new() }
}

fn has_order(spans: Vec<(u64, u64, Action, Option<Reply>)>) -> bool {
    let told = check::linearizable(&history(spans), None);
    assert!(told.iter().all(|violation| violation.check == "linearizable"), "{told:?}");
    told.is_empty()
}

#[test]
fn commands_that_overlap_may_come_in_any_order_and_others_may_not() {
    let read_after = |began| {
        has_order(vec![
            (0, 1, create(10), ann(201, 10, "Bronze")),
            (2, 5, award(5), ann(200, 15, "Bronze")),
            (began, 9, get(), ann(200, 10, "Bronze")),
        ])
    };
    // At the same moment it is not known which of the two was earlier.
    assert!(read_after(4) && read_after(5));
    assert!(!read_after(6));
}

#[test]
fn an_unknown_outcome_comes_at_any_time_after_the_sending_or_never() {
    let read = |sent, points| {
        has_order(vec![
            (0, 1, create(10), ann(201, 10, "Bronze")),
            (sent, 0, award(5), None),
            (2, 3, get(), ann(200, 10, "Bronze")),
            (4, 5, get(), ann(200, points, "Bronze")),
        ])
    };
    assert!(read(2, 10) && read(2, 15) && read(5, 15));
    assert!(!read(6, 15), "before it was sent");
    assert!(!read(2, 20), "twice");
}

#[test]
fn a_first_reply_that_turns_away_leaves_later_sendings_open() {
    let turned_away = |sends, status, code| {
        let mut history = history(vec![
            (0, 1, create(10), ann(201, 10, "Bronze")),
            (2, 3, award(5), refused(status, code)),
            (4, 5, get(), ann(200, 15, "Bronze")),
        ]);
        history.operations[1].sends = sends;
        check::linearizable(&history, None).is_empty()
    };
    assert!(turned_away(2, 504, "deadline_exceeded"));
    assert!(!turned_away(1, 504, "deadline_exceeded"));
    assert!(!turned_away(2, 409, "points_limit"));
}

#[test]
fn each_reply_to_a_repeated_read_is_a_read() {
    let mut history = history(vec![
        (0, 1, create(10), ann(201, 10, "Bronze")),
        (2, 3, get(), ann(200, 10, "Bronze")),
        (4, 5, award(5), ann(200, 15, "Bronze")),
    ]);
    let read = &mut history.operations[1].replies;
    read.push(Answer { at: Duration::from_millis(9), ..read[0].clone() });
    assert_eq!(check::linearizable(&history, None), []);
    history.operations[1].replies[1].body = ann(200, 16, "Bronze").unwrap().1;
    assert_eq!(check::linearizable(&history, None).len(), 1);
}

/// The long promotion fits the first time, where it changes nothing, but is needed the second time.
#[test]
fn a_promotion_that_could_have_been_nothing_may_be_something_later() {
    let story = |ended| {
        has_order(vec![
            (0, 1, create(60), ann(201, 60, "Bronze")),
            (2, 3, promote(), ann(200, 60, "Silver")),
            (4, ended, promote(), ann(200, 60, "Silver")),
            (5, 6, award(-20), ann(200, 40, "Silver")),
            (7, 8, promote(), ann(200, 40, "Bronze")),
            (9, 10, award(20), ann(200, 60, "Bronze")),
            (12, 13, get(), ann(200, 60, "Silver")),
        ])
    };
    assert!(story(30) && story(11));
    assert!(!story(8), "it ended before it was needed");
}

#[test]
fn codes_statuses_and_every_member_of_a_user_count() {
    let answered = |action: Action, reply: Option<Reply>| {
        has_order(vec![(0, 1, create(10), ann(201, 10, "Bronze")), (2, 3, action, reply)])
    };
    assert!(answered(award(-11), refused(409, "insufficient_points")));
    assert!(answered(award(1 << 53), refused(409, "points_limit")));
    assert!(answered(award((1 << 53) - 11), ann(200, (1 << 53) - 1, "Bronze")));
    assert!(answered(create(3), refused(409, "user_exists")));
    assert!(!answered(award(-11), refused(409, "points_limit")));
    assert!(!answered(award(-10), refused(409, "insufficient_points")));
    assert!(!answered(award((1 << 53) - 10), ann(200, 1 << 53, "Bronze")));
    assert!(!answered(create(3), refused(404, "user_exists")));
    assert!(!answered(create(3), refused(404, "user_exists").map(|(_, body)| (409, body))));
    assert!(!answered(get(), refused(404, "user_not_found")));
    assert!(!answered(get(), ann(201, 10, "Bronze")));
    assert!(!answered(get(), ann(200, 10, "Silver")));
    assert!(!answered(get(), Some((200, to_body(&user("bob", "ann@example.com", 10, "Bronze"))))));
    assert!(!answered(get(), Some((200, to_body(&user("ann", "bob@example.com", 10, "Bronze"))))));
    assert!(!answered(get(), Some((200, b"{}".to_vec()))));
}

/// All steps of a search that has to succeed.
fn steps(history: &History, end: Option<&End>) -> u64 {
    let searched = check::linearizable::searched(history, end);
    for user in &searched {
        assert_eq!(user.violation(), None, "{}", user.username);
    }
    searched.iter().map(|user| user.steps).sum()
}

#[test]
fn a_large_history_takes_few_steps() {
    let large = Shape { users: 8, clients: 8, operations: 20_000, forgotten: 3, bumpy: 3, coarse: false };
    let one_user = Shape { users: 1, operations: 5_000, ..large.clone() };
    for (shape, most) in [(large, 20_000 * 20), (one_user, 5_000 * 40)] {
        let (history, end) = simulate(1, &shape);
        let steps = steps(&history, Some(&end));
        assert!(steps < most, "{steps} steps for {shape:?}");
    }
}

#[test]
fn a_large_history_takes_few_steps_also_if_no_end_tells_what_was_forgotten() {
    for (forgotten, most) in [(0, 5_000 * 20), (1, 5_000 * 40)] {
        let shape = Shape { users: 1, clients: 8, operations: 5_000, forgotten, bumpy: 3, coarse: false };
        let (history, _) = simulate(1, &shape);
        let steps = steps(&history, None);
        assert!(steps < most, "{steps} steps for {shape:?}");
    }
}

/// A read that only some of forty awards can explain, if any: more sets than can be tried.
#[test]
fn a_search_that_goes_too_far_says_so() {
    let mut spans = vec![(0, 1, create(0), ann(201, 0, "Bronze"))];
    spans.extend((0..40).map(|exponent| (2, 0, award(2 << exponent), None)));
    spans.push((3, 4, get(), ann(200, 2_001, "Bronze")));
    let told = check::linearizable(&history(spans), None);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].check, "undecided");
    assert!(told[0].detail.contains("id 41: 200 ann ann@example.com 2001 Bronze"), "{}", told[0].detail);
}
