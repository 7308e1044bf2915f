//! `rabbitry`: the producer of users commands, and the operator's tools.

mod dead_letters;
mod export;
mod failure;
mod files;
mod import;
mod lines;
mod output;
mod send;
mod status;
mod store;
mod topology;

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    amqp::{
        client::Client,
        connection::{BrokerUrl, process_name},
    },
    config::BrokerArgs,
    exit,
    limits::{CALL_TIMEOUT, IMPORT_TIMEOUT},
    users::SERVICE,
};
use dead_letters::DeadLetters;
use export::ExportArgs;
pub use failure::Failure;
use import::ImportArgs;
use output::Format;
pub use output::report_failure;
use send::{SendArgs, UserCommand};
use status::StatusArgs;
use store::StoreCommand;
use topology::TopologyArgs;

/// Sends users commands over RabbitMQ and shows the replies.
#[derive(Debug, Parser)]
#[command(name = "rabbitry", version, max_term_width = 100)]
pub struct Cli {
    /// Print JSON, as is done when the output is piped
    #[arg(long, global = true)]
    json: bool,
    /// Seconds until the outcome must be known; the command is not executed later (default: 10; for each message of an
    /// import: 300)
    #[arg(long, global = true, value_name = "SECONDS", value_parser = time_out)]
    timeout: Option<Duration>,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(subcommand)]
    action: Action,
}

impl Cli {
    /// Whether [`run`] itself ends when it is interrupted, as it has something to tell then.
    pub fn tells_of_interruption(&self) -> bool {
        matches!(self.action, Action::Import(_))
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    #[command(flatten)]
    User(UserCommand),
    /// Send a command as JSON; `-` reads one command a line from standard input
    Send(SendArgs),
    /// Copy the store into a file, or check that one is whole
    Store(StoreCommand),
    /// Show the queues, the dead letters, the workers and the broker
    Status(StatusArgs),
    /// What was set aside: look at it, send it again, drop it
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// The exchanges, queues, bindings and policies that the service needs
    Topology(TopologyArgs),
    Import(ImportArgs),
    Export(ExportArgs),
    /// Print a script that completes commands and flags in a shell
    Completions {
        /// For which shell
        shell: Shell,
    },
}

fn time_out(text: &str) -> Result<Duration, String> {
    seconds("time-out", text)
}

/// At most a day, in which a worker has to know an id again.
fn seconds(what: &str, text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() && duration <= Duration::from_secs(86_400) => Ok(duration),
        _ => Err(format!("a {what} is above 0 and at most 86400 seconds")),
    }
}

/// Ends a program whose command line is wrong, or asks for help; as far as that can be told, in the form that the command
/// line asks for.
pub fn end_before_it_began(error: &clap::Error) -> ExitCode {
    let code = u8::try_from(error.exit_code()).unwrap_or(exit::USAGE);
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        Format::choose(true);
        let text = error.to_string();
        report_failure(&Failure::new(code, text.trim_start_matches("error: ").trim_end()));
    } else {
        // That it cannot be printed changes nothing.
        let _ = error.print();
    }
    code.into()
}

/// Runs the program; a [`Failure`] carries its exit code.
///
/// # Errors
/// [`Failure`].
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let format = Format::choose(cli.json);
    let connect = |default| Producer::connect(&cli.broker, cli.timeout.unwrap_or(default));
    match cli.action {
        Action::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "rabbitry", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end())
        }
        Action::Store(command) => store::run(command, format).await,
        Action::Status(args) => status::run(&cli.broker, args, format).await,
        Action::DeadLetters(action) => {
            dead_letters::run(&cli.broker, action, cli.timeout.unwrap_or(CALL_TIMEOUT), format).await
        }
        Action::Topology(args) => topology::run(&cli.broker, args, format).await,
        Action::User(command) => {
            send::run_one(connect(CALL_TIMEOUT).await?, command.into_command(), format).await
        }
        Action::Send(args) => send::run(connect(CALL_TIMEOUT).await?, args, format).await,
        Action::Import(args) => import::run(args, || connect(IMPORT_TIMEOUT), format).await,
        Action::Export(args) => export::run(connect(CALL_TIMEOUT).await?, args).await,
    }
}

/// A connected client and how long it waits.
struct Producer {
    client: Client,
    timeout: Duration,
}

impl Producer {
    async fn connect(broker: &BrokerArgs, timeout: Duration) -> Result<Self, Failure> {
        let url: BrokerUrl = broker.broker()?;
        let name = format!("rabbitry {}", process_name());
        let client = Client::connect(url, SERVICE, &name).await?;
        Ok(Self { client, timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_global_flags_are_taken_before_and_after_every_command() {
        let lines: [&[&str]; 4] = [&["get", "ann"], &["send", "get", "{}"], &["store", "check"], &["list"]];
        for line in lines {
            let global = ["--json", "--timeout", "3"];
            for line in [[&global[..], line].concat(), [line, &global[..]].concat()] {
                let cli = Cli::try_parse_from([&["rabbitry"], &line[..]].concat()).unwrap();
                assert!(cli.json && cli.timeout == Some(Duration::from_secs(3)), "{line:?}");
            }
        }
    }
}
