//! A server of PostgreSQL that dies, throws its sessions out, makes them wait, or whose line breaks.

use std::time::Duration;

use futures::FutureExt;
use rustix::process::Signal;
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

use super::Cell;
use crate::{
    proxy::{Direction, Rule},
    stage::Stage,
    store,
    support::{database::ForeignWriter, postgres::Session},
};

/// Longer than the server lets a session wait for a lock.
const LOCKED: Duration = Duration::from_secs(12);

pub fn cells() -> Vec<Cell> {
    vec![
        cell("server killed and restarted", |stage| down(stage, Signal::KILL).boxed_local()).quick(),
        cell("server stopped at once and restarted", |stage| down(stage, Signal::QUIT).boxed_local()),
        cell("sessions terminated", |stage| terminated(stage).boxed_local()).quick(),
        cell("table locked for long", |stage| locked(stage).boxed_local()),
        cell("rows locked by another session", |stage| rows_locked(stage).boxed_local()),
        cell("answers to commits lost", |stage| commits_cut(stage).boxed_local()).quick(),
        cell("line reset", |stage| resets(stage).boxed_local()),
        cell("line half open", |stage| silent(stage).boxed_local()),
        cell("isolation raised by configuration", |stage| isolation(stage).boxed_local()),
    ]
}

const fn cell(name: &'static str, fault: super::Fault) -> Cell {
    Cell::new("postgres", name, fault)
}

async fn down(stage: &mut Stage, signal: Signal) {
    stage.go_on(0.3).await;
    store::signal_server(signal).await;
    sleep(Duration::from_secs(1)).await;
    store::start_server().await;
    stage.go_on(0.7).await;
    stage.expect_logged("keeping a batch");
}

async fn terminated(stage: &mut Stage) {
    let terminate = async |stage: &mut Stage| {
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                      WHERE pid <> pg_backend_pid() AND application_name = current_setting('application_name')";
        block_in_place(|| Session::open(&stage.place.store().url).rows(others)).expect("it can be asked for");
    };
    stage.until_over(Duration::from_millis(300), terminate).await;
}

async fn locked(stage: &mut Stage) {
    let writer = block_in_place(|| ForeignWriter::begin(stage.place.store()));
    sleep(LOCKED).await;
    block_in_place(|| writer.end());
    stage.go_on(0.5).await;
    stage.expect_logged("keeping a batch");
}

/// Some users are locked; the commands of the others wait with them, batch by batch, and nothing is lost.
async fn rows_locked(stage: &mut Stage) {
    let lock = async |stage: &mut Stage| {
        let session = block_in_place(|| Session::open(&stage.place.store().url));
        let some =
            "BEGIN; SELECT 1 FROM users WHERE hashtext(username) % 3 = 0 ORDER BY username DESC FOR UPDATE";
        let locked = block_in_place(|| session.rows(some));
        sleep(Duration::from_millis(400)).await;
        if locked.is_ok() {
            // Whoever is the victim of a deadlock has ended already.
            let _ = block_in_place(|| session.rows("ROLLBACK"));
        }
    };
    stage.until_over(Duration::from_millis(100), lock).await;
    // The other session locks in the opposite order.
    stage.deadlocks = i64::MAX;
}

/// The server commits, and the line breaks before it can say so.
async fn commits_cut(stage: &mut Stage) {
    let cut = async |stage: &mut Stage| {
        let cuts = stage.store_line().counters().cuts;
        stage.store_line().cut_at(Direction::ToServer, b"; COMMIT", b"COMMIT\0");
        let is_cut = async {
            while stage.store_line().counters().cuts == cuts {
                sleep(Duration::from_millis(5)).await;
            }
        };
        // Nothing may be written for a while, as workers are making up for the last cut.
        let _ = timeout(Duration::from_secs(5), is_cut).await;
    };
    stage.until_over(Duration::from_millis(200), cut).await;
    if stage.store_line().counters().cuts == 0 {
        stage.wrong("the fault did not happen: no answer to a commit was cut off");
    }
}

async fn resets(stage: &mut Stage) {
    stage.until_over(Duration::from_millis(400), async |stage: &mut Stage| stage.store_line().reset()).await;
}

async fn silent(stage: &mut Stage) {
    stage.go_on(0.2).await;
    stage.store_line().set(Direction::Both, &Rule::Blackhole);
    sleep(Duration::from_secs(10)).await;
    stage.store_line().reset();
    stage.store_line().heal();
    stage.go_on(0.3).await;
}

async fn isolation(stage: &mut Stage) {
    let role = |sql: &str| {
        block_in_place(|| Session::open(&stage.place.store().url).rows(sql)).expect("a role can be changed");
    };
    role("ALTER ROLE CURRENT_USER SET default_transaction_isolation = 'serializable'");
    stage.kill_all();
    stage.go_on(1.0).await;
    role("ALTER ROLE CURRENT_USER RESET default_transaction_isolation");
    stage.kill_all();
}
