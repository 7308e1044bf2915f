//! What stateright's checker says of the same small histories.

use std::{cell::Cell, time::Duration};

use fastrand::Rng;
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::{
    check::{
        self,
        end::{End, UserRow},
    },
    history::{Action, Answer, History, Operation},
    world::{Shape, World, key, problem, simulate, to_body, user},
};

/// After everything in a small history.
const LATE: Duration = Duration::from_secs(1);

impl SequentialSpec for World {
    type Op = Action;
    type Ret = (u16, Vec<u8>);

    fn invoke(&mut self, action: &Action) -> Self::Ret {
        self.carry_out(action)
    }
}

/// What stateright says. Each operation is a thread of its own, as it allows a thread one at a time.
fn is_linearizable_by_stateright(history: &History, end: Option<&End>) -> bool {
    let mut events = Vec::new();
    let mut threads = Vec::new();
    let mut add = |action: &Action, began: Duration, reply: Option<(Duration, u16, Vec<u8>)>| {
        events.push((began, false, threads.len()));
        events.extend(reply.as_ref().map(|(at, ..)| (*at, true, threads.len())));
        threads.push((action.clone(), reply.map(|(_, status, body)| (status, body))));
    };
    for Operation { action, id, began, replies, .. } in &history.operations {
        let answered = replies.first().map(|answer| (answer.at, answer.status, answer.body.clone()));
        let in_inbox = end.and_then(|end| end.inbox.get(&key(action, id)));
        let remembered = in_inbox.map(|row| (LATE, row.status, row.body.clone()));
        if answered.is_some() || remembered.is_some() || end.is_none() {
            add(action, *began, answered.or(remembered));
        }
    }
    if let Some(end) = end {
        let seen = match end.users.get("user-0") {
            Some(UserRow { email, points, status }) => {
                (200, to_body(&user("user-0", email, *points, status)))
            }
            None => problem(404, "user_not_found"),
        };
        let look = Action::Get { username: "user-0".to_owned() };
        add(&look, 2 * LATE, Some((3 * LATE, seen.0, seen.1)));
    }
    events.sort_unstable();
    let mut tester = LinearizabilityTester::new(World::default());
    for (_, is_reply, thread) in events {
        let (action, reply) = &threads[thread];
        if is_reply {
            tester.on_return(thread, reply.clone().unwrap()).unwrap();
        } else {
            tester.on_invoke(thread, action.clone()).unwrap();
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
        1 if answer.status < 400 => body["points"] = json!(50 * random.u8(..4)),
        _ => answer.at = operation.began,
    }
    answer.body = to_body(&body);
}

#[test]
fn stateright_has_the_same_opinion() {
    let config = ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() };
    let (yes, no) = (Cell::new(0), Cell::new(0));
    let shapes = (2..5_usize, 2..11_usize, 0..30_u8, any::<bool>());
    let shapes = shapes.prop_map(|(clients, operations, forgotten, coarse)| Shape {
        users: 1,
        clients,
        operations,
        forgotten,
        bumpy: 0,
        coarse,
    });
    let strategy = (any::<u64>(), shapes, prop::bool::weighted(0.7));
    let outcome = TestRunner::new(config).run(&strategy, |(seed, shape, is_corrupted)| {
        let (mut history, end) = simulate(seed, &shape);
        if is_corrupted {
            corrupt(&mut history, &mut Rng::with_seed(seed));
        }
        for end in [None, Some(&end)] {
            let told = check::linearizable(&history, end);
            let expected = is_linearizable_by_stateright(&history, end);
            prop_assert_eq!(told.is_empty(), expected, "{:#?}\n{:#?}\n{:#?}", told, history, end);
            prop_assert!(is_corrupted || expected, "{:#?}", history);
            let count = if expected { &yes } else { &no };
            count.set(count.get() + 1);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(yes.get() > 400 && no.get() > 400, "too one-sided to tell: {yes:?} yes, {no:?} no");
}
