//! What every store does. `RABBITRY_TEST_STORE` chooses which one is asked.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use rabbitry::{clock::unix_ms, service::Access, store::Options};
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

use crate::support::{
    ask::{Ask, ask, award, body, create, get, gist, gists, promote},
    database::{Database, Worker},
};

const HOUR: i64 = 60 * 60 * 1000;

fn list(payload: Value) -> Ask {
    ask("list", payload)
}

async fn points(worker: &Worker, username: &str) -> Value {
    body(&worker.answer_one(&get(username)).await)["points"].clone()
}

fn names(page: &Value) -> Vec<&str> {
    page["users"].as_array().unwrap().iter().map(|user| user["username"].as_str().unwrap()).collect()
}

/// An id as our producers mint them, made so many milliseconds ago.
fn uuid_v7(age_ms: i64) -> Uuid {
    let minted = u64::try_from(unix_ms() - age_ms).unwrap();
    Builder::from_unix_timestamp_millis(minted, &[7; 10]).into_uuid()
}

fn an_hour_later() -> i64 {
    unix_ms() + HOUR
}

#[tokio::test]
async fn replies_come_in_the_order_of_the_requests() {
    let database = &Database::new();
    let worker = database.open().await;
    assert!(worker.answer(&[]).await.is_empty());
    let users: Vec<String> = (0..300).map(|n| format!("user{}", n * 7919 % 1000)).collect();
    let replies = worker.answer(&users.iter().map(|user| create(user)).collect::<Vec<_>>()).await;
    let replied: Vec<Value> = replies.iter().map(|reply| body(reply)["username"].clone()).collect();
    assert_eq!(replied, users);
    let gets: Vec<Ask> = users.iter().rev().map(|user| get(user)).collect();
    let replied = worker.answer(&gets).await;
    assert!(replied.iter().zip(users.iter().rev()).all(|(reply, user)| body(reply)["username"] == **user));
}

#[tokio::test]
async fn users_are_kept_as_they_were_given() {
    let database = &Database::new();
    let worker = database.open().await;
    let asked =
        json!({"username": "Ann.B-c_9", "email": "\"q.u\"@Exämple.com", "points": 9_007_199_254_740_991_i64});
    let created = worker.answer_one(&ask("create", asked.clone())).await;
    assert_eq!(created.status, 201);
    let mut expected = asked;
    expected["status"] = json!("Bronze");
    assert_eq!(body(&created), expected);
    assert_eq!(body(&worker.answer_one(&get("Ann.B-c_9")).await), expected);
    assert_eq!(gist(&worker.answer_one(&get("ann.b-c_9")).await), "user_not_found");
    expected["status"] = json!("Gold");
    assert_eq!(body(&worker.answer_one(&promote("Ann.B-c_9")).await), expected);
    assert_eq!(body(&database.open().await.answer_one(&get("Ann.B-c_9")).await), expected);
}

#[tokio::test]
async fn a_later_command_sees_what_an_earlier_one_did() {
    let database = &Database::new();
    let worker = database.open().await;
    let batch =
        [get("ann"), create("ann"), award("ann", 120), get("ann"), promote("ann"), create("ann"), get("ann")];
    let replies = worker.answer(&batch).await;
    assert_eq!(gists(&replies), ["user_not_found", "201", "200", "200", "200", "user_exists", "200"]);
    assert_eq!((&body(&replies[3])["points"], &body(&replies[3])["status"]), (&json!(120), &json!("Bronze")));
    assert_eq!(body(&replies[6])["status"], "Gold");
}

#[tokio::test]
async fn a_repetition_gets_the_same_reply_and_has_no_effect() {
    let database = &Database::new();
    let worker = database.open().await;
    worker.answer_one(&create("ann")).await;
    let long = "ü".repeat(127);
    let (usual, upper) = (uuid_v7(0).to_string(), uuid_v7(0).to_string().to_uppercase());
    // Ids that a careless key would confuse are different ids.
    let ids = [
        usual.as_str(),
        &upper,
        &uuid_v7(0).simple().to_string(),
        "1",
        "01",
        "1 ",
        "a\0b",
        "a\0c",
        "",
        &long,
    ];
    let mut expected = 0;
    for id in ids {
        let asked = award("ann", 1).id(id);
        expected += 1;
        // Within one batch, in the next, and by another worker.
        let first = worker.answer(&[asked.clone(), get("ann"), asked.clone()]).await;
        let second = worker.answer_one(&asked).await;
        let third = database.open().await.answer_one(&asked).await;
        assert_eq!(body(&first[0])["points"], expected, "{id:?}");
        for (reply, replayed) in [(&first[0], false), (&first[2], true), (&second, true), (&third, true)] {
            assert_eq!((reply.status, &reply.body), (first[0].status, &first[0].body), "{id:?}");
            assert_eq!(reply.replayed, replayed, "{id:?}");
        }
    }
    assert_eq!(points(&worker, "ann").await, expected);
}

