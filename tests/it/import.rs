//! `rabbitry import` and `rabbitry export`, with real workers.

mod mixed;
mod stage;

use std::{env, fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::{Value, json};

use crate::support::eventually;
use mixed::{Mixed, OTHER};
use stage::{Stage, Users, end, kill};

/// Rows of the large tests: 5,000, or as many as RABBITRY_IMPORT_ROWS says.
fn rows() -> usize {
    env::var("RABBITRY_IMPORT_ROWS").map_or(5_000, |rows| rows.parse().unwrap())
}

fn good_rows(rows: usize) -> String {
    (0..rows).map(|row| format!("user-{row},user-{row}@example.com,{}\n", row % 200)).collect()
}

fn good_file(rows: usize) -> String {
    format!("username,email,points\n{}", good_rows(rows))
}

fn earned(points: i64) -> &'static str {
    match points {
        ..=50 => "Bronze",
        51..=100 => "Silver",
        _ => "Gold",
    }
}

async fn somebody_else_creates_a_user(stage: &Stage) -> Users {
    stage
        .run(&["users", "create", OTHER, "--email", "else@example.com", "--points", "77"])
        .await
        .with_code(0);
    stage.users()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_every_kind_of_bad_row_gives_exactly_the_users_and_the_refusals() {
    let stage = Stage::set().await;
    let _worker = stage.worker();
    let mut expected = somebody_else_creates_a_user(&stage).await;
    let mixed = Mixed::of(rows());
    expected.extend(mixed.users.clone());
    mixed.write(&stage.file("users.csv"));

    let first = stage.run(&["import", "users.create", "users.csv"]).await.with_code(1);
    let refused = "users.csv.refused.csv";
    assert_eq!(first.summary(), mixed.summary(0, refused.as_ref()));
    assert!(first.err.contains(&format!("rows were refused; they stand with their reasons in {refused}")));
    mixed.assert_refused(&stage.file(refused));
    assert_eq!(stage.users(), expected);

    let (executed, rows_refused) = (stage.executed(), fs::read(stage.file(refused)).unwrap());
    let second = stage.run(&["import", "users.create", "users.csv", "--in-flight", "3"]).await.with_code(1);
    assert_eq!(second.summary(), mixed.summary(mixed.sent(), refused.as_ref()));
    assert_eq!(fs::read(stage.file(refused)).unwrap(), rows_refused);
    assert_eq!((stage.users(), stage.executed()), (expected, executed), "nothing was repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_the_import_are_killed_and_every_row_counts_once() {
    let stage = Stage::set().await;
    let mut worker = stage.worker();
    let mut expected = somebody_else_creates_a_user(&stage).await;
    let mixed = Mixed::of(rows());
    expected.extend(mixed.users.clone());
    mixed.write(&stage.file("users.csv"));

    // Few messages under way, so that there are as many moments as there are messages.
    let mut import = stage.start(&["import", "users.create", "users.csv", "--in-flight", "2"]);
    for fifth in 1..=4 {
        let users = mixed.users.len() * fifth / 5;
        eventually(&format!("{users} users"), async || stage.count_users() >= users).await;
        assert!(import.try_wait().unwrap().is_none(), "the import had ended before the kill");
        if fifth < 4 {
            kill(worker).await;
            worker = stage.worker();
        }
    }
    kill(import).await;
    assert!(stage.count_users() < expected.len(), "the import was killed on its way");

    import = stage.start(&["import", "users.create", "users.csv"]);
    let again = end(import).await.with_code(1);
    let repeated = usize::try_from(again.summary()["repeated"].as_u64().unwrap()).unwrap();
    assert!(repeated > mixed.sent() / 2, "what was done counts as done: {repeated}");
    assert_eq!(again.summary(), mixed.summary(repeated, "users.csv.refused.csv".as_ref()));
    mixed.assert_refused(&stage.file("users.csv.refused.csv"));
    assert_eq!(stage.users(), expected);
    let executed = stage.executed();
    stage.run(&["import", "users.create", "users.csv"]).await.with_code(1);
    assert_eq!((stage.users(), stage.executed()), (expected, executed), "nothing was repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn promotion_is_of_those_that_this_import_created_and_happens_once() {
    let stage = Stage::set().await;
    let _worker = stage.worker();
    let mut expected = somebody_else_creates_a_user(&stage).await;
    let file = good_file(1_200) + OTHER + ",else@example.com,150\n";
    fs::write(stage.file("users.csv"), file).unwrap();

    let plain = stage.run(&["import", "users.create", "users.csv"]).await.with_code(1);
    assert_eq!((plain.summary()["done"].clone(), plain.summary().get("then_done")), (json!(1_200), None));
    let promoted =
        stage.run(&["import", "users.create", "users.csv", "--then", "users.promote"]).await.with_code(1);
    let summary = json!({
        "rows": 1_201, "done": 1_200, "then_done": 1_200, "repeated": 1_201, "refused": {"user_exists": 1},
        "refused_file": "users.csv.refused.csv", "complete": true,
    });
    assert_eq!(promoted.summary(), summary);
    for row in 0..1_200 {
        let points = row % 200;
        let user = (format!("user-{row}@example.com"), points, earned(points).to_owned());
        expected.insert(format!("user-{row}"), user);
    }
    assert_eq!(stage.users(), expected, "somebody else's user is not promoted");

    // What is earned since is left to whoever awarded it.
    stage.run(&["users", "award", "user-1", "500"]).await.with_code(0);
    let again =
        stage.run(&["import", "users.create", "users.csv", "--then", "users.promote"]).await.with_code(1);
    assert_eq!(again.summary(), summary);
    expected.insert("user-1".to_owned(), ("user-1@example.com".to_owned(), 501, "Bronze".to_owned()));
    assert_eq!(stage.users(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_import_says_what_to_do_and_is_continued_by_running_it_again() {
    let stage = Stage::set().await;
    fs::write(stage.file("users.csv"), good_file(4_000)).unwrap();
    let import = stage.start(&["import", "users.create", "users.csv", "--in-flight", "3"]);
    eventually("three messages are under way", async || stage.vhost.ready("users.create").await == 3).await;
    let pid = import.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let interrupted = end(import).await.with_code(130);
    assert!(interrupted.err.contains("no worker is consuming"), "{}", interrupted.err);
    assert!(
        interrupted.err.contains("interrupted after 0 rows; of those under way (up to line 1501)"),
        "{}",
        interrupted.err
    );
    assert!(interrupted.err.contains("run the same import again"), "{}", interrupted.err);
    assert_eq!(interrupted.summary()["complete"], false);

    let _worker = stage.worker();
    let again = stage.run(&["import", "users.create", "users.csv"]).await.with_code(0);
    let summary = json!({
        "rows": 4_000, "done": 4_000, "repeated": 1_500, "refused": {}, "complete": true,
    });
    assert_eq!(again.summary(), summary);
    assert_eq!(stage.count_users(), 4_000);
    assert!(!stage.file("users.csv.refused.csv").exists(), "nothing was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_without_an_answer_ends_with_75_and_the_advice_to_run_it_again() {
    let stage = Stage::set().await;
    fs::write(stage.file("users.csv"), good_file(700)).unwrap();
    let import = stage.run(&["import", "users.create", "users.csv", "--timeout", "1"]).await.with_code(75);
    for part in ["lines 2 to 501", "not known", "run the same import again"] {
        assert!(import.err.contains(part), "{part}: {}", import.err);
    }
    assert_eq!(import.summary()["rows"], 0);
    stage.vhost.delete_queue("users.create").await;
    let import = stage.run(&["import", "users.create", "users.csv"]).await.with_code(69);
    assert!(import.err.contains("topology apply"), "{}", import.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_of_an_earlier_run_stay_until_there_is_a_broker_with_the_queues() {
    let stage = Stage::set().await;
    fs::write(stage.file("users.csv"), good_file(1)).unwrap();
    let refused = stage.file("users.csv.refused.csv");
    let of_yesterday = "line,username,email,points,code,detail\n7,ann,,,invalid,of yesterday\n";
    fs::write(&refused, of_yesterday).unwrap();
    stage
        .run(&["import", "users.create", "users.csv", "--amqp-url", "amqp://127.0.0.1:1"])
        .await
        .with_code(69);
    stage.vhost.delete_queue("users.create").await;
    stage.run(&["import", "users.create", "users.csv"]).await.with_code(69);
    assert_eq!(fs::read_to_string(&refused).unwrap(), of_yesterday);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_holds_no_refused_rows_is_not_written_over() {
    let stage = Stage::set().await;
    let input = "line,username,email,points,code,detail\n2,ann,ann@example.com,7,,\n";
    let files =
        [("users.csv", input), ("notes.txt", "of mine\n"), ("users.csv.refused.csv", "line,username\n")];
    for (name, text) in files {
        fs::write(stage.file(name), text).unwrap();
    }
    fs::hard_link(stage.file("users.csv"), stage.file("link.csv")).unwrap();
    let cases: [(&[&str], &str); 4] = [
        (
            &["--refused", "notes.txt"],
            "notes.txt: it holds something else than refused rows; name another file with --refused",
        ),
        (&[], "users.csv.refused.csv: it holds something else"),
        (&["--refused", "link.csv"], "--refused names the file that is imported"),
        (&["--refused", "-"], "--refused takes the name of a file, not `-`"),
    ];
    for (args, part) in cases {
        let ended = stage
            .run(&[&["import", "users.create", "users.csv", "--timeout", "5"], args].concat())
            .await
            .with_code(2);
        assert!(ended.err.contains(part), "{part}: {}", ended.err);
    }
    for (name, text) in files {
        assert_eq!(fs::read_to_string(stage.file(name)).unwrap(), text, "{name}");
    }
    assert!(!stage.file("-").exists());
    assert_eq!(stage.vhost.ready("users.create").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_username_that_stands_twice_is_not_sent_again_before_the_first_row_is_answered() {
    let stage = Stage::set().await;
    let file = good_file(1_400) + "user-0,late@example.com,1\n";
    fs::write(stage.file("users.csv"), file).unwrap();
    stage.run(&["import", "users.create", "users.csv", "--timeout", "1"]).await.with_code(75);
    eventually("two messages are sent", async || stage.vhost.ready("users.create").await >= 2).await;
    assert_eq!(stage.vhost.ready("users.create").await, 2, "the third message waits for the first");

    let _worker = stage.worker();
    let import = stage.run(&["import", "users.create", "users.csv"]).await.with_code(1);
    assert_eq!(import.summary()["refused"], json!({"user_exists": 1}));
    assert_eq!(stage.users()["user-0"].0, "user-0@example.com");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_exactly_what_there_is_and_can_be_imported_again() {
    let stage = Stage::set().await;
    let _worker = stage.worker();
    let lines = good_rows(2_500);
    let objects: String = lines
        .lines()
        .map(|line| {
            let fields: Vec<_> = line.split(',').collect();
            let points: i64 = fields[2].parse().unwrap();
            json!({"username": fields[0], "email": fields[1], "points": points}).to_string() + "\n"
        })
        .collect();
    let input = objects + "{\"username\":\"ann\"}\n\nnonsense\n";
    let args = [
        "import",
        "users.create",
        "-",
        "--format",
        "ndjson",
        "--then",
        "users.promote",
        "--refused",
        "bad.csv",
    ];
    stage.run_with(&args, input.as_bytes()).await.with_code(1);
    let refused: Vec<_> = stage::refused(&stage.file("bad.csv"));
    let refused: Vec<_> =
        refused.iter().map(|(line, code, detail)| (*line, code.as_str(), detail.as_str())).collect();
    assert_eq!(refused[0], (2_501, "invalid", "email: missing field `email`"));
    assert_eq!((refused.len(), refused[1].0, refused[1].1), (2, 2_503, "malformed"));
    let users = stage.users();
    assert_eq!(users.len(), 2_500);

    fs::write(stage.file("users.csv"), "of yesterday").unwrap();
    stage.run(&["export", "users", "users.csv"]).await.with_code(0);
    let mode = fs::metadata(stage.file("users.csv")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds addresses");
    let mut reader = csv::Reader::from_path(stage.file("users.csv")).unwrap();
    assert_eq!(reader.headers().unwrap(), &["username", "email", "points", "status"][..]);
    let exported: Vec<(String, (String, i64, String))> = reader
        .deserialize()
        .map(|row| row.map(|(name, email, points, status)| (name, (email, points, status))).unwrap())
        .collect();
    assert_eq!(exported, users.clone().into_iter().collect::<Vec<_>>(), "in their order, each once");
    let output = stage.run(&["export", "users", "--format", "ndjson"]).await.with_code(0).out;
    let names: Vec<_> = output
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["username"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.iter().eq(users.keys()));

    let mut unread = stage.start(&["export", "users"]);
    drop(unread.stdout.take());
    let unread = end(unread).await.with_code(0);
    assert_eq!(unread.err, "", "a reader that has gone away is not an error");

    let other = Stage::set().await;
    let _other_worker = other.worker();
    fs::copy(stage.file("users.csv"), other.file("users.csv")).unwrap();
    let copied =
        other.run(&["import", "users.create", "users.csv", "--then", "users.promote"]).await.with_code(0);
    assert!(copied.err.contains("ignoring in users.csv: status"), "{}", copied.err);
    assert_eq!(other.users(), users);
    let args = ["import", "users.create", "-", "--format", "ndjson", "--refused", "again.csv"];
    let again = other.run_with(&args, output.as_bytes()).await.with_code(0);
    assert_eq!(again.summary()["repeated"], 2_500, "the same rows at the same places are the same import");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_nothing_has_a_header_and_one_that_fails_leaves_the_old_file() {
    let stage = Stage::set().await;
    fs::write(stage.file("users.csv"), "of yesterday").unwrap();
    stage.run(&["export", "users", "users.csv", "--timeout", "0.5"]).await.with_code(75);
    assert_eq!(fs::read_to_string(stage.file("users.csv")).unwrap(), "of yesterday");
    let names: Vec<_> = fs::read_dir(stage.file("")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, ["users.csv"], "no half file is left");
    let _worker = stage.worker();
    let export = stage.run(&["export", "users"]).await.with_code(0);
    assert_eq!(export.out, "username,email,points,status\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_imported_is_told_before_anything_is_sent() {
    let stage = Stage::set().await;
    let files = [
        ("empty.csv", ""),
        ("unknown.csv", "username,email,age\nann,a@b.c,7\n"),
        ("missing.csv", "username,points\nann,7\n"),
        ("json.csv", "{\"username\":\"ann\",\"email\":\"a@b.c\"}\n"),
        ("good.csv", "username,email\nann,a@b.c\n"),
        ("good.txt", "username,email\nann,a@b.c\n"),
    ];
    for (name, text) in files {
        fs::write(stage.file(name), text).unwrap();
    }
    let cases: [(&[&str], &str); 8] = [
        (&["nowhere.csv"], "cannot read nowhere.csv"),
        (&["empty.csv"], "cannot import empty.csv: it is empty"),
        (&["unknown.csv"], "a column \"age\""),
        (&["missing.csv"], "names no \"email\""),
        (&["json.csv"], "--format ndjson"),
        (&["good.txt"], "--format csv"),
        (&["good.csv", "--refused", "./good.csv"], "--refused names the file that is imported"),
        (&["good.csv", "--refused", "no/such/folder"], "cannot write refused rows to no/such/folder"),
    ];
    for (args, part) in cases {
        let ended = stage.run(&[&["import", "users.create"], args].concat()).await.with_code(2);
        assert!(ended.err.contains(part), "{part}: {}", ended.err);
    }
    assert_eq!(stage.vhost.ready("users.create").await, 0);
    assert_eq!(fs::read_to_string(stage.file("good.csv")).unwrap(), "username,email\nann,a@b.c\n");
}
