//! Windows of the two sides in turn, so that whatever else this machine does meets both alike.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    broker::Broker,
    interval::Median,
    load::{Span, Window, histogram},
    proc::{Cost, Processes},
    side::{self, Reference, Side},
    store,
    work::{Command, Work},
};

/// A pair is measured again if either window lost more than this to others, in parts of one core: judged without a
/// look at its result, and as often in all as there are pairs.
const DISTURBED: f64 = 0.5;

/// How to measure.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    pub(crate) window: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) worker: PathBuf,
    pub(crate) reference: Reference,
}

/// What the windows of one side came to.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) commands: u64,
    /// The median of the windows.
    pub(crate) per_second: f64,
    /// Of all commands of all windows, in microseconds.
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    /// CPU of all its threads for one command, in microseconds.
    pub(crate) cpu_us: f64,
    /// The broker's.
    pub(crate) broker_us: f64,
    /// That of the store's server, if it has one.
    pub(crate) store_us: f64,
    /// The mean of the windows, in parts of one core.
    pub(crate) steal: f64,
    pub(crate) foreign: f64,
}

/// A command at one number in flight.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) command: Command,
    pub(crate) in_flight: usize,
    pub(crate) pairs: usize,
    /// Pairs that count although others disturbed them, as it went on and on.
    pub(crate) disturbed: usize,
    /// Pairs that were measured again.
    pub(crate) repeated: usize,
    pub(crate) reference: Figures,
    pub(crate) worker: Figures,
    /// Worker to reference, pair by pair.
    pub(crate) throughput: Median,
    pub(crate) p50: Median,
}

/// Both processes are new, and so is the database: a row does not depend on those before it.
pub(crate) async fn measure(plan: &Plan, broker: &Broker, command: Command, in_flight: usize) -> Result<Row> {
    let mut bench = Bench {
        worker: side::worker(broker, side::VHOST, &plan.worker, command.name()).await?,
        reference: plan.reference.start(broker, command.name()).await?,
        work: Work::new(command),
        broker: broker.pid,
        store: store::server(),
        in_flight,
    };
    bench.work.prepare(&mut bench.worker.generator).await?;
    if matches!(plan.reference, Reference::Worker(_)) {
        bench.work.prepare(&mut bench.reference.generator).await?;
    }
    let warm_up = Span { lead: plan.warm_up, length: Duration::ZERO };
    bench.pair(warm_up, false).await?;
    let measured = bench.pairs(plan).await?;
    bench.worker.stop().await?;
    bench.reference.stop().await?;
    Ok(measured.into_row(command, in_flight))
}

struct Bench {
    worker: Side,
    reference: Side,
    work: Work,
    broker: Option<u32>,
    store: Option<u32>,
    in_flight: usize,
}

/// A window of each side.
struct Pair {
    reference: Window,
    worker: Window,
}

#[derive(Default)]
struct Measured {
    pairs: Vec<Pair>,
    disturbed: usize,
    repeated: usize,
}

impl Bench {
    async fn pairs(&mut self, plan: &Plan) -> Result<Measured> {
        let span = Span { lead: plan.window / 8, length: plan.window };
        let mut measured = Measured::default();
        while measured.pairs.len() < plan.pairs {
            let pair = self.pair(span, measured.pairs.len() % 2 == 1).await?;
            let lost = |window: &Window| window.cost.steal + window.cost.foreign;
            let disturbed = lost(&pair.reference).max(lost(&pair.worker)) > DISTURBED;
            if disturbed && measured.repeated < plan.pairs {
                measured.repeated += 1;
                continue;
            }
            measured.disturbed += usize::from(disturbed);
            measured.pairs.push(pair);
        }
        Ok(measured)
    }

    async fn pair(&mut self, span: Span, worker_first: bool) -> Result<Pair> {
        if worker_first {
            let worker = self.window(span, true).await?;
            return Ok(Pair { worker, reference: self.window(span, false).await? });
        }
        let reference = self.window(span, false).await?;
        Ok(Pair { reference, worker: self.window(span, true).await? })
    }

    async fn window(&mut self, span: Span, of_worker: bool) -> Result<Window> {
        let (side, idle) = match of_worker {
            true => (&mut self.worker, &self.reference),
            false => (&mut self.reference, &self.worker),
        };
        let processes = Processes {
            server: side.pid()?,
            broker: self.broker,
            store: self.store,
            beside: vec![idle.pid()?, std::process::id()],
        };
        side.generator.window(&self.work, self.in_flight, span, &processes).await
    }
}

impl Measured {
    fn into_row(self, command: Command, in_flight: usize) -> Row {
        let ratio = |of: fn(&Window) -> f64| {
            Median::of(
                &self.pairs.iter().map(|pair| of(&pair.worker) / of(&pair.reference)).collect::<Vec<_>>(),
            )
        };
        Row {
            command,
            in_flight,
            pairs: self.pairs.len(),
            disturbed: self.disturbed,
            repeated: self.repeated,
            reference: figures(&self.pairs.iter().map(|pair| &pair.reference).collect::<Vec<_>>()),
            worker: figures(&self.pairs.iter().map(|pair| &pair.worker).collect::<Vec<_>>()),
            throughput: ratio(Window::per_second),
            p50: ratio(Window::p50),
        }
    }
}

fn figures(windows: &[&Window]) -> Figures {
    let mut latency: Histogram<u64> = histogram();
    windows.iter().for_each(|window| latency.add(&window.latency).expect("histograms of one kind"));
    let per_second: Vec<f64> = windows.iter().map(|window| window.per_second()).collect();
    let commands: u64 = windows.iter().map(|window| window.commands).sum();
    let sum = |of: fn(&Cost) -> f64| windows.iter().map(|window| of(&window.cost)).sum::<f64>();
    let count = windows.len() as f64;
    Figures {
        commands,
        per_second: Median::of(&per_second).median,
        p50_us: latency.value_at_quantile(0.5),
        p99_us: latency.value_at_quantile(0.99),
        cpu_us: sum(|cost| cost.server_us) / commands as f64,
        broker_us: sum(|cost| cost.broker_us) / commands as f64,
        store_us: sum(|cost| cost.store_us) / commands as f64,
        steal: sum(|cost| cost.steal) / count,
        foreign: sum(|cost| cost.foreign) / count,
    }
}
