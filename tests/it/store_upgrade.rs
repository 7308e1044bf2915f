//! Databases of version 0.1 are taken over as they are.

use std::fs;

use rabbitry::store::{Options, open};
use serde_json::json;
use users::Users;

use crate::support::{
    ask::{ask, award, body, create, get, gists},
    database::{Database, is_postgres},
};

/// A database as the programs of version 0.1 left it: ann and bob, and five replies that are remembered.
pub(super) fn of_0_1() -> Database {
    let database = Database::new();
    if is_postgres() {
        database.meddle("", include_str!("old/0.1.sql"));
    } else {
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/old/0.1.db"), database.path()).unwrap();
    }
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_replies_of_version_0_1_are_there_and_the_next_start_changes_nothing() {
    let database = of_0_1();
    for round in 0..2 {
        let worker = database.open().await;
        let ann = worker.answer_one(&get("ann")).await;
        assert_eq!(
            (body(&ann)["points"].clone(), body(&ann)["status"].clone()),
            (json!(145 + round), json!("Gold"))
        );
        let made = ask("create", json!({"username": "ann", "email": "ann@example.com", "points": 120}));
        let repeated = worker
            .answer(&[
                made.id("made-ann"),
                create("bob").id("3f2b9c1e-5d4a-4e0b-9c1d-2a3b4c5d6e7f"),
                award("ann", 25).id("pay-day"),
                award("bob", -5).id("too-much"),
                award("ann", 26).id("pay-day"),
            ])
            .await;
        assert_eq!(gists(&repeated), ["201", "201", "200", "insufficient_points", "idempotency_conflict"]);
        assert!(repeated[..4].iter().all(|reply| reply.replayed));
        let fresh = worker.answer_one(&award("ann", 1).id(&format!("fresh-{round}"))).await;
        assert_eq!((fresh.status, fresh.replayed), (200, false));
    }
    assert_eq!(database.number("SELECT count(*) FROM inbox WHERE service = 'users'"), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_workers_that_start_at_once_take_it_over_once() {
    let database = of_0_1();
    let opened =
        futures::future::join_all((0..6).map(|_| open::<Users>(&database.url, Options::default()))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(database.number("SELECT count(*) FROM inbox"), 5);
    // What programs of version 0.1, which know migration 1, ask before they use it.
    assert_eq!(database.number("SELECT max(version) FROM refinery_schema_history"), 2);
    assert_eq!(database.number("SELECT oldest_worker FROM schema_compatibility"), 2);
}
