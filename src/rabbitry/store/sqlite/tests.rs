//! What only this store does; what every store does is in the store contract.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Instant};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::{clock::unix_ms, service::payload::decode, toy::Toys};
use crate::{service::entity::Entity, toy::Toy};

struct Bed {
    dir: TempDir,
    store: Arc<SqliteStore<Toys>>,
}

impl Bed {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::<Toys>::open(dir.path().join("users.db"), options).await.unwrap());
        Self { dir, store }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("users.db")
    }

    /// Changes the database behind the store's back.
    fn meddle(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }

    fn batch(&self, asked: &[(&'static str, &str, &str)]) -> Arc<[Request<Toys>]> {
        let request = |&(name, id, body): &(&'static str, &str, &str)| {
            let entry = Toys::entry(name).unwrap();
            let (payload, fingerprint) = decode(entry, body.as_bytes()).unwrap();
            let command = entry.spec;
            let id = (!id.is_empty()).then(|| id.to_owned());
            Request { command, id, deadline: None, fingerprint, payload }
        };
        asked.iter().map(request).collect()
    }

    async fn ask(&self, asked: &[(&'static str, &str, &str)]) -> Result<Vec<Reply>, Unavailable> {
        let batch = self.batch(asked);
        let is_read = batch.iter().all(|request| request.command.access == Access::Read);
        self.store.apply(if is_read { Access::Read } else { Access::Write }, batch).await
    }

    async fn statuses(&self, asked: &[(&'static str, &str, &str)]) -> Vec<(u16, bool)> {
        let replies = self.ask(asked).await.unwrap();
        replies.iter().map(|reply| (reply.status, reply.replayed)).collect()
    }
}

async fn refusal(path: &Path) -> String {
    match SqliteStore::<Toys>::open(path.to_owned(), Options::default()).await.err() {
        Some(OpenError::Refused(sentence)) => sentence,
        other => panic!("not refused: {other:?}"),
    }
}

const ANN: &str = r#"{"name":"ann","label":"ann@example.com"}"#;
const BOB: &str = r#"{"name":"bob","label":"bob@example.com"}"#;
const POISON: &str = r#"{"name":"poison","label":"p@example.com"}"#;
const GET_ANN: &str = r#"{"name":"ann"}"#;

#[tokio::test]
async fn a_command_that_the_database_refuses_is_isolated() {
    let bed = Bed::new().await;
    bed.meddle(
        "CREATE TRIGGER planted BEFORE INSERT ON toys WHEN new.name = 'poison'
         BEGIN SELECT raise(ABORT, 'planted'); END",
    );
    let array = format!("[{BOB},{POISON}]");
    let batch = [
        ("make", "1", ANN),
        ("make", "2", POISON),
        ("add", "3", r#"{"name":"ann","count":7}"#),
        ("make", "4", &array),
        ("get", "", r#"{"name":"bob"}"#),
        ("make", "5", BOB),
    ];
    let replies = bed.ask(&batch).await.unwrap();
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [201, 500, 200, 500, 404, 201]);
    assert_eq!(replies[1].unexecuted.as_ref().unwrap().code.name, "internal");
    assert!(!String::from_utf8_lossy(&replies[1].body).contains("planted"), "the reason is for the log");
    // What was refused is not remembered: once the fault is mended the same id is executed.
    bed.meddle("DROP TRIGGER planted");
    let again = [("make", "1", ANN), ("make", "2", POISON), ("add", "3", batch[2].2)];
    assert_eq!(bed.statuses(&again).await, [(201, true), (201, false), (200, true)]);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_the_fault_of_no_other() {
    let bed = Bed::new().await;
    bed.ask(&[("make", "", ANN)]).await.unwrap();
    bed.meddle(
        "PRAGMA ignore_check_constraints = ON;
         INSERT INTO toys VALUES ('odd', 'odd@example.com', 0, 'Odd')",
    );
    let odd = r#"{"name":"odd"}"#;
    assert_eq!(bed.statuses(&[("get", "", GET_ANN), ("get", "", odd)]).await, [(200, false), (500, false)]);
    let writes = [("look", "1", odd), ("look", "2", GET_ANN)];
    assert_eq!(bed.statuses(&writes).await, [(500, false), (200, false)]);
}

#[tokio::test]
async fn a_fault_of_the_environment_is_no_answer_and_passes() {
    let bed = Bed::new().await;
    bed.meddle("ALTER TABLE inbox RENAME TO away");
    let error = bed.ask(&[("make", "1", ANN)]).await.unwrap_err().to_string();
    assert!(error.contains("users.db: cannot write: no such table: inbox"), "{error}");
    bed.meddle("ALTER TABLE away RENAME TO inbox");
    assert_eq!(bed.statuses(&[("make", "1", ANN)]).await, [(201, false)]);
}

#[tokio::test]
async fn a_file_that_took_the_databases_place_is_not_written() {
    let bed = Bed::new().await;
    let aside = bed.dir.path().join("aside.db");
    fs::rename(bed.path(), &aside).unwrap();
    for _ in 0..2 {
        let error = bed.ask(&[("make", "1", ANN)]).await.unwrap_err().to_string();
        assert!(error.contains("moved, removed or replaced"), "{error}");
        assert!(bed.ask(&[("get", "", GET_ANN)]).await.is_err());
        assert!(bed.store.ready().await.is_err());
        // Once without any file there, once with another one.
        fs::write(bed.path(), "").unwrap();
    }
    fs::rename(&aside, bed.path()).unwrap();
    bed.store.ready().await.unwrap();
    assert_eq!(bed.statuses(&[("make", "1", ANN)]).await, [(201, false)]);
}

#[tokio::test]
async fn a_frozen_writer_stops_writers_but_neither_readers_nor_the_question_for_readiness() {
    let mut bed = Bed::new().await;
    Arc::get_mut(&mut bed.store).unwrap().patience = Duration::from_millis(20);
    bed.ask(&[("make", "", ANN)]).await.unwrap();
    let frozen = write_lock::WriteLock::open(&bed.path(), Arc::default()).unwrap();
    let held = frozen.acquire().unwrap();
    let error = bed.store.ready().await.unwrap_err().to_string();
    assert!(error.contains("may be frozen"), "{error}");
    assert_eq!(bed.statuses(&[("get", "", GET_ANN)]).await, [(200, false)]);
    let write = bed.store.apply(Access::Write, bed.batch(&[("make", "", BOB)]));
    let released = async { drop(held) };
    let (replies, ()) = tokio::join!(write, released);
    assert_eq!(replies.unwrap()[0].status, 201);
    Arc::get_mut(&mut bed.store).unwrap().patience = PATIENCE;
    bed.store.ready().await.unwrap();
}

#[tokio::test]
async fn many_that_start_at_once_make_one_database() {
    let dir = tempfile::tempdir().unwrap();
    let open = || SqliteStore::<Toys>::open(dir.path().join("users.db"), Options::default());
    let opened = futures::future::join_all((0..8).map(|_| open())).await;
    let stores: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    for store in &stores {
        store.ready().await.unwrap();
    }
    let history = Connection::open(dir.path().join("users.db")).unwrap();
    let applied: i64 =
        history.query_row("SELECT count(*) FROM toys_migrations", [], |row| row.get(0)).unwrap();
    assert_eq!(applied, Toy::TABLE.sqlite.len() as i64);
}

#[tokio::test]
async fn files_are_readable_by_their_owner_only() {
    let bed = Bed::new().await;
    bed.ask(&[("make", "", ANN)]).await.unwrap();
    let mut names = Vec::new();
    for entry in fs::read_dir(bed.dir.path()).unwrap().map(Result::unwrap) {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["users.db", "users.db-shm", "users.db-wal", "users.db.lock", "users.db.turn"]);
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("letter.txt");
    let letter = "Dear reader, this is no database, and it is long enough to be looked at. ".repeat(20);
    fs::write(&text, &letter).unwrap();
    let refused = refusal(&text).await;
    assert!(refused.contains("not a database") && refused.contains("choose another path"), "{refused}");
    assert_eq!(fs::read_to_string(&text).unwrap(), letter);

    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE toys (name)").unwrap();
    assert!(refusal(&foreign).await.contains("another program"));
    assert!(refusal(dir.path()).await.contains("is a directory"));
}

#[tokio::test]
async fn a_newer_schema_is_refused_when_it_says_so() {
    let bed = Bed::new().await;
    bed.meddle("INSERT INTO toys_migrations VALUES (9, 'newer', '2030-01-01T00:00:00Z', '1')");
    SqliteStore::<Toys>::open(bed.path(), Options::default()).await.unwrap().ready().await.unwrap();
    bed.meddle("INSERT INTO compatibility VALUES ('toys', 9)");
    let refused = refusal(&bed.path()).await;
    assert!(refused.contains("schema version 9") && refused.contains("use a newer program"), "{refused}");
}

const AWARD: &str = r#"{"name":"ann","count":1}"#;
const DAY: i64 = 24 * 60 * 60 * 1000;

#[tokio::test]
async fn old_replies_are_forgotten_and_young_ones_are_not() {
    let bed = Bed::with(Options { retention: Duration::from_secs(1), ..Options::default() }).await;
    bed.ask(&[("make", "", ANN), ("add", "old", AWARD)]).await.unwrap();
    let count = |id: &str| {
        let sql = format!("SELECT count(*) FROM inbox WHERE message_id = '{id}'");
        Connection::open(bed.path()).unwrap().query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let written = Instant::now();
    // The last row stays in any case.
    bed.ask(&[("add", "last", AWARD)]).await.unwrap();
    while count("old") > 0 {
        assert!(written.elapsed() < Duration::from_secs(30), "it is not forgotten");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(written.elapsed() >= Duration::from_secs(1), "it was forgotten too early");
    assert_eq!(
        bed.statuses(&[("add", "old", AWARD), ("add", "last", AWARD)]).await,
        [(200, false), (200, true)]
    );
}

#[tokio::test]
async fn a_clock_that_is_wrong_at_the_start_forgets_nothing() {
    let behind = Bed::with(Options { clock: || unix_ms() - 8 * DAY, ..Options::default() }).await;
    behind.ask(&[("make", "", ANN), ("add", "of-behind", AWARD)]).await.unwrap();
    // A right clock, one that is ahead, and a right one again. The first purge precedes the second answer.
    let clocks: [fn() -> i64; 3] = [unix_ms, || unix_ms() + 8 * DAY, unix_ms];
    for (n, clock) in clocks.into_iter().enumerate() {
        let options = Options { clock, ..Options::default() };
        let store = SqliteStore::<Toys>::open(behind.path(), options).await.unwrap();
        store.ready().await.unwrap();
        store.ready().await.unwrap();
        let repeated =
            store.apply(Access::Write, behind.batch(&[("add", "of-behind", AWARD)])).await.unwrap();
        assert!(repeated[0].replayed, "start {n}");
    }
}

#[tokio::test]
async fn a_readiness_probe_that_is_cut_off_leaves_nothing() {
    let bed = Bed::new().await;
    bed.meddle("CREATE TRIGGER planted BEFORE DELETE ON inbox BEGIN SELECT raise(ABORT, 'planted'); END");
    assert!(bed.store.ready().await.is_err());
    let rows = Connection::open(bed.path()).unwrap();
    let rows: i64 = rows.query_row("SELECT count(*) FROM inbox", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn the_last_one_to_close_leaves_everything_in_one_file() {
    let bed = Bed::new().await;
    bed.ask(&[("make", "1", ANN)]).await.unwrap();
    let other = SqliteStore::<Toys>::open(bed.path(), Options::default()).await.unwrap();
    other.ready().await.unwrap();
    let log = write_lock::beside(&bed.path(), "-wal");
    let Bed { dir, store } = bed;
    drop(store);
    assert!(log.exists(), "another one uses it");
    drop(other);
    assert!(!log.exists());
    let alone = dir.path().join("alone.db");
    fs::copy(dir.path().join("users.db"), &alone).unwrap();
    let copy = SqliteStore::<Toys>::open(alone, Options::default()).await.unwrap();
    let bed = Bed { dir, store: Arc::new(copy) };
    assert_eq!(bed.statuses(&[("get", "", GET_ANN)]).await, [(200, false)]);
}

#[tokio::test]
async fn a_log_that_is_deleted_or_replaced_while_it_is_in_use_is_noticed() {
    let bed = Bed::new().await;
    bed.ask(&[("make", "1", ANN)]).await.unwrap();
    let log = write_lock::beside(&bed.path(), "-wal");
    let aside = bed.dir.path().join("aside");
    fs::rename(&log, &aside).unwrap();
    let missing = bed.ask(&[("make", "2", BOB)]).await.unwrap_err().to_string();
    assert!(missing.contains("write-ahead log"), "{missing}");
    assert!(quick_check(&bed.path()).is_err(), "what was answered is not there");
    fs::write(&log, "").unwrap();
    assert!(bed.ask(&[("make", "2", BOB)]).await.is_err(), "it is another file");
    fs::rename(&aside, &log).unwrap();
    assert_eq!(bed.statuses(&[("make", "2", BOB)]).await, [(201, false)]);
}

#[tokio::test]
async fn a_backup_is_whole_and_overwrites_nothing() {
    let bed = Bed::new().await;
    bed.ask(&[("make", "1", ANN)]).await.unwrap();
    let copy = bed.dir.path().join("copy.db");
    backup(&bed.path(), &copy).unwrap();
    bed.ask(&[("make", "2", BOB)]).await.unwrap();
    assert!(backup(&bed.path(), &copy).unwrap_err().to_string().contains("overwrites nothing"));
    assert!(!bed.dir.path().join("copy.db.partial").exists());
    quick_check(&bed.path()).unwrap();
    quick_check(&copy).unwrap();

    let restored =
        Bed { store: Arc::new(SqliteStore::<Toys>::open(copy, Options::default()).await.unwrap()), ..bed };
    let asked = [("make", "1", ANN), ("get", "", r#"{"name":"bob"}"#)];
    assert_eq!(restored.statuses(&asked).await, [(201, true), (404, false)]);
}

#[tokio::test]
async fn a_check_passes_nothing_but_a_whole_store() {
    let bed = Bed::new().await;
    bed.ask(&[("make", "1", ANN)]).await.unwrap();
    let file = |name: &str| bed.dir.path().join(name);
    let copy = file("copy.db");
    backup(&bed.path(), &copy).unwrap();
    let whole = fs::read(&copy).unwrap();
    fs::write(file("short"), &whole[..whole.len() - 1]).unwrap();
    fs::write(file("page-short"), &whole[..whole.len() - 4096]).unwrap();
    fs::write(file("empty"), "").unwrap();
    fs::write(file("byte"), "x").unwrap();
    fs::write(file("text"), "x".repeat(10_000)).unwrap();
    Connection::open(file("other"))
        .unwrap()
        .execute_batch("CREATE TABLE other (n); PRAGMA user_version = 7")
        .unwrap();
    Connection::open(file("bare")).unwrap().execute_batch("PRAGMA application_id = 1382184057").unwrap();
    for name in ["short", "page-short", "empty", "byte", "text", "other", "bare"] {
        let found = quick_check(&file(name));
        assert!(matches!(found, Err(OpenError::NotDone(_))), "{name}: {found:?}");
    }
    assert!(matches!(quick_check(Path::new("/dev/zero")), Err(OpenError::NotDone(_))));
    quick_check(&copy).unwrap();
    quick_check(&bed.path()).unwrap();
}

#[tokio::test]
async fn damage_is_found() {
    let bed = Bed::new().await;
    let create = |n: usize| format!(r#"{{"name":"user{n}","label":"user{n}@example.com"}}"#);
    let many = format!("[{}]", (0..1000).map(create).collect::<Vec<_>>().join(","));
    bed.ask(&[("make", "1", &many)]).await.unwrap();
    let copy = bed.dir.path().join("copy.db");
    backup(&bed.path(), &copy).unwrap();
    let mut bytes = fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xA5);
    fs::write(&copy, bytes).unwrap();
    let found = quick_check(&copy).unwrap_err();
    assert!(matches!(found, OpenError::NotDone(_)), "{found:?}");
}
