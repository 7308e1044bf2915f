//! Two services on one broker and in one store: the workers of both are killed, and all lines are cut.

use std::time::Duration;

use futures::FutureExt;
use rustix::process::Signal;

use super::Cell;
use crate::{bank, stage::Stage};

pub fn cells() -> Vec<Cell> {
    vec![
        cell("workers killed", |stage| killed(stage).boxed_local()).quick(),
        cell("lines reset", |stage| reset(stage).boxed_local()),
        cell("killed before ack", |stage| armed(stage).boxed_local()),
    ]
}

const fn cell(name: &'static str, fault: super::Fault) -> Cell {
    Cell::new("bank", name, fault)
}

async fn killed(stage: &mut Stage) {
    let bank = bank::Open::begin(stage).await;
    let kill = async |stage: &mut Stage| {
        bank.fleet.signal(stage.rng.usize(..bank.fleet.size()), Signal::KILL);
        let worker = stage.random_worker();
        stage.fleet.signal(worker, Signal::KILL);
    };
    stage.until_over(Duration::from_millis(400), kill).await;
    expect_deaths(stage, &bank);
    bank.end(stage).await;
}

async fn reset(stage: &mut Stage) {
    let bank = bank::Open::begin(stage).await;
    let cut = async |stage: &mut Stage| {
        stage.workers_line.reset();
        stage.clients_line.reset();
    };
    stage.until_over(Duration::from_secs(1), cut).await;
    bank.end(stage).await;
}

/// Every worker dies with replies sent and nothing acknowledged, again and again.
async fn armed(stage: &mut Stage) {
    let bank = bank::Open::begin(stage).await;
    bank.fleet.set("RABBITRY_FAILPOINTS", "before_ack=kill@5%");
    bank.fleet.signal_all(Signal::KILL);
    stage.go_on(1.0).await;
    bank.fleet.unset("RABBITRY_FAILPOINTS");
    bank.fleet.signal_all(Signal::KILL);
    expect_deaths(stage, &bank);
    bank.end(stage).await;
}

/// A fault that did not happen proves nothing.
fn expect_deaths(stage: &mut Stage, bank: &bank::Open) {
    let starts = bank.fleet.starts();
    if starts < 6 {
        stage.wrong(format!("the fault did not happen: the bank's workers were started {starts} times"));
    }
}
