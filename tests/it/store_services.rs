//! Services whose commands name several keys, and services that share a database.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};
use serde_json::{Value, json};
use users::Users;

use crate::{
    bank::Bank,
    support::{
        ask::{Ask, ask, award, body, create, gist, gists},
        database::{Database, Worker},
    },
};

fn account(name: &str, balance: i64) -> Ask {
    ask("create", json!({"name": name, "balance": balance}))
}

fn transfer(from: &str, to: &str, amount: i64) -> Ask {
    ask("transfer", json!({"from": from, "to": to, "amount": amount}))
}

async fn balances(bank: &Worker<Bank>) -> BTreeMap<String, i64> {
    let page = body(&bank.answer_one(&ask("list", json!({"limit": 1000}))).await);
    let accounts = page["accounts"].as_array().unwrap().iter();
    accounts.map(|one| (one["name"].as_str().unwrap().to_owned(), one["balance"].as_i64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_changes_two_entities_and_another_removes_one() {
    let database = Database::new();
    let bank = database.open_as::<Bank>().await;
    let asks = [
        account("ann", 100),
        account("bob", 0),
        transfer("ann", "bob", 30).id("rent"),
        transfer("ann", "bob", 30).id("rent"),
        transfer("bob", "ann", 31),
        transfer("ann", "ann", 1),
        transfer("ann", "eve", 1),
        ask("close", json!({"name": "bob"})),
        transfer("bob", "ann", 30),
        ask("close", json!({"name": "bob"})),
        transfer("ann", "bob", 1),
        account("bob", 5),
    ];
    let replies = bank.answer(&asks).await;
    let expected = [
        "201",
        "201",
        "200",
        "200",
        "too_little",
        "same_account",
        "no_account",
        "not_empty",
        "200",
        "200",
        "no_account",
        "201",
    ];
    assert_eq!(gists(&replies), expected);
    assert_eq!(body(&replies[2])["to"], json!({"name": "bob", "balance": 30}));
    assert!(replies[3].replayed);
    // Another process finds what was committed.
    let other = database.open_as::<Bank>().await;
    assert_eq!(balances(&other).await, BTreeMap::from([("ann".to_owned(), 100), ("bob".to_owned(), 5)]));
}

/// Transfers, openings and closings of few accounts, alone and in arrays.
fn steps() -> impl Strategy<Value = Vec<(Vec<Ask>, bool)>> {
    let name = || select(vec!["ann", "bob", "eve", "zoe"]);
    let one = (0..10u8, name(), name(), 0..60i64).prop_map(|(kind, from, to, amount)| match kind {
        0 => account(from, amount),
        1 => ask("close", json!({"name": from})),
        2 => ask("get", json!({"name": from})),
        3 => ask(
            "transfer",
            Value::Array(vec![transfer(from, to, amount).body, transfer(to, from, amount).body]),
        ),
        4 => transfer(from, to, amount).id(&format!("{from}-{to}")),
        _ => transfer(from, to, amount),
    });
    vec((vec(one, 1..8), any::<bool>()), 1..6)
}

/// How commands are cut into batches, and on which of two workers they run, is invisible, and no money comes or goes.
#[test]
fn transfers_are_the_same_in_any_batches() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&steps(), |batches| {
        runtime.block_on(async {
            let (cut, alone) = (Database::new(), Database::new());
            let workers = [cut.open_as::<Bank>().await, cut.open_as::<Bank>().await];
            let one_by_one = alone.open_as::<Bank>().await;
            let (mut in_batches, mut singly, mut paid_in) = (Vec::new(), Vec::new(), 0);
            for (asks, second) in &batches {
                in_batches.extend(workers[usize::from(*second)].answer(asks).await);
                for ask in asks {
                    let reply = one_by_one.answer_one(ask).await;
                    if ask.command == "create" && reply.status == 201 {
                        paid_in += ask.body["balance"].as_i64().unwrap();
                    }
                    singly.push(reply);
                }
            }
            let seen = |replies: &[rabbitry::service::Reply]| -> Vec<_> {
                replies.iter().map(|reply| (gist(reply), reply.body.clone(), reply.replayed)).collect()
            };
            prop_assert_eq!(seen(&in_batches), seen(&singly));
            let left = balances(&workers[0]).await;
            prop_assert_eq!(&left, &balances(&one_by_one).await);
            prop_assert_eq!(left.values().sum::<i64>(), paid_in);
            Ok(())
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Many workers transfer in all directions at once: locks are taken in one order, and the sum stays.
#[tokio::test(flavor = "multi_thread")]
async fn transfers_that_cross_each_other_lose_nothing() {
    let database = Database::new();
    let names = ["ann", "bob", "eve", "zoe"];
    let first = database.open_as::<Bank>().await;
    first.answer(&names.map(|name| account(name, 1_000))).await;
    let work = (0..4usize).map(|number| {
        let database = &database;
        async move {
            let worker = database.open_as::<Bank>().await;
            let mut done = 0;
            for round in 0..40usize {
                let (from, to) = (names[(number + round) % 4], names[(number + round * 3 + 1) % 4]);
                let asks = [transfer(from, to, 7), transfer(to, from, 3), ask("get", json!({"name": from}))];
                done += worker.answer(&asks).await.iter().filter(|reply| reply.status == 200).count();
            }
            done
        }
    });
    let done: usize = futures::future::join_all(work).await.into_iter().sum();
    assert!(done > 160, "{done}");
    assert_eq!(balances(&first).await.values().sum::<i64>(), 4_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_share_a_database_and_each_has_its_own_replies() {
    let database = Database::new();
    let (users, bank) = (database.open_as::<Users>().await, database.open_as::<Bank>().await);
    let (ann, account) = (create("ann").id("same"), account("ann", 5).id("same"));
    for replayed in [false, true] {
        let replies = [users.answer_one(&ann).await, bank.answer_one(&account).await];
        assert_eq!(gists(&replies), ["201", "201"]);
        assert_eq!(replies.map(|reply| reply.replayed), [replayed; 2]);
    }
    users.answer_one(&award("ann", 7)).await;
    assert_eq!(balances(&bank).await["ann"], 5);
    // Whichever starts again finds its own schema up to date.
    drop((users, bank));
    let (bank, users) = (database.open_as::<Bank>().await, database.open_as::<Users>().await);
    assert_eq!(body(&users.answer_one(&ask("get", json!({"username": "ann"}))).await)["points"], 7);
    assert_eq!(balances(&bank).await["ann"], 5);
    assert_eq!(database.number("SELECT count(*) FROM inbox"), 2);
}
