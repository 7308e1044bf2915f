//! Several workers on one database.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use super::{own_database, with};
use crate::support::{
    ask::{Ask, ask, award, body, create, get, gist, gists},
    database::{Database, Worker},
    eventually,
    process::{WorkerProcess, worker},
    users::{Stage, new_user},
};

async fn workers(database: &Database, count: usize) -> Vec<Worker> {
    join_all((0..count).map(|_| database.open())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_create_the_same_users_at_once_agree_who_did() {
    let database = Database::postgres();
    let workers = workers(&database, 4).await;
    for round in 0..10 {
        let names: Vec<String> = (0..50).map(|n| format!("user-{round}-{n}")).collect();
        let batches = workers.iter().enumerate().map(|(index, worker)| {
            let user = |name: &String| {
                ask("create", json!({"username": name, "email": format!("{index}@example.com")}))
            };
            let mut batch: Vec<Ask> = names.iter().map(user).collect();
            // Each in an order of its own, as deadlocks would come of it.
            if index % 2 == 1 {
                batch.reverse();
            }
            async move { worker.answer(&batch).await }
        });
        let outcomes = join_all(batches).await;
        let created: Vec<Value> =
            outcomes.iter().flatten().filter(|reply| reply.status == 201).map(body).collect();
        assert!(
            outcomes.iter().flatten().all(|reply| ["201", "user_exists"].contains(&gist(reply).as_str()))
        );
        assert_eq!(created.len(), names.len(), "each was created once");
        // And by the one that was told so.
        for user in created {
            let stored = workers[0].answer_one(&get(user["username"].as_str().unwrap())).await;
            assert_eq!(body(&stored), user);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_race_for_the_same_ids_and_users_lose_no_update() {
    let database = own_database("");
    let workers = workers(&database, 4).await;
    let names = ["ann", "bob", "cid", "dan"];
    workers[0].answer(&names.map(create)).await;
    for round in 0..25 {
        let batches = workers.iter().enumerate().map(|(index, worker)| {
            let own = |name: &&str| award(name, 1).id(&format!("{round}-{index}-{name}"));
            let shared = |name: &&str| award(name, 1).id(&format!("{round}-shared-{name}"));
            let mut batch: Vec<Ask> = names.iter().map(own).chain(names.iter().map(shared)).collect();
            batch.rotate_left(index * 2);
            async move { worker.answer(&batch).await }
        });
        let outcomes = join_all(batches).await;
        let fresh = outcomes.iter().flatten().filter(|reply| !reply.replayed).count();
        assert_eq!(fresh, names.len() * (workers.len() + 1), "round {round}");
    }
    for name in names {
        assert_eq!(body(&workers[1].answer_one(&get(name)).await)["points"], 25 * 5);
    }
    let counted = database.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    assert_eq!(counted.concat(), ["0"], "locks are taken in one order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_of_reads_sees_one_moment() {
    let database = Database::postgres();
    let workers = workers(&database, 2).await;
    workers[0].answer(&[create("ann"), create("bob")]).await;
    let both = json!([{"username": "ann", "points": 1}, {"username": "bob", "points": 1}]);
    let writing = async {
        for _ in 0..100 {
            assert_eq!(gists(&workers[0].answer(&[ask("award", both.clone())]).await), ["200"]);
        }
    };
    let reading = async {
        let mut seen = BTreeSet::new();
        let batch = [get("ann"), ask("list", json!({})), ask("list", json!({"after": "ann"})), get("bob")];
        while seen.last() != Some(&100) {
            let [ann, all, rest, bob] =
                <[Value; 4]>::try_from(workers[1].answer(&batch).await.iter().map(body).collect::<Vec<_>>())
                    .unwrap();
            let points = [&ann, &all["users"][0], &all["users"][1], &rest["users"][0], &bob];
            let points = points.map(|user| user["points"].as_i64().unwrap());
            assert_eq!(points, [points[0]; 5]);
            seen.insert(points[0]);
        }
        seen.len()
    };
    let ((), moments) = tokio::join!(writing, reading);
    assert!(moments > 2, "it was read while it was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_holds_up_the_others_for_seconds_only() {
    let mut stage = Stage::set().await;
    let database = Database::postgres();
    let other = database.open().await;
    let url = with(&database.url, "options", "-c idle_in_transaction_session_timeout=1s");
    let mut command = worker(&stage.vhost, &stage.place);
    command.env("DATABASE_URL", with(&url, "application_name", "frozen"));
    let frozen = WorkerProcess::spawn(command, &stage.place);
    stage.ask("create", new_user("ann", 0)).await;
    // Updating lasts as long as the gate is closed, and then the transaction is idle, as nobody commits it.
    database.change(
        "CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_advisory_xact_lock_shared(1); RETURN new;
         END $$;
         CREATE TRIGGER planted BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION planted()",
    );
    let gate = crate::support::postgres::Session::open(&database.url);
    gate.rows("SELECT pg_advisory_lock(1)").unwrap();
    let payload = json!({"username": "ann", "points": 1});
    stage.send("award", &payload, stage.asking("a").with_message_id("a".into())).await;
    let state = |state: &str| {
        database.number(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'frozen' AND {state}"
        ))
    };
    eventually("it holds the lock", async || state("wait_event = 'advisory'") == 1).await;
    frozen.signal("STOP");
    gate.rows("SELECT pg_advisory_unlock(1)").unwrap();
    eventually("it is idle", async || state("state = 'idle in transaction'") == 1).await;
    // Another's batch waits and then is done.
    assert_eq!(gists(&other.answer(&[award("ann", 10)]).await), ["200"]);
    frozen.signal("CONT");
    let reply = stage.replies.next().await;
    assert_eq!(crate::support::users::body(&reply)["points"], 11);
    stage.end(frozen, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_name_those_of_postgresql() {
    let stage = Stage::set().await;
    let database = Database::postgres();
    let backup = stage.place.file("copy.db");
    let cases: [(&[&str], &str); 2] =
        [(&["store", "backup", backup.to_str().unwrap()], "pg_dump"), (&["store", "check"], "pg_amcheck")];
    for (args, tool) in cases {
        let mut command = crate::support::process::cli(&stage.vhost, &stage.place, args);
        command.env("DATABASE_URL", &database.url);
        let said = crate::support::process::run(command).await.with_code(1);
        assert!(said.err.contains(tool), "{}", said.err);
        let password = url::Url::parse(&database.url).unwrap().password().unwrap().to_owned();
        assert!(!said.err.contains(&password), "{}", said.err);
    }
}
