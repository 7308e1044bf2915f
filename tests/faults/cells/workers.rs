//! Workers that are killed, frozen, stopped, or fail.

use std::time::Duration;

use futures::FutureExt;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::Cell;
use crate::stage::Stage;

/// Longer than the broker takes to give up on a worker that sends no heartbeat.
const FROZEN: Duration = Duration::from_secs(7);

/// How long each worker may take to die twice, beside the fault's own time.
const DEATHS_MAX: Duration = Duration::from_secs(60);

pub fn cells() -> Vec<Cell> {
    vec![
        cell("killed mid batch", |stage| killed_at(stage, "mid_batch", 60).boxed_local()),
        cell("killed before commit", |stage| killed_at(stage, "before_commit", 15).boxed_local()),
        cell("killed after commit", |stage| killed_at(stage, "after_commit", 15).boxed_local()).quick(),
        cell("killed before reply", |stage| killed_at(stage, "before_reply", 15).boxed_local()),
        cell("killed after reply", |stage| killed_at(stage, "after_reply", 15).boxed_local()),
        cell("killed before ack", |stage| killed_at(stage, "before_ack", 15).boxed_local()).quick(),
        cell("killed after ack", |stage| killed_at(stage, "after_ack", 15).boxed_local()),
        cell("panics in commands", |stage| armed(stage, "mid_batch=panic@1%").boxed_local()).quick(),
        cell("commit fails", |stage| armed(stage, "before_commit=error@10%").boxed_local()),
        cell("commit's outcome unknown", |stage| armed(stage, "after_commit=error@10%").boxed_local()),
        cell("sleeps before commit", |stage| armed(stage, "before_commit=sleep(300)@5%").boxed_local()),
        cell("sleeps before ack", |stage| armed(stage, "before_ack=sleep(300)@5%").boxed_local()),
        cell("kill storm", |stage| storm(stage).boxed_local()).quick(),
        cell("frozen and continued", |stage| frozen(stage).boxed_local()),
        cell("frozen while it writes", |stage| frozen_writer(stage).boxed_local()),
        cell("rolling restart", |stage| rolling_restart(stage).boxed_local()).quick(),
    ]
}

const fn cell(name: &'static str, fault: super::Fault) -> Cell {
    Cell::new("worker", name, fault)
}

/// Every worker dies at a moment, again and again, at different passings.
async fn killed_at(stage: &mut Stage, moment: &str, passings: u32) {
    let first = stage.fleet.starts();
    let enough = first + 3 * u32::try_from(stage.fleet.size()).unwrap_or(u32::MAX);
    let end = Instant::now() + stage.wanted.window;
    while Instant::now() < end || stage.fleet.starts() < enough {
        let passing = stage.rng.u32(1..=passings);
        stage.fleet.set("RABBITRY_FAILPOINTS", &format!("{moment}=kill@{passing}"));
        if stage.fleet.starts() == first {
            stage.kill_all();
        }
        sleep(Duration::from_millis(100)).await;
        if Instant::now() > end + DEATHS_MAX {
            stage.wrong(format!("the fault did not happen: workers do not die at {moment}"));
            break;
        }
    }
    stage.disarm();
}

async fn armed(stage: &mut Stage, failpoints: &str) {
    stage.arm(failpoints);
    stage.go_on(1.0).await;
    stage.disarm();
}

/// A random worker dies every half second.
async fn storm(stage: &mut Stage) {
    let kill = async |stage: &mut Stage| {
        let worker = stage.random_worker();
        stage.fleet.signal(worker, Signal::KILL);
    };
    stage.until_over(Duration::from_millis(500), kill).await;
}

/// A worker that is away for so long that its deliveries went to others comes back and goes on where it was.
async fn frozen(stage: &mut Stage) {
    let end = Instant::now() + stage.wanted.window;
    loop {
        let worker = stage.random_worker();
        stage.fleet.signal(worker, Signal::STOP);
        sleep(FROZEN).await;
        stage.fleet.signal(worker, Signal::CONT);
        stage.go_on(0.1).await;
        if Instant::now() > end {
            break;
        }
    }
}

/// The frozen one holds the write lock: on SQLite everyone waits until it goes on.
async fn frozen_writer(stage: &mut Stage) {
    stage.arm("before_commit=stop@20");
    stage.go_on(0.3).await;
    sleep(FROZEN).await;
    stage.fleet.unset("RABBITRY_FAILPOINTS");
    stage.fleet.signal_all(Signal::CONT);
    stage.go_on(0.5).await;
    // The others get there too.
    stage.disarm();
}

/// One worker after another is ended in an orderly way and started again. No client is told of it.
async fn rolling_restart(stage: &mut Stage) {
    let before = failed(stage);
    let end = Instant::now() + stage.wanted.window;
    let mut worker = 0;
    while Instant::now() < end {
        let old = stage.fleet.pid(worker);
        stage.fleet.signal(worker, Signal::TERM);
        stage.fleet.wait_for_another(worker, old).await;
        // It has to be at work before the next one goes.
        let workers = u32::try_from(stage.fleet.size()).unwrap_or(u32::MAX);
        for queue in ["users.create", "users.get", "users.award", "users.promote"] {
            stage.vhost.wait_for_consumers(queue, workers).await;
        }
        worker = (worker + 1) % stage.fleet.size();
    }
    let failed = failed(stage) - before;
    if failed > 0 {
        stage.wrong(format!("{failed} commands failed for their clients"));
    }
}

/// Commands that were answered by an error of ours.
fn failed(stage: &Stage) -> usize {
    let asks = stage.workload.recorder.asks();
    asks.iter().filter(|ask| ask.replies.iter().any(|reply| reply.status >= 500)).count()
}
