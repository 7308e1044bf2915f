//! `rabbitry store copy`: from a file to the store that is tested, and back.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{
    ask::{Ask, ask},
    database::Database,
    eventually,
    process::{Place, Said, WorkerProcess, cli, program, run, run_with_lines, worker},
    users::{Stage, new_user, points},
};

/// More than a page of each kind.
const MANY: i64 = 450;

fn copying(place: &Place, from: &str, to: &str) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_rabbitry"), place);
    command.args(["store", "copy"]).env("COPY_FROM", from).env("COPY_TO", to);
    command
}

async fn copy(from: &Database, to: &Database) -> Said {
    run(copying(&Place::new(), &from.url, &to.url)).await
}

fn commands() -> Vec<Ask> {
    let create = |n: i64| {
        let user = json!({"username": format!("user-{n}"), "email": "ü@example.com", "points": n});
        ask("create", user).id(&format!("id-{n}"))
    };
    let award = |id: &str| ask("award", json!({"username": "user-7", "points": 100})).id(id);
    let ids =
        ["", "a\0b", "ü", "017f22e2-79b0-4cc3-98c4-dc0c0c07398f", "017F22E2-79B0-4CC3-98C4-DC0C0C07398F"];
    (0..MANY).map(create).chain(ids.map(award)).collect()
}

/// All that a store holds, but the replies, which only a worker can compare.
fn contents(database: &Database) -> Vec<Vec<String>> {
    let mut rows = database.rows("SELECT username, email, points, status FROM users ORDER BY username");
    rows.extend(database.rows("SELECT command, status, created_at FROM inbox ORDER BY 1, 2, 3"));
    rows
}