#[tokio::test]
async fn another_content_under_the_same_id_is_a_conflict() {
    let database = &Database::new();
    let worker = database.open().await;
    worker.answer_one(&create("ann")).await;
    let batch = [award("ann", 1).id("x"), award("ann", 2).id("x"), award("ann", 1).id("x")];
    let replies = worker.answer(&batch).await;
    assert_eq!(gists(&replies), ["200", "idempotency_conflict", "200"]);
    assert_eq!(gist(&worker.answer_one(&batch[1]).await), "idempotency_conflict");
    assert_eq!(points(&worker, "ann").await, 1);
}

#[tokio::test]
async fn the_same_content_written_otherwise_is_no_conflict() {
    let database = &Database::new();
    let worker = database.open().await;
    let short = ask("create", json!({"username": "ann", "email": "a@b.c"})).id("x");
    let long = ask("create", json!({"points": 0, "email": "a@b.c", "username": "ann"})).id("x");
    let replies = worker.answer(&[short, long]).await;
    assert_eq!((replies[1].status, replies[1].replayed), (201, true));
}

#[tokio::test]
async fn ids_are_per_command() {
    let database = &Database::new();
    let worker = database.open().await;
    let replies =
        worker.answer(&[create("ann").id("x"), award("ann", 60).id("x"), promote("ann").id("x")]).await;
    assert_eq!(gists(&replies), ["201", "200", "200"]);
    assert!(replies.iter().all(|reply| !reply.replayed));
    assert_eq!(body(&replies[2])["status"], "Silver");
}

#[tokio::test]
async fn without_an_id_a_command_is_executed_each_time() {
    let database = &Database::new();
    let worker = database.open().await;
    worker.answer(&[create("ann"), award("ann", 1), award("ann", 1)]).await;
    worker.answer_one(&award("ann", 1)).await;
    assert_eq!(points(&worker, "ann").await, 3);
}

#[tokio::test]
async fn refusals_are_remembered() {
    let database = &Database::new();
    let worker = database.open().await;
    let refused = worker.answer_one(&award("ann", 5).id("x")).await;
    assert_eq!(gist(&refused), "user_not_found");
    worker.answer_one(&create("ann")).await;
    let again = worker.answer_one(&award("ann", 5).id("x")).await;
    assert_eq!((again.status, again.body, again.replayed), (refused.status, refused.body, true));
    assert_eq!(points(&worker, "ann").await, 0);
}

#[tokio::test]
async fn a_balance_stays_within_its_bounds() {
    let database = &Database::new();
    let worker = database.open().await;
    let max = 9_007_199_254_740_991;
    let batch = [create("ann"), award("ann", -1), award("ann", max), award("ann", 1), award("ann", -max)];
    let replies = worker.answer(&batch).await;
    assert_eq!(gists(&replies), ["201", "insufficient_points", "200", "points_limit", "200"]);
    assert_eq!(points(&worker, "ann").await, 0);
}

#[tokio::test]
async fn reads_never_touch_the_inbox() {
    let database = &Database::new();
    let worker = database.open().await;
    worker.answer_one(&create("ann")).await;
    // The second batch holds a write too, and so takes another way.
    for (batch, expected) in [(vec![], 0), (vec![award("ann", 1)], 1)] {
        let mut batch: Vec<Ask> = batch;
        batch.extend([get("ann").id("x"), list(json!({})).id("x"), get("bob").id("x")]);
        let replies = worker.answer(&batch).await;
        let reads = &replies[batch.len() - 3..];
        assert!(reads.iter().all(|reply| !reply.replayed));
        assert_eq!(gists(reads), ["200", "200", "user_not_found"], "no conflict under one id");
        assert_eq!(body(&reads[0])["points"], expected);
        assert_eq!(body(&reads[1])["users"][0]["points"], expected);
    }
}

#[tokio::test]
async fn an_id_too_old_to_be_remembered_is_refused() {
    let database = &Database::new();
    let worker = database.open().await;
    let retention = i64::try_from(Options::default().retention.as_millis()).unwrap();
    let old = create("ann").id(&uuid_v7(retention + HOUR).to_string());
    let young = create("bob").id(&uuid_v7(retention - HOUR).to_string());
    let replies = worker.answer(&[old.clone(), young, get("ann")]).await;
    assert_eq!(gists(&replies), ["id_expired", "201", "user_not_found"]);
    assert!(replies[0].unexecuted.is_some());
    // Not remembered: it is judged anew.
    assert!(!worker.answer_one(&old).await.replayed);
}

