//! Random runs: right ones pass, and mistakes planted in them are told.

use fastrand::Rng;
use proptest::prelude::*;
use serde_json::json;

use super::{
    check::{self, end::End},
    history::{Action, History, Operation},
    world::{Shape, key, simulate, to_body},
};

/// A mistake, planted at a place that fits. `None`: there is none in this run.
type Plant = fn(&mut History, &mut End, &mut Rng) -> Option<()>;

const PLANTS: [(&str, Plant); 8] = [
    ("linearizable", |history, _, random| {
        let operation = pick(random, history, |operation| operation.action.is_read() && is_done(operation))?;
        let answer = operation.replies.last_mut()?;
        let mut body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        body["points"] = json!(body["points"].as_i64().unwrap() + 1_000_000);
        answer.body = to_body(&body);
        Some(())
    }),
    ("doubled", |history, end, random| {
        let award = pick(random, history, |operation| award_of(operation).is_some() && is_done(operation))?;
        end.users.get_mut(award.action.username())?.points += 1_000_000;
        Some(())
    }),
    ("lost", |history, end, random| {
        let award = pick(random, history, |operation| award_of(operation) > Some(0) && is_done(operation))?;
        end.users.get_mut(award.action.username())?.points -= 1_000_000;
        Some(())
    }),
    ("same_replies", |history, _, random| {
        let repeated = |operation: &Operation| {
            let lasting = operation.replies.iter().filter(|answer| answer.status < 500);
            !operation.action.is_read() && lasting.count() > 1
        };
        pick(random, history, repeated)?.replies.last_mut()?.body.push(b' ');
        Some(())
    }),
    ("inbox", |history, end, random| {
        let effectful = |operation: &Operation| !operation.action.is_read() && is_done(operation);
        let operation = pick(random, history, effectful)?;
        end.inbox.remove(&key(&operation.action, &operation.id)).map(drop)
    }),
    ("conservation", |history, end, random| {
        let effectful = |operation: &Operation| !operation.action.is_read() && is_done(operation);
        let operation = pick(random, history, effectful)?;
        operation.replies.clear();
        end.inbox.remove(&key(&operation.action, &operation.id)).map(drop)
    }),
    ("drained", |_, end, _| {
        end.queues.get_mut("users.get")?.unacked = 1;
        Some(())
    }),
    ("recording", |history, _, random| {
        let twin = pick(random, history, |_| true)?.clone();
        history.operations.push(twin);
        Some(())
    }),
];

fn pick<'a>(
    random: &mut Rng,
    history: &'a mut History,
    fits: impl Fn(&Operation) -> bool,
) -> Option<&'a mut Operation> {
    let fitting: Vec<_> = history.operations.iter_mut().filter(|operation| fits(operation)).collect();
    random.choice(fitting)
}

/// Whether its last reply is a success.
fn is_done(operation: &Operation) -> bool {
    operation.replies.last().is_some_and(|answer| answer.status < 400)
}

fn award_of(operation: &Operation) -> Option<i64> {
    match operation.action {
        Action::Award { points, .. } => Some(points),
        _ => None,
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    (1..4_usize, 1..9_usize, 40..200_usize, 0..20_u8, 0..20_u8, any::<bool>()).prop_map(
        |(users, clients, operations, forgotten, bumpy, coarse)| Shape {
            users,
            clients,
            operations,
            forgotten,
            bumpy,
            coarse,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn right_histories_pass_and_mistakes_planted_in_them_are_told(seed: u64, shape in shapes()) {
        let (history, end) = simulate(seed, &shape);
        prop_assert_eq!(check::all(&history, &end), []);
        let without_end = check::linearizable(&history, None);
        prop_assert!(without_end.iter().all(|violation| violation.check == "undecided"), "{:?}", without_end);
        for (check, plant) in PLANTS {
            let (mut history, mut end) = (history.clone(), end.clone());
            if plant(&mut history, &mut end, &mut Rng::with_seed(seed)).is_some() {
                let told = check::all(&history, &end);
                prop_assert!(told.iter().any(|violation| violation.check == check), "{}: {:?}", check, told);
            }
        }
    }
}
