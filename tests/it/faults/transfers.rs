//! The order of transfers: right histories pass, and each planted mistake is found.

use std::time::Duration;

use super::check::transfers::{Ask, Balances, Done, Told, unexplained};

const START: Balances = [100, 100, 100, 100];

fn done(ask: Ask, told: Told, began: u64, ended: u64) -> Done {
    Done { ask, told, began: Duration::from_millis(began), ended: Duration::from_millis(ended) }
}

fn transfer(from: usize, to: usize, amount: i64) -> Ask {
    Ask::Transfer { from, to, amount }
}

/// A run of a right bank, in which many commands are under way at a time.
fn run(seed: u64, length: u64) -> Vec<Done> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut balances = START;
    (0..length)
        .map(|n| {
            let (from, to, amount) = (random.usize(..4), random.usize(..4), random.i64(1..60));
            let ask = if random.u8(..4) == 0 { Ask::Get(from) } else { transfer(from, to, amount) };
            let told = match ask {
                Ask::Get(account) => Told::Balance(balances[account]),
                Ask::Transfer { .. } if from == to => Told::SameAccount,
                Ask::Transfer { .. } if balances[from] < amount => Told::TooLittle,
                Ask::Transfer { .. } => {
                    balances[from] -= amount;
                    balances[to] += amount;
                    Told::Balances(balances[from], balances[to])
                }
            };
            done(ask, told, (n * 10).saturating_sub(random.u64(..150)), n * 10 + random.u64(..150))
        })
        .collect()
}

#[test]
fn right_histories_are_explained() {
    for seed in 0..20 {
        assert_eq!(unexplained(START, &run(seed, 400)), None, "seed {seed}");
    }
    assert_eq!(unexplained(START, &[]), None);
}

#[test]
fn what_cannot_be_is_found() {
    let get = |account, balance, at| done(Ask::Get(account), Told::Balance(balance), at, at + 1);
    let paid = done(transfer(0, 1, 30), Told::Balances(70, 130), 0, 10);
    let right = [paid.clone(), get(0, 70, 20), get(1, 130, 20)];
    assert_eq!(unexplained(START, &right), None);
    let wrong: [&[Done]; 6] = [
        // Taken twice, paid in twice, half of it, none of it, seen before it was asked for, and unasked.
        &[paid.clone(), get(0, 40, 20)],
        &[paid.clone(), get(1, 160, 20)],
        &[paid.clone(), get(1, 100, 20)],
        &[done(transfer(0, 1, 30), Told::TooLittle, 0, 10)],
        &[done(transfer(0, 1, 30), Told::Balances(70, 130), 30, 40), get(0, 70, 20)],
        &[get(2, 99, 0)],
    ];
    for history in wrong {
        assert!(unexplained(START, history).is_some(), "{history:?}");
    }
    // While it is under way it may be seen or not, but not be seen and then be gone.
    let under_way = done(transfer(0, 1, 30), Told::Balances(70, 130), 0, 100);
    assert_eq!(unexplained(START, &[under_way.clone(), get(0, 100, 20), get(1, 130, 30)]), None);
    assert!(unexplained(START, &[under_way, get(0, 70, 20), get(1, 100, 30)]).is_some());
}

/// In a long run one transfer took effect twice, or one reply is that of another state.
#[test]
fn one_mistake_in_a_long_run_is_found() {
    for seed in 0..10 {
        let mut history = run(seed, 400);
        let odd =
            history[150..].iter().position(|done| matches!(done.told, Told::Balances(..))).unwrap() + 150;
        if let Told::Balances(from, _) = &mut history[odd].told {
            *from -= 1;
        }
        assert!(unexplained(START, &history).is_some(), "seed {seed}");
    }
}