#[tokio::test]
async fn a_command_is_not_executed_after_its_deadline() {
    let database = &Database::new();
    let worker = database.open().await;
    let now = unix_ms();
    let batch = [
        create("late").id("late").deadline(now - 1),
        create("early").id("early").deadline(now + HOUR),
        get("early").deadline(now - 1),
        get("late"),
    ];
    let replies = worker.answer(&batch).await;
    assert_eq!(gists(&replies), ["deadline_exceeded", "201", "deadline_exceeded", "user_not_found"]);
    // Not remembered: with a new deadline the same id is executed.
    assert_eq!(gist(&worker.answer_one(&create("late").id("late")).await), "201");
}

#[tokio::test]
async fn what_was_executed_in_time_is_answered_after_the_deadline() {
    let database = &Database::new();
    let asked = create("ann").id("x").deadline(unix_ms() + HOUR / 2);
    let first = database.open().await.answer_one(&asked).await;
    let later = database.open_with(Options { clock: an_hour_later, ..Options::default() }).await;
    let replies =
        later.answer(&[asked.clone(), create("bob").id("y").deadline(asked.deadline.unwrap())]).await;
    assert_eq!((&replies[0].body, replies[0].replayed), (&first.body, true));
    assert_eq!(gist(&replies[1]), "deadline_exceeded");
}

#[tokio::test]
async fn items_of_an_array_are_refused_one_by_one() {
    let database = &Database::new();
    let worker = database.open().await;
    let item = |name: &str| json!({"username": name, "email": "a@b.c"});
    let array = ask("create", json!([item("ann"), item("ann"), {"username": "-"}, item("bob")])).id("x");
    let first = worker.answer_one(&array).await;
    let items = body(&first);
    let gists = items.as_array().unwrap().iter().map(|item| item["code"].as_str().unwrap_or("fine"));
    assert_eq!(gists.collect::<Vec<_>>(), ["fine", "user_exists", "invalid", "fine"]);
    assert_eq!((first.status, &items[1]["status"]), (200, &json!(409)));
    assert_eq!(first.unexecuted.as_ref().unwrap().code.name, "invalid");

    // One inbox row: the same array is answered from it, another one under its id is a conflict.
    let again = database.open().await.answer_one(&array).await;
    assert_eq!((again.status, &again.body, again.replayed), (200, &first.body, true));
    assert_eq!(again.unexecuted, first.unexecuted);
    let shorter = ask("create", json!([item("ann")])).id("x");
    assert_eq!(gist(&worker.answer_one(&shorter).await), "idempotency_conflict");
    let single = ask("create", item("ann")).id("x");
    assert_eq!(gist(&worker.answer_one(&single).await), "idempotency_conflict");
}

#[tokio::test]
async fn a_long_array_is_one_command() {
    let database = &Database::new();
    let worker = database.open().await;
    let items: Vec<Value> = (0..1000).map(|_| json!({"username": "ann", "points": 1})).collect();
    let array = ask("award", items.into()).id("x");
    let replies = worker.answer(&[create("ann"), array.clone(), array]).await;
    assert_eq!(body(&replies[1])[999]["points"], 1000);
    assert!(replies[2].replayed && replies[1].body == replies[2].body);
    assert_eq!(points(&worker, "ann").await, 1000);
    let reads = worker.answer_one(&ask("get", json!([{"username": "ann"}, {"username": "bob"}]))).await;
    assert_eq!(
        (&body(&reads)[0]["points"], &body(&reads)[1]["code"]),
        (&json!(1000), &json!("user_not_found"))
    );
}

#[tokio::test]
async fn pages_follow_one_another_in_order() {
    let database = &Database::new();
    let worker = database.open().await;
    assert_eq!(body(&worker.answer_one(&list(json!({}))).await), json!({"users": []}));
    // Ordered by their bytes, whatever a locale thinks of capitals, hyphens and dots.
    let expected = ["0", "A", "B-1", "B.1", "B1", "B_1", "a", "b"];
    let mut users = expected;
    users.reverse();
    worker.answer(&users.map(create)).await;
    let (mut found, mut after) = (Vec::new(), json!({"limit": 3}));
    loop {
        let page = body(&worker.answer_one(&list(after)).await);
        found.extend(names(&page).iter().map(|&name| name.to_owned()));
        match &page["next"] {
            Value::Null => break,
            next => after = json!({"after": next, "limit": 3}),
        }
    }
    assert_eq!(found, expected);
    let exact = body(&worker.answer_one(&list(json!({"limit": 8}))).await);
    assert_eq!((names(&exact).len(), &exact["next"]), (8, &Value::Null));
}

