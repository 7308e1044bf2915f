//! The search for an order: what another checker says of the same history, and how far it goes.

use std::{cell::Cell, time::Duration};

use fastrand::Rng;
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::{
    check,
    history::{Action, Answer, History, Operation},
    world::{Shape, World, simulate, to_body},
};

impl SequentialSpec for World {
    type Op = Action;
    type Ret = (u16, Vec<u8>);

    fn invoke(&mut self, action: &Action) -> Self::Ret {
        self.carry_out(action)
    }
}

/// What stateright says. Each operation is a thread of its own, as it allows a thread one at a time.
fn is_linearizable_by_stateright(history: &History) -> bool {
    let mut events = Vec::new();
    for (thread, operation) in history.operations.iter().enumerate() {
        events.push((operation.began, false, thread));
        events.extend(operation.replies.first().map(|answer| (answer.at, true, thread)));
    }
    events.sort_unstable();
    let mut tester = LinearizabilityTester::new(World::default());
    for (_, is_reply, thread) in events {
        let operation = &history.operations[thread];
        if is_reply {
            let answer = &operation.replies[0];
            tester.on_return(thread, (answer.status, answer.body.clone())).unwrap();
        } else {
            tester.on_invoke(thread, operation.action.clone()).unwrap();
        }
    }
    tester.is_consistent()
}

/// Makes a reply say something that may or may not have been.
fn corrupt(history: &mut History, random: &mut Rng) {
    let others: Vec<_> = history.operations.iter().flat_map(|operation| operation.replies.clone()).collect();
    let answered: Vec<_> =
        history.operations.iter_mut().filter(|operation| !operation.replies.is_empty()).collect();
    let (Some(operation), Some(other)) = (random.choice(answered), random.choice(others)) else { return };
    let answer = &mut operation.replies[0];
    if random.bool() {
        *answer = Answer { at: answer.at, ..other };
        return;
    }
    let mut body: Value = serde_json::from_slice(&answer.body).unwrap();
    match random.u8(..3) {
        0 if answer.status < 400 => body["status"] = json!("Silver"),
        1 if answer.status < 400 => body["points"] = json!(random.u8(..120)),
        _ => answer.at = operation.began,
    }
    answer.body = to_body(&body);
}

#[test]
fn stateright_has_the_same_opinion() {
    let config = ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() };
    let (yes, no) = (Cell::new(0), Cell::new(0));
    let strategy = (any::<u64>(), 2..5_usize, 2..11_usize, 0..30_u8, prop::bool::weighted(0.7));
    let outcome = TestRunner::new(config).run(
        &strategy,
        |(seed, clients, operations, forgotten, is_corrupted)| {
            let shape = Shape { users: 1, clients, operations, forgotten, bumpy: 0 };
            let (mut history, _) = simulate(seed, &shape);
            if is_corrupted {
                corrupt(&mut history, &mut Rng::with_seed(seed));
            }
            let told = check::linearizable(&history, None);
            let expected = is_linearizable_by_stateright(&history);
            prop_assert_eq!(told.is_empty(), expected, "{:#?}\n{:#?}", told, history);
            prop_assert!(is_corrupted || expected, "{:#?}", history);
            let count = if expected { &yes } else { &no };
            count.set(count.get() + 1);
            Ok(())
        },
    );
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(yes.get() > 200 && no.get() > 200, "too one-sided to tell: {yes:?} yes, {no:?} no");
}

/// All steps of a search that has to succeed.
fn steps(history: &History, end: Option<&check::End>) -> u64 {
    let searched = check::searched(history, end);
    for user in &searched {
        assert_eq!(user.violation(), None, "{}", user.username);
    }
    searched.iter().map(|user| user.steps).sum()
}

#[test]
fn a_large_history_takes_few_steps() {
    let large = Shape { users: 8, clients: 8, operations: 20_000, forgotten: 3, bumpy: 3 };
    let one_user = Shape { users: 1, operations: 5_000, ..large.clone() };
    for (shape, most) in [(large, 20_000 * 20), (one_user, 5_000 * 40)] {
        let (history, end) = simulate(1, &shape);
        let steps = steps(&history, Some(&end));
        assert!(steps < most, "{steps} steps for {shape:?}");
    }
}

#[test]
fn a_large_history_takes_few_steps_also_if_no_end_tells_what_was_forgotten() {
    for (forgotten, most) in [(0, 5_000 * 40), (1, 5_000 * 400)] {
        let shape = Shape { users: 1, clients: 8, operations: 5_000, forgotten, bumpy: 3 };
        let (history, _) = simulate(1, &shape);
        let steps = steps(&history, None);
        assert!(steps < most, "{steps} steps for {shape:?}");
    }
}

fn operation(index: usize, action: Action, reply: Option<(u16, Vec<u8>)>) -> Operation {
    let began = Duration::from_millis(10 * index as u64);
    let at = began + Duration::from_millis(5);
    let kind = format!("users.{}.reply", action.command());
    let replies = reply.map(|(status, body)| Answer { at, status, kind, body, replayed: false });
    Operation {
        client: 0,
        id: index.to_string(),
        action,
        began,
        sends: 1,
        confirmed: true,
        replies: replies.into_iter().collect(),
    }
}

/// A read that only some of forty awards can explain, if any: more sets than can be tried.
#[test]
fn a_search_that_goes_too_far_says_so() {
    let mut world = World::default();
    let username = || "ann".to_owned();
    let create = Action::Create { username: username(), email: "ann@example.com".to_owned(), points: 0 };
    let reply = world.carry_out(&create);
    let mut operations = vec![operation(0, create, Some(reply))];
    for exponent in 0..40 {
        let award = Action::Award { username: username(), points: 2 << exponent };
        operations.push(operation(operations.len(), award, None));
    }
    let odd = json!({"username": "ann", "email": "ann@example.com", "points": 2_001, "status": "Bronze"});
    let get = Action::Get { username: username() };
    operations.push(operation(operations.len(), get, Some((200, to_body(&odd)))));
    let history = History { operations, ..History::default() };
    let told = check::linearizable(&history, None);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].check, "undecided");
    assert!(told[0].detail.contains("get ann, id 41: 200 ann ann@example.com 2001 Bronze"), "{}", told[0].detail);
}
