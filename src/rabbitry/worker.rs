//! The program of a worker: takes a service's commands from RabbitMQ, runs them on the store, and replies.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Args, FromArgMatches, builder::PossibleValuesParser};
use tracing::{error, info, warn};

use crate::{
    Service, Spec,
    amqp::{
        reply_to,
        server::{Server, Settings, StartError, Stopped},
    },
    config::{BrokerArgs, ConfigError, LogArgs, StoreArgs},
    exit,
    limits::BATCH_MAX,
    shutdown, stack,
    store::{self, OpenError},
    telemetry,
};

#[derive(Debug, Args)]
struct WorkerArgs {
    /// The commands to serve [default: all]
    #[arg(long, env = "WORKER_COMMANDS", value_delimiter = ',', value_name = "COMMAND,…")]
    commands: Vec<String>,
    /// Commands in one transaction at most; twice as many are prefetched from each queue
    #[arg(long, env = "BATCH_MAX", default_value_t = BATCH_MAX, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch_max: u16,
    #[arg(long, env = "REPLY_TO", value_delimiter = ',', value_name = "PATTERN,…", default_values = reply_to::TRUSTED,
          hide_default_value = true, help = reply_to_help())]
    reply_to: Vec<String>,
    /// Seconds that finishing may take after a signal
    #[arg(long, env = "SHUTDOWN_TIMEOUT", default_value_t = 25, value_name = "SECONDS")]
    shutdown_timeout: u64,
    /// Consume also beside workers of another store, instead of waiting until they are gone
    #[arg(long, env = "ALLOW_OTHER_STORES", value_parser = clap::builder::FalseyValueParser::new())]
    allow_other_stores: bool,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    logs: LogArgs,
}

/// With the default as it has to be written: clap would show it without the commas.
fn reply_to_help() -> String {
    let default = reply_to::TRUSTED.join(",");
    format!("Patterns of the reply queues that are answered, beside direct reply-to [default: {default}]")
}

/// Runs a worker of a service, with the command line and the environment of the process, until a signal ends it.
///
/// Returns the exit code: 0 if nothing was left unfinished, 75 if something was (it is delivered again), 78 for a wrong
/// configuration, 77 for a right that is missing.
pub fn main<S: Service>() -> ExitCode {
    stack::with_room(program::<S>)
}

fn program<S: Service>() -> ExitCode {
    let args = parse::<S>();
    if let Err(error) = telemetry::init(&args.logs) {
        telemetry::report(format_args!("{}-worker: {error}", S::NAME));
        return exit::CONFIG.into();
    }
    match run::<S>(args) {
        Ok(Stopped::Finished) => ExitCode::SUCCESS,
        Ok(Stopped::Unfinished) => exit::TRY_AGAIN.into(),
        Err(failure) => {
            error!("the worker did not start: {failure:#}");
            exit_code(&failure).into()
        }
    }
}

/// Reads the command line, or ends the process with what is wrong with it.
fn parse<S: Service>() -> WorkerArgs {
    let about = format!(
        "Takes {} commands from RabbitMQ, runs them on the store, and replies. Start it again to go faster; on SQLite, on \
         the same machine.",
        S::NAME
    );
    let names = PossibleValuesParser::new(S::COMMANDS.iter().map(|command| command.name));
    let line = WorkerArgs::augment_args(clap::Command::new(format!("{}-worker", S::NAME)))
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .mut_arg("commands", |argument| argument.value_parser(names));
    WorkerArgs::from_arg_matches(&line.get_matches()).unwrap_or_else(|error| error.exit())
}

fn exit_code(failure: &anyhow::Error) -> u8 {
    if let Some(error) = failure.downcast_ref::<ConfigError>() {
        return error.exit;
    }
    if let Some(OpenError::Refused(_)) = failure.downcast_ref() {
        return exit::CONFIG;
    }
    match failure.downcast_ref() {
        Some(StartError::Missing { .. }) => exit::CONFIG,
        Some(StartError::NotPermitted(_)) => exit::NOT_PERMITTED,
        None => exit::INTERNAL,
    }
}

/// On one thread: store and connections have threads of their own, what is left for a command takes microseconds, and
/// tasks on one thread wake each other without the kernel.
fn run<S: Service>(args: WorkerArgs) -> anyhow::Result<Stopped> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stopped = runtime.block_on(work::<S>(args));
    // A name that is being looked up cannot be interrupted, and must not hold up the end.
    runtime.shutdown_background();
    stopped
}

async fn work<S: Service>(args: WorkerArgs) -> anyhow::Result<Stopped> {
    #[cfg(feature = "failpoints")]
    crate::failpoints::arm()?;
    let url = args.broker.broker()?;
    let database = args.store.store(S::NAME)?;
    let stop = shutdown::on_signal().context("cannot listen for signals")?;
    let store = tokio::select! {
        store = store::open_when_there(&database, store::Options::default()) => {
            store.map_err(|error| error.of_setting(&args.store.setting()))?
        }
        () = stop.cancelled() => return Ok(Stopped::Finished),
    };
    if database.starts_with("sqlite:") && !url.is_local() {
        warn!(broker = %url, "the store is a file of this machine, the broker is elsewhere: workers on other machines would not see what it keeps");
    }
    let commands = S::COMMANDS.iter().copied().filter(|command| serves(&args.commands, command));
    let mut settings = Settings::new(&commands.collect::<Vec<_>>());
    settings.batch_max = args.batch_max;
    settings.reply_to = args.reply_to;
    settings.shutdown_timeout = Duration::from_secs(args.shutdown_timeout);
    settings.store = store::describe_from_afar(&database);
    settings.allow_other_stores = args.allow_other_stores;
    info!(version = env!("CARGO_PKG_VERSION"), broker = %url, store = settings.store, "worker starts");
    Ok(Server::<S>::new(store, url, settings).run(stop).await?)
}

/// All of them, unless some are named.
fn serves(named: &[String], command: &Spec) -> bool {
    named.is_empty() || named.iter().any(|name| name == command.name)
}