#[tokio::test]
async fn a_page_shows_what_the_batch_has_changed_so_far() {
    let database = &Database::new();
    let worker = database.open().await;
    worker.answer(&["b", "d", "f"].map(create)).await;
    let page = || list(json!({"after": "a", "limit": 3}));
    let batch = [page(), create("c"), page(), award("b", 9), create("a0"), page(), create("zz"), page()];
    let replies = worker.answer(&batch).await;
    let bodies: Vec<Value> = replies.iter().map(body).collect();
    assert_eq!(names(&bodies[0]), ["b", "d", "f"]);
    assert_eq!(bodies[0]["next"], Value::Null);
    assert_eq!((names(&bodies[2]), &bodies[2]["next"]), (vec!["b", "c", "d"], &json!("d")));
    assert_eq!((names(&bodies[5]), &bodies[5]["next"]), (vec!["a0", "b", "c"], &json!("c")));
    assert_eq!(bodies[5]["users"][1]["points"], 9);
    assert_eq!(bodies[7], bodies[5]);
    assert_eq!(body(&worker.answer_one(&page()).await), bodies[7]);
}

#[tokio::test]
async fn what_was_answered_is_there_after_opening_again() {
    let database = &Database::new();
    let asked = create("ann").id("x");
    let first = {
        let worker = database.open().await;
        worker.answer_one(&asked).await
    };
    let worker = database.open().await;
    let replies = worker.answer(&[asked, get("ann")]).await;
    assert_eq!((&replies[0].body, replies[0].replayed), (&first.body, true));
    assert_eq!(body(&replies[1]), body(&first));
}

#[tokio::test]
async fn workers_that_race_with_the_same_ids_have_one_effect() {
    let database = &Database::new();
    const WORKERS: usize = 4;
    const ROUNDS: usize = 10;
    let referee = database.open().await;
    referee.answer_one(&create("ann")).await;
    let start = Barrier::new(WORKERS);
    let run = |worker: usize| {
        let (url, start) = (database, &start);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let handle = url.open().await;
            let mut bodies = Vec::new();
            for round in 0..ROUNDS {
                start.wait();
                let shared = award("ann", 1).id(&format!("shared-{round}"));
                let own = award("ann", 1).id(&format!("own-{worker}-{round}"));
                let replies = handle.answer(&[own, shared]).await;
                bodies.push((replies[1].body.clone(), replies[1].replayed));
            }
            bodies
        })
    };
    let outcomes: Vec<Vec<(Vec<u8>, bool)>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || run(worker))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for round in 0..ROUNDS {
        let replies: Vec<_> = outcomes.iter().map(|outcome| &outcome[round]).collect();
        assert_eq!(replies.iter().filter(|(_, replayed)| !replayed).count(), 1, "round {round}");
        assert!(replies.iter().all(|(body, _)| *body == replies[0].0), "round {round}");
    }
    assert_eq!(points(&referee, "ann").await, ROUNDS + WORKERS * ROUNDS);
}

#[tokio::test]
async fn many_batches_at_once_are_all_answered() {
    let database = &Database::new();
    let worker = Arc::new(database.open().await);
    worker.answer_one(&create("ann")).await;
    let batches = (0..50).map(|batch| {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move {
            let write = award("ann", 1).id(&format!("{batch}"));
            worker.answer(&[write, get("ann")]).await.len() + worker.answer(&[get("ann")]).await.len()
        })
    });
    let answered = futures::future::join_all(batches).await;
    assert!(answered.into_iter().all(|count| count.unwrap() == 3));
    assert_eq!(points(&worker, "ann").await, 50);
}

#[tokio::test]
async fn a_batch_that_nobody_waits_for_does_no_harm() {
    let database = &Database::new();
    let worker = database.open().await;
    worker.answer_one(&create("ann")).await;
    for round in 0..20 {
        let asked = [award("ann", 1).id(&format!("{round}"))];
        let abandoned = worker.store.apply(Access::Write, worker.requests(&asked));
        // Polled once and dropped: it may or may not happen, and may even be done by then.
        drop(futures::FutureExt::now_or_never(abandoned));
        worker.answer(&asked).await;
    }
    assert_eq!(points(&worker, "ann").await, 20);
}

#[tokio::test]
async fn a_store_that_cannot_be_written_to_is_not_ready() {
    let database = &Database::new();
    let worker = database.open().await;
    database.meddle(
        "CREATE TRIGGER refuse BEFORE INSERT ON inbox BEGIN SELECT RAISE(ABORT, 'planted'); END",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let error = worker.store.ready().await.unwrap_err().to_string();
    assert!(error.contains("planted"), "{error}");
    database.meddle("DROP TRIGGER refuse", "DROP TRIGGER refuse ON inbox");
    worker.store.ready().await.unwrap();
    assert_eq!(database.number("SELECT count(*) FROM inbox"), 0);
}

#[tokio::test]
async fn a_store_that_answers_is_ready() {
    let database = &Database::new();
    let worker = database.open().await;
    worker.store.ready().await.unwrap();
    worker.store.ready().await.unwrap();
}
