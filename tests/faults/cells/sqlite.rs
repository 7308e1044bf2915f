//! A database that is locked, copied, cut short, or has no room.

use std::{fs, path::Path, process::Command, time::Duration};

use futures::FutureExt;
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep};

use super::Cell;
use crate::{
    check::End,
    stage::{Stage, folder},
    support::database::{Database, ForeignWriter},
};

pub fn cells() -> Vec<Cell> {
    vec![
        cell("locked for long", |stage| locked(stage).boxed_local()).quick(),
        cell("a long reader", |stage| long_reader(stage).boxed_local()),
        cell("killed before a checkpoint", |stage| killed_before_checkpoint(stage).boxed_local()),
        cell("limited file size", |stage| file_size(stage).boxed_local()),
        cell("disk full", |stage| disk_full(stage).boxed_local()).for_root(),
        cell("commits are synced", |stage| synced(stage).boxed_local()),
        cell("copied at any moment", |stage| copied(stage).boxed_local()).quick(),
    ]
}

const fn cell(name: &'static str, fault: super::Fault) -> Cell {
    Cell::new("sqlite", name, fault)
}

/// Another program holds the write lock.
async fn locked(stage: &mut Stage) {
    stage.go_on(0.2).await;
    let writer = tokio::task::block_in_place(|| ForeignWriter::begin(stage.place.store()));
    stage.go_on(0.1).await;
    let written = written(stage);
    stage.go_on(0.5).await;
    if self::written(stage) != written {
        stage.wrong("the fault did not happen: writes were answered while another program held the lock");
    }
    tokio::task::block_in_place(|| writer.end());
    stage.go_on(0.2).await;
}

/// Answered commands that write.
fn written(stage: &Stage) -> usize {
    let operations = stage.workload.recorder.history().operations;
    operations.iter().filter(|operation| !operation.action.is_read() && !operation.replies.is_empty()).count()
}

/// A reader keeps the log from being moved; nothing else waits for it.
async fn long_reader(stage: &mut Stage) {
    let reader = rusqlite::Connection::open(stage.place.store().path()).expect("the store can be opened");
    reader.execute_batch("BEGIN; SELECT count(*) FROM users").expect("it can be read");
    stage.go_on(1.0).await;
    reader.execute_batch("COMMIT").expect("reading can be ended");
}

async fn killed_before_checkpoint(stage: &mut Stage) {
    stage.fleet.set("RABBITRY_FAILPOINTS", "before_checkpoint=kill");
    let kill = async |stage: &mut Stage| {
        // While it is moved from outside too.
        let store = stage.place.store();
        tokio::task::block_in_place(|| {
            let other = rusqlite::Connection::open(store.path()).expect("the store can be opened");
            let _ = other.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
        });
        let worker = stage.random_worker();
        stage.fleet.signal(worker, Signal::KILL);
    };
    stage.until_over(Duration::from_millis(400), kill).await;
    stage.disarm();
}

/// Workers that may not write past a size: the kernel ends them, or writing fails.
async fn file_size(stage: &mut Stage) {
    let limit = |stage: &Stage, limit: &str| {
        for pid in (0..stage.fleet.size()).filter_map(|worker| stage.fleet.pid(worker)) {
            let pid = pid.as_raw_nonzero().to_string();
            // It may have ended.
            let _ = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:")]).status();
        }
    };
    let set = async |stage: &mut Stage| limit(stage, "20000");
    stage.until_over(Duration::from_millis(500), set).await;
    limit(stage, "unlimited");
    // A new worker has no limit.
    stage.kill_all();
    if stage.fleet.starts() <= u32::try_from(stage.fleet.size()).unwrap_or(u32::MAX) {
        stage.expect_logged("cannot write");
    }
}

/// The database's folder is a small file system that another file fills.
async fn disk_full(stage: &mut Stage) {
    let filler = folder(&stage.place).join("filler");
    let fill = async |stage: &mut Stage| {
        let _ = Command::new("dd")
            .args(["if=/dev/zero", &format!("of={}", filler.display()), "bs=64k", "status=none"])
            .stderr(std::process::Stdio::null())
            .status();
        stage.go_on(0.15).await;
        let _ = fs::remove_file(&filler);
    };
    stage.until_over(Duration::from_millis(700), fill).await;
    stage.expect_logged("database or disk is full");
}

/// No copy shows what a power cut takes away, as the kernel keeps it; but threads are seen to wait for the disk.
async fn synced(stage: &mut Stage) {
    let end = Instant::now() + stage.wanted.window;
    let (mut samples, mut syncing) = (0_u32, 0_u32);
    while Instant::now() < end {
        for pid in (0..stage.fleet.size()).filter_map(|worker| stage.fleet.pid(worker)) {
            let calls = system_calls(pid);
            samples += u32::try_from(calls.len()).unwrap_or(0);
            syncing +=
                u32::try_from(calls.iter().filter(|call| SYNC.contains(&call.as_str())).count()).unwrap_or(0);
        }
        sleep(Duration::from_millis(1)).await;
    }
    if syncing == 0 {
        stage.wrong(format!("of {samples} looks at the writing threads none saw one wait for the disk"));
    }
}

/// `fsync` and `fdatasync`, on x86-64 and elsewhere.
const SYNC: [&str; 2] = if cfg!(target_arch = "x86_64") { ["74", "75"] } else { ["82", "83"] };

/// What a worker's writing thread is doing in the kernel, by number.
fn system_calls(pid: Pid) -> Vec<String> {
    let folder = format!("/proc/{}/task", pid.as_raw_nonzero());
    let threads = fs::read_dir(folder).into_iter().flatten().flatten().map(|thread| thread.path());
    let writing = threads.filter(|thread| {
        fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "sqlite-writer")
    });
    let calls = writing.filter_map(|thread| fs::read_to_string(thread.join("syscall")).ok());
    calls.filter_map(|call| Some(call.split_whitespace().next()?.to_owned())).collect()
}

/// What a power cut leaves: every write that was synced, at a moment that nobody chose. Each command that was answered
/// before has to be in it.
async fn copied(stage: &mut Stage) {
    let copy = async |stage: &mut Stage| {
        let answered: Vec<_> = stage.workload.recorder.history().operations;
        stage.fleet.signal_all(Signal::STOP);
        // Being stopped is not instantaneous for a thread in the kernel.
        sleep(Duration::from_millis(20)).await;
        let copy = Database::sqlite();
        copy_database(stage.place.store().path(), copy.path());
        stage.fleet.signal_all(Signal::CONT);
        let end = End::from_sqlite(copy.path());
        let Ok(end) = end else {
            stage.wrong(format!("the copy cannot be read: {end:?}"));
            return;
        };
        let missing = answered.iter().filter(|operation| {
            let remembered = operation.replies.first().is_some_and(|reply| reply.status < 500);
            let key = (operation.action.command().to_owned(), operation.id.clone());
            !operation.action.is_read() && remembered && !end.inbox.contains_key(&key)
        });
        let missing: Vec<_> = missing.take(5).collect();
        if !missing.is_empty() {
            stage.wrong(format!("a copy of the files lacks what was answered before: {missing:?}"));
        }
    };
    stage.until_over(Duration::from_millis(700), copy).await;
}

fn copy_database(from: &Path, to: &Path) {
    for ending in ["", "-wal"] {
        let with = |path: &Path| format!("{}{ending}", path.display());
        // The log may not be there yet.
        let _ = fs::copy(with(from), with(to));
    }
}