async fn filled() -> Database {
    let database = Database::sqlite();
    let worker = database.open().await;
    for batch in commands().chunks(100) {
        worker.answer(batch).await;
    }
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_holds_all_users_and_all_replies_and_a_copy_of_it_too() {
    let (file, store, other) = (filled().await, Database::new(), Database::sqlite());
    let told = copy(&file, &store).await.with_code(0).json();
    assert_eq!((&told["users"], &told["replies"]), (&json!(MANY), &json!(MANY + 5)));
    copy(&store, &other).await.with_code(0);
    for copied in [&store, &other] {
        assert_eq!(contents(copied), contents(&file));
        let (before, after) = (file.open().await, copied.open().await);
        for batch in commands().chunks(100) {
            let replies = after.answer(batch).await;
            assert!(replies.iter().all(|reply| reply.replayed));
            assert_eq!(replies, before.answer(batch).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_cut_off_goes_on() {
    let (file, store) = (filled().await, Database::new());
    copy(&file, &store).await.with_code(0);
    let cut = "DELETE FROM users WHERE username > 'user-3'; DELETE FROM inbox WHERE command = 'award'";
    store.meddle(cut, cut);
    copy(&file, &store).await.with_code(0);
    assert_eq!(contents(&store), contents(&file));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_other_data_is_left_as_it_is() {
    let file = filled().await;
    let changes = [
        "UPDATE users SET points = 9999 WHERE username = 'user-44'",
        "INSERT INTO users VALUES ('zoe', 'z@b.c', 0, 'Bronze')",
        "UPDATE inbox SET status = 299 WHERE command = 'award'",
    ];
    for change in changes {
        let store = Database::new();
        copy(&file, &store).await.with_code(0);
        let cut = format!("DELETE FROM users WHERE username = 'user-9'; {change}");
        store.meddle(&cut, &cut);
        let before = contents(&store);
        let said = copy(&file, &store).await.with_code(1);
        assert!(said.err.contains("holds data of its own"), "{}", said.err);
        assert_eq!(contents(&store), before, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_copied_or_made() {
    let (store, place) = (Database::new(), Place::new());
    let nowhere = format!("sqlite:{}", place.file("nowhere.db").display());
    let said = run(copying(&place, &nowhere, &store.url)).await.with_code(78);
    assert!(said.err.contains("is not there"), "{}", said.err);
    assert!(!place.file("nowhere.db").exists() && !store.has_users());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_not_copied_into_itself_under_whichever_name() {
    let (file, place) = (filled().await, Place::new());
    let path = file.path().display();
    let link = place.file("link.db");
    std::os::unix::fs::symlink(file.path(), &link).unwrap();
    for name in [file.url.clone(), format!("sqlite://{path}"), format!("sqlite:{}", link.display())] {
        let said = run(copying(&place, &file.url, &name)).await.with_code(1);
        assert!(said.err.contains("into itself"), "{name}: {}", said.err);
    }
}

fn on(stage: &Stage, database: &Database) -> WorkerProcess {
    let mut command = worker(&stage.vhost, &stage.place);
    command.env("DATABASE_URL", &database.url);
    WorkerProcess::spawn(command, &stage.place)
}

/// Lines that go on until it is enough, counted.
fn awards(
    enough: &CancellationToken,
    sent: &Arc<AtomicI64>,
) -> impl Iterator<Item = String> + Send + 'static {
    let (enough, sent) = (enough.clone(), Arc::clone(sent));
    std::iter::from_fn(move || {
        (!enough.is_cancelled()).then(|| {
            sent.fetch_add(1, Ordering::SeqCst);
            "{\"username\":\"ann\",\"points\":1}\n".to_owned()
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_change_their_store_under_load_and_every_command_counts_once() {
    let mut stage = Stage::set().await;
    let (old, new) = (Database::sqlite(), stage.place.store());
    let workers = [on(&stage, &old), on(&stage, &old)];
    let new = new.url.clone();
    stage.ask("create", new_user("ann", 0)).await;
    let (enough, sent) = (CancellationToken::new(), Arc::new(AtomicI64::new(0)));
    let arguments = ["send", "users.award", "-", "--in-flight", "100", "--timeout", "60"];
    let send = cli(&stage.vhost, &stage.place, &arguments);
    let sending = tokio::spawn(run_with_lines(send, awards(&enough, &sent)));
    eventually("the load goes on", async || points(&old, "ann") > 500).await;

    for worker in workers {
        worker.stop().await;
    }
    let done = points(&old, "ann");
    run(copying(&stage.place, &old.url, &new)).await.with_code(0);
    let worker = stage.worker().await;
    eventually("the load goes on", async || points(stage.place.store(), "ann") > done + 500).await;
    enough.cancel();
    let said = sending.await.unwrap().with_code(0);
    let sent = sent.load(Ordering::SeqCst);
    assert_eq!(i64::try_from(said.out.lines().count()).unwrap(), sent);
    let is_ann = |line: &str| serde_json::from_str::<Value>(line).unwrap()["username"] == "ann";
    assert!(said.out.lines().all(is_ann));
    assert_eq!((points(stage.place.store(), "ann"), points(&old, "ann")), (sent, done));
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn choosing_the_other_store_says_that_users_stay_behind() {
    let place = Place::new();
    let script = |action: &str| {
        let mut command = program(crate::tidy::root("bin/postgres.sh").to_str().unwrap(), &place);
        command.arg(action).env("DATABASE_URL", "postgresql://ann:s3cret@db.example/shop");
        run(command)
    };
    let file = format!("sqlite:{}", place.file("users.db").display());
    // Nothing was stored yet.
    let said = script("up").await.with_code(0);
    assert!(!said.out.contains("store copy"), "{}", said.out);
    // The way back, which is told once.
    let said = script("forget").await.with_code(0);
    assert!(said.out.contains("store copy") && said.out.contains(&file), "{}", said.out);
    assert!(!said.out.contains("s3cret"), "{}", said.out);
    assert_eq!(script("forget").await.with_code(0).out, "");
    std::fs::write(place.file("users.db"), "").unwrap();
    let said = script("up").await.with_code(0);
    assert!(said.out.contains("store copy") && said.out.contains(&file), "{}", said.out);
    assert!(!script("up").await.with_code(0).out.contains("store copy"));
}
