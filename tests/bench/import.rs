//! The rate of `rabbitry import`.

use std::{
    fmt,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::{process::Command, time::timeout};

use crate::{
    broker::Broker,
    proc::peak_kib,
    side::{self, Side},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_rabbitry");

/// What an import came to.
#[derive(Debug, Serialize)]
pub(crate) struct Import {
    rows: u64,
    seconds: f64,
    producer_mib: u64,
    worker_mib: u64,
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, seconds, producer_mib, worker_mib } = self;
        write!(
            f,
            "`rabbitry import` of {rows} rows: {seconds:.1} s, {:.0} rows/s; at most {producer_mib} MiB of memory in \
             the producer, {worker_mib} MiB in the worker.",
            *rows as f64 / seconds
        )
    }
}

/// Imports that many generated rows into an empty store, with one worker.
pub(crate) async fn measure(broker: &Broker, worker: &Path, rows: u64) -> Result<Import> {
    ensure!(exists().await?, "this build has no `rabbitry import`");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("users.csv");
    generate(&file, rows)?;
    let worker = side::worker(broker, side::VHOST, worker, "create").await?;
    let imported = run(broker, &worker, folder.path(), &file, rows).await;
    worker.stop().await?;
    imported
}

async fn exists() -> Result<bool> {
    let mut help = Command::new(PROGRAM);
    help.args(["import", "users.create", "--help"]).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(help.status().await?.success())
}

async fn run(broker: &Broker, worker: &Side, folder: &Path, file: &Path, rows: u64) -> Result<Import> {
    let mut producer = Command::new(PROGRAM)
        .args(["import", "users.create"])
        .arg(file)
        .current_dir(folder)
        .env("AMQP_URL", broker.url_text(side::VHOST))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = producer.id().context("it has ended")?;
    let began = Instant::now();
    let mut producer_kib = 0;
    let status = loop {
        // Its peak can be read only while it lives.
        match timeout(Duration::from_millis(100), producer.wait()).await {
            Ok(status) => break status?,
            Err(_) => producer_kib = peak_kib(pid).unwrap_or(producer_kib),
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    ensure!(status.success(), "`rabbitry import` ended with {status}");
    let worker_mib = peak_kib(worker.pid()?).unwrap_or(0) / 1024;
    Ok(Import { rows, seconds, producer_mib: producer_kib / 1024, worker_mib })
}

fn generate(path: &Path, rows: u64) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "username,email,points")?;
    for row in 0..rows {
        writeln!(file, "user{row:07},user{row:07}@example.com,{}", row % 200)?;
    }
    Ok(file.flush()?)
}
