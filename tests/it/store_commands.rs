//! `rabbitry store`: a copy that can be restored, and damage that is found.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::support::{
    ask::{ask, body, gist},
    database::Database,
};

fn store(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rabbitry")).arg("store").args(arguments).output().unwrap()
}

/// What a run wrote, with its exit code.
fn told(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_backup_is_restored_with_its_users_and_forgets_what_came_later() {
    let database = Database::sqlite();
    let worker = database.open().await;
    let create = |name: &str| ask("create", json!({"username": name, "email": "a@b.c"})).id(name);
    worker.answer_one(&create("ann")).await;
    let copy = database.path().with_file_name("copy.db");
    let copied = store(&["backup", copy.to_str().unwrap(), "--database-url", &database.url]);
    assert_eq!(copied.status.code(), Some(0), "{copied:?}");
    let answer: Value = serde_json::from_slice(&copied.stdout).unwrap();
    assert_eq!(answer["backup"], copy.to_str().unwrap());
    worker.answer_one(&create("bob")).await;
    drop(worker);

    // A place where no file of another database stands beside the copy.
    let restored = Database::sqlite();
    fs::rename(&copy, restored.path()).unwrap();
    let worker = restored.open().await;
    let again = worker.answer(&[create("ann"), create("bob")]).await;
    assert!(again[0].replayed, "the copy holds the replies given before");
    assert_eq!((gist(&again[1]).as_str(), again[1].replayed), ("201", false), "and none given after");
    let users = body(&worker.answer_one(&ask("list", json!({}))).await);
    assert_eq!(users["users"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let database = Database::sqlite();
    drop(database.open().await);
    let there = database.path().with_file_name("there.db");
    fs::write(&there, "mine").unwrap();
    let (code, text) = told(&store(&["backup", there.to_str().unwrap(), "--database-url", &database.url]));
    assert_eq!(code, Some(1));
    assert!(text.contains("a backup overwrites nothing"), "{text}");
    assert_eq!(fs::read_to_string(&there).unwrap(), "mine");
}

#[tokio::test]
async fn a_check_tells_a_whole_store_from_a_damaged_one() {
    let database = Database::sqlite();
    drop(database.open().await);
    let (code, text) = told(&store(&["check", "--database-url", &database.url]));
    assert_eq!(code, Some(0), "{text}");
    let other = database.path().with_file_name("other.db");
    fs::write(&other, "no database, and long enough to be read as one\n".repeat(100)).unwrap();
    let (code, text) = told(&store(&["check", other.to_str().unwrap()]));
    assert_eq!(code, Some(1));
    assert!(text.contains("not a database"), "{text}");
}

#[tokio::test]
async fn a_store_that_is_not_there_or_no_store_ends_with_78() {
    let folder = tempfile::tempdir().unwrap();
    let (nowhere, copy) = (folder.path().join("nowhere.db"), folder.path().join("copy.db"));
    let (nowhere, copy) = (nowhere.to_str().unwrap(), copy.to_str().unwrap());
    let url = format!("sqlite:{nowhere}");
    let missing = [
        &["check", nowhere][..],
        &["check", "--database-url", &url],
        &["backup", copy, "--database-url", &url],
    ];
    for arguments in missing {
        let (code, text) = told(&store(arguments));
        assert_eq!(code, Some(78), "{arguments:?}: {text}");
        assert!(text.contains(&format!("{nowhere} is not there")), "{text}");
    }
    let nonsense: [(&[&str], &str); 5] = [
        (&["check", "--database-url", "nonsense"], "DATABASE_URL names no known store"),
        (&["backup", copy, "--database-url", "nonsense"], "DATABASE_URL names no known store"),
        (&["copy", "nonsense", &url], "COPY_FROM names no known store"),
        (&["copy", &format!("sqlite:{}", file!()), "nonsense"], "COPY_TO names no known store"),
        (&["copy", "postgres://ann@db/users?sslmode=perhaps", &url], "COPY_FROM: sslmode is"),
    ];
    for (arguments, expected) in nonsense {
        let (code, text) = told(&store(arguments));
        assert_eq!(code, Some(78), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}
