//! The two that are compared: each a process of its own with a load generator of its own.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{broker::Broker, load::Generator, support::database::Database};

const ECHO_QUEUE: &str = "bench.echo";
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// The virtual host of the delivered topology, and the one of a second worker.
pub(crate) const VHOST: &str = "/";
const SECOND_VHOST: &str = "bench-reference";

/// What the worker is compared with.
#[derive(Debug, Clone)]
pub(crate) enum Reference {
    Echo,
    Loop,
    /// Another build of the worker.
    Worker(PathBuf),
}

impl Reference {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Loop => "loop",
            Self::Worker(_) => "reference",
        }
    }

    pub(crate) async fn start(&self, broker: &Broker, command: &str) -> Result<Side> {
        match self {
            Self::Echo => echo(broker, &[]).await,
            Self::Loop => echo(broker, &["--by-hand"]).await,
            Self::Worker(program) => {
                broker.create_vhost(SECOND_VHOST)?;
                worker(broker, SECOND_VHOST, program, command).await
            }
        }
    }
}

/// A running process, and the connection that loads it.
pub(crate) struct Side {
    process: Child,
    pub(crate) generator: Generator,
    /// Deleted when the process has ended.
    _store: Option<Database>,
}

impl Side {
    pub(crate) fn pid(&self) -> Result<u32> {
        self.process.id().context("the process has ended")
    }

    /// Ends it without leaving anything unacknowledged.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let status = timeout(STOP_TIMEOUT, self.process.wait()).await.context("it does not stop")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

/// Starts a worker on a database of its own.
pub(crate) async fn worker(broker: &Broker, vhost: &str, program: &Path, command: &str) -> Result<Side> {
    broker.check_unused(vhost).await?;
    let store = Database::new();
    let process = Command::new(program)
        .env("AMQP_URL", broker.url_text(vhost))
        .env("DATABASE_URL", &store.url)
        .env("RUST_LOG", "warn,lapin=off")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let generator = Generator::connect(&broker.url(vhost)?, command).await?;
    Ok(Side { process, generator, _store: Some(store) })
}

/// Starts this program again, as the echo or the loop.
async fn echo(broker: &Broker, how: &[&str]) -> Result<Side> {
    broker.declare_echo(VHOST, ECHO_QUEUE).await?;
    let process = Command::new(std::env::current_exe()?)
        .args(["--echo", ECHO_QUEUE])
        .args(how)
        .env("AMQP_URL", broker.url_text(VHOST))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let generator = Generator::connect(&broker.url(VHOST)?, ECHO_QUEUE).await?;
    Ok(Side { process, generator, _store: None })
}
