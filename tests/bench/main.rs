//! The benchmark: the real worker beside a bare echo, in turn, on one broker. `make bench` runs it.
//!
//! It is a program and not a test: on a machine that others use, a figure of one run proves nothing, but the ratio of
//! two windows that lie side by side tells something, and the median of many such pairs more.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod broker;
mod echo;
mod import;
mod interval;
mod load;
mod pairs;
mod proc;
mod report;
mod side;
mod store;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, unused_imports, clippy::unwrap_used, reason = "the integration tests use the rest")]
mod support;
mod work;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use clap::Parser;
use rabbitry::{config::BrokerArgs, shutdown};

use broker::Broker;
use pairs::Plan;
use report::Report;
use side::Reference;
use work::Command;

/// Measures the worker beside a bare echo, and writes bench.md and bench.json.
#[derive(Debug, Parser)]
struct Args {
    /// Pairs of windows for each row
    #[arg(long, default_value_t = 15)]
    pairs: usize,
    /// Length of a window
    #[arg(long, default_value_t = 800, value_name = "MILLISECONDS")]
    window: u64,
    /// The commands
    #[arg(long, value_delimiter = ',', default_values = ["create", "get"])]
    commands: Vec<Command>,
    /// Commands in flight
    #[arg(long, value_delimiter = ',', default_values = ["1", "16", "64", "256"])]
    in_flight: Vec<usize>,
    /// Few and short windows: about a minute
    #[arg(long, conflicts_with_all = ["pairs", "window"])]
    quick: bool,
    /// One short pair for each command: only shows that everything still runs
    #[arg(long, conflicts_with_all = ["quick", "pairs", "window", "in_flight"])]
    smoke: bool,
    /// Also import that many rows
    #[arg(long, value_name = "N")]
    import_rows: Option<u64>,
    /// Fail if an aim is missed
    #[arg(long)]
    check: bool,
    /// The worker to measure
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_users-worker"))]
    worker: PathBuf,
    /// Measure beside another build of the worker instead of the echo
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
    /// Measure beside the loop that one writes by hand, which replies and acknowledges message by message
    #[arg(long, conflicts_with = "against")]
    by_hand: bool,
    /// Be the echo, or the loop
    #[arg(long, hide = true, value_name = "QUEUE")]
    echo: Option<String>,
    #[command(flatten)]
    broker: BrokerArgs,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.echo {
        Some(queue) => echo(&args, queue).map(|()| ExitCode::SUCCESS),
        None => bench(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

/// With the runtime that most programs have.
#[tokio::main]
async fn echo(args: &Args, queue: &str) -> Result<()> {
    let url = args.broker.broker()?;
    if args.by_hand { echo::run_by_hand(&url, queue).await } else { echo::run(&url, queue).await }
}

/// With a runtime that takes little from what is measured.
#[tokio::main(flavor = "current_thread")]
async fn bench(args: &Args) -> Result<ExitCode> {
    let stop = shutdown::on_signal()?;
    tokio::select! {
        code = measure(args) => code,
        // What was started ends with this future: a worker that stays behind would take other people's commands.
        () = stop.cancelled() => bail!("interrupted"),
    }
}

async fn measure(args: &Args) -> Result<ExitCode> {
    let broker = Broker::find()?;
    let plan = args.plan();
    let mut rows = Vec::new();
    for &command in &args.commands {
        for &in_flight in args.in_flight() {
            eprintln!("{} with {in_flight} in flight", command.name());
            rows.push(pairs::measure(&plan, &broker, command, in_flight).await?);
        }
    }
    let import = match args.import_rows {
        Some(rows) => Some(import::measure(&broker, &args.worker, rows).await?),
        None => None,
    };
    let report = Report::new(&plan, rows, import);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    println!("{}", report.write(&folder)?);
    println!("bench.md and bench.json are in {}", folder.display());
    Ok(if args.check && !report.all_aims_are_met() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Args {
    fn plan(&self) -> Plan {
        let (pairs, window) = match self {
            Self { smoke: true, .. } => (1, 100),
            Self { quick: true, .. } => (7, 300),
            _ => (self.pairs.max(1), self.window),
        };
        let window = Duration::from_millis(window);
        Plan {
            pairs,
            window,
            warm_up: window.min(Duration::from_millis(500)),
            worker: self.worker.clone(),
            reference: match &self.against {
                Some(worker) => Reference::Worker(worker.clone()),
                None if self.by_hand => Reference::Loop,
                None => Reference::Echo,
            },
        }
    }

    fn in_flight(&self) -> &[usize] {
        if self.smoke { &[16] } else { &self.in_flight }
    }
}
