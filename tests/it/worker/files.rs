//! The files of SQLite's database, as a worker finds and leaves them.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    process::Command,
};

use serde_json::json;

use crate::support::{
    database::Database,
    process::{Place, WorkerProcess, program, run},
    users::{Stage, new_user, user, users_vhost},
    vhost::Replies,
};

async fn stage_on_sqlite() -> Stage {
    let vhost = users_vhost().await;
    let replies = Replies::listen(&vhost, "reply.test").await;
    Stage { vhost, place: Place::with(Database::sqlite()), replies }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_leaves_one_file_that_holds_everything() {
    let mut stage = stage_on_sqlite().await;
    let worker = stage.worker().await;
    assert_eq!(stage.ask("create", new_user("ann", 7)).await.0, 201);
    stage.end(worker, &[]).await;
    let path = stage.place.store().path();
    assert!(!path.with_file_name("users.db-wal").exists());
    let alone = Database::sqlite();
    fs::copy(path, alone.path()).unwrap();
    let mut elsewhere = Stage { place: Place::with(alone), ..stage };
    let worker = elsewhere.worker().await;
    assert_eq!(elsewhere.ask("get", json!({"username": "ann"})).await, (200, user("ann", 7, "Bronze")));
    elsewhere.end(worker, &[]).await;
}

/// Root may write every file, so the worker runs as nobody where the tests run as root.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_written_is_refused() {
    let stage = stage_on_sqlite().await;
    stage.worker().await.stop().await;
    let path = stage.place.store().path();
    let folder = path.parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    for file in fs::read_dir(folder).unwrap() {
        fs::set_permissions(file.unwrap().path(), fs::Permissions::from_mode(0o666)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
    let copy = folder.join("users-worker");
    // Not by this process: a thread that forks meanwhile would hold the file open for writing, and it could not be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_users-worker")).arg(&copy).status().unwrap();
    assert!(copied.success());
    let mut command = program(copy.to_str().unwrap(), &stage.place);
    command.env("AMQP_URL", stage.vhost.url_text()).env("DATABASE_URL", &stage.place.store().url);
    command.env("RABBITRY_HOME", "").current_dir("/");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let refused = run(command).await.with_code(78);
    assert!(refused.err.contains("cannot open") && refused.err.contains("users.db"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_descriptors_are_told_from_missing_rights() {
    let stage = stage_on_sqlite().await;
    // What the tests were started with would count too.
    let alone = r#"for file in /proc/self/fd/*; do n=${file##*/}; [ "$n" -le 2 ] || eval "exec $n<&-"; done"#;
    let mut told = 0;
    for limit in 12.. {
        let place = Place::with(Database::sqlite());
        let mut command = program("bash", &place);
        let line = format!("{alone}; ulimit -n {limit}; exec {}", env!("CARGO_BIN_EXE_users-worker"));
        command
            .args(["-c", &line])
            .env("AMQP_URL", stage.vhost.url_text())
            .env("DATABASE_URL", &place.store().url);
        let worker = WorkerProcess::spawn(command, &place);
        worker.wait_for_logs(&["waiting for the store", "worker starts"]).await;
        let log = worker.log();
        worker.kill();
        if !log.contains("waiting for the store") {
            break;
        }
        assert!(log.contains("ulimit -n") || log.contains("Too many open files"), "{limit}: {log}");
        told += usize::from(log.contains("ulimit -n"));
    }
    assert!(told > 0);
}
