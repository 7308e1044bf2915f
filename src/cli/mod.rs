//! `rabbitry`: the producer of users commands, and the operator's tools.

mod failure;
mod output;
mod send;

use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    amqp::{
        client::Client,
        connection::{BrokerUrl, process_name},
    },
    config::BrokerArgs,
};
pub use failure::Failure;
use output::Format;
use send::{SendArgs, UserCommand};

/// Sends users commands over RabbitMQ and shows the replies.
#[derive(Debug, Parser)]
#[command(name = "rabbitry", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Print JSON, as is done when the output is piped
    #[arg(long, global = true)]
    json: bool,
    /// Seconds until the outcome must be known; the command is not executed later
    #[arg(long, global = true, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    timeout: Duration,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    #[command(flatten)]
    User(UserCommand),
    /// Send a command as JSON; `-` reads one command a line from standard input
    Send(SendArgs),
    /// Print a script that completes commands and flags in a shell
    Completions {
        /// For which shell
        shell: Shell,
    },
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() && duration <= Duration::from_secs(86_400) => Ok(duration),
        _ => {
            Err("a time-out lies between 0 and 86400 seconds; clients send again for at most a day"
                .to_owned())
        }
    }
}

/// Runs the program; a [`Failure`] carries its exit code.
///
/// # Errors
/// [`Failure`].
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let format = Format::choose(cli.json);
    match cli.action {
        Action::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "rabbitry", &mut std::io::stdout());
            Ok(())
        }
        Action::User(command) => {
            let producer = Producer::connect(&cli.broker, cli.timeout).await?;
            send::run_one(producer, command.into_command(), format).await
        }
        Action::Send(args) => {
            let producer = Producer::connect(&cli.broker, cli.timeout).await?;
            send::run(producer, args, format).await
        }
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
        let client = Client::connect(url, "users", &name).await?;
        Ok(Self { client, timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_line_can_be_read() {
        Cli::command().debug_assert();
        let lines = [
            "create ann --email ann@example.com --points 5",
            "get ann --json",
            "award ann -25 --message-id m1 -v",
            "promote ann --no-wait --timeout 0.5",
            "list --after ann --limit 1000",
            "send create - --in-flight 4 --json",
            "completions bash",
        ];
        for line in lines {
            let words = std::iter::once("rabbitry").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }
}
