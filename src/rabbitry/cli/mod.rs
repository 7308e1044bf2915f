//! `rabbitry`: the producer of commands, and the operator's tools, for any services.

mod about;
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

use clap::{ArgMatches, Args, FromArgMatches, Subcommand, builder::PossibleValuesParser};
use clap_complete::Shell;

pub use about::About;
use dead_letters::DeadLetters;
use export::ExportArgs;
use failure::Failure;
use import::ImportArgs;
use output::{Format, report_failure};
use send::{SendArgs, Sending};
use status::StatusArgs;
use store::StoreCommand;
use topology::TopologyArgs;

use crate::{
    amqp::{
        client::{CallError, Client, Command},
        connection::{BrokerUrl, process_name},
    },
    config::BrokerArgs,
    exit,
    limits::{CALL_TIMEOUT, IMPORT_TIMEOUT},
    service::Access,
    stack,
};

/// Runs the program, for these services: `rabbitry users create ann --email ann@example.com` and so on.
pub fn main(services: &[About]) -> ExitCode {
    stack::with_room(|| program(services))
}

fn program(services: &[About]) -> ExitCode {
    let cli = match Cli::parse(services) {
        Ok(cli) => cli,
        Err(error) => return end_before_it_began(&error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::new(exit::INTERNAL, error.to_string())),
    };
    // An import itself ends when it is interrupted, as it has something to tell then.
    let tells = matches!(cli.action, Action::Tool(Tool::Import(_)));
    let result = runtime.block_on(async {
        tokio::select! {
            result = run(services, cli) => result,
            _ = tokio::signal::ctrl_c(), if !tells => Err(Failure::new(exit::INTERRUPTED, "interrupted")),
        }
    });
    // A read of standard input cannot be interrupted, and must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    report_failure(failure);
    failure.code.into()
}

/// Ends a program whose command line is wrong, or asks for help; as far as that can be told, in the form that the command
/// line asks for.
fn end_before_it_began(error: &clap::Error) -> ExitCode {
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

/// A command line that was read.
#[derive(Debug)]
struct Cli {
    global: Global,
    action: Action,
}

#[derive(Debug, Args)]
struct Global {
    /// Print JSON, as is done when the output is piped
    #[arg(long, global = true)]
    json: bool,
    /// Seconds until the outcome must be known; the command is not executed later (default: 10; for each message of an
    /// import: 300)
    #[arg(long, global = true, value_name = "SECONDS", value_parser = time_out)]
    timeout: Option<Duration>,
    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Debug)]
enum Action {
    /// A command of a service, with the payload that its flags stand for.
    Command {
        service: String,
        command: String,
        payload: Vec<u8>,
        sending: Sending,
    },
    Tool(Tool),
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Send a command as JSON; `-` reads one command a line from standard input
    Send(SendArgs),
    Import(ImportArgs),
    Export(ExportArgs),
    /// Show the queues, the dead letters, the workers and the broker
    Status(StatusArgs),
    /// What was set aside: look at it, send it again, drop it
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// The exchanges, queues, bindings and policies that the services need
    Topology(TopologyArgs),
    /// Copy a store into a file, or check that one is whole
    Store(StoreCommand),
    /// Print a script that completes commands and flags in a shell
    Completions {
        /// For which shell
        shell: Shell,
    },
}

impl Cli {
    fn parse(services: &[About]) -> Result<Self, clap::Error> {
        Self::of(services, &line(services).try_get_matches()?)
    }

    fn of(services: &[About], matches: &ArgMatches) -> Result<Self, clap::Error> {
        let global = Global::from_arg_matches(matches)?;
        let of_service = matches.subcommand().and_then(|(name, rest)| {
            let service = services.iter().find(|service| service.name == name)?;
            Some((service, rest.subcommand()?))
        });
        let action = match of_service {
            None => Action::Tool(Tool::from_arg_matches(matches)?),
            Some((service, (command, flags))) => Action::Command {
                service: service.name.to_owned(),
                command: command.to_owned(),
                payload: (service.payload)(command, flags)?,
                sending: Sending::from_arg_matches(flags)?,
            },
        };
        Ok(Self { global, action })
    }
}

/// What can be written on the command line.
fn line(services: &[About]) -> clap::Command {
    let line = Global::augment_args(clap::Command::new("rabbitry"))
        .version(env!("CARGO_PKG_VERSION"))
        .about("Sends commands over RabbitMQ and shows the replies")
        .max_term_width(100)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(services.iter().map(verbs));
    let services_named = PossibleValuesParser::new(services.iter().map(|service| service.name));
    let named = |is_wanted: fn(&About, &str) -> bool| {
        let names = services.iter().flat_map(|service| {
            let wanted = service.commands.iter().filter(|command| is_wanted(service, command.name));
            wanted.map(|command| format!("{}.{}", service.name, command.name))
        });
        PossibleValuesParser::new(names.collect::<Vec<_>>())
    };
    let any = named(|_, _| true);
    let writes = named(|service, name| !service.is_read(name));
    Tool::augment_subcommands(line)
        .mut_subcommand("send", |line| with_values(line, "command", &any))
        .mut_subcommand("import", |line| with_values(with_values(line, "command", &writes), "then", &writes))
        .mut_subcommand("export", |line| with_values(line, "service", &services_named))
        .mut_subcommand("store", |line| with_values(line, "service", &services_named))
        .mut_subcommand("dead-letters", |line| {
            line.mut_subcommands(|line| with_values(line, "command", &any))
        })
}

/// Lets an argument have no other values. (`mut_arg` would put it behind the others.)
fn with_values(line: clap::Command, argument: &str, values: &PossibleValuesParser) -> clap::Command {
    line.mut_args(|found| match found.get_id() == argument {
        true => found.value_parser(values.clone()),
        false => found,
    })
}

/// The verbs of a service: its commands.
fn verbs(service: &About) -> clap::Command {
    let verb = |spec: &crate::Spec| {
        // The command's own words stand above the flags of sending.
        let line = Sending::augment_args(clap::Command::new(spec.name));
        (service.flags)(spec.name, line)
    };
    clap::Command::new(service.name)
        .about(format!("Send a command to the {} service", service.name))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(service.commands.iter().map(verb))
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

async fn run(services: &[About], cli: Cli) -> Result<(), Failure> {
    let Cli { global, action } = cli;
    let format = Format::choose(global.json);
    let broker = &global.broker;
    let timeout = global.timeout.unwrap_or(CALL_TIMEOUT);
    let tool = match action {
        Action::Tool(tool) => tool,
        Action::Command { service, command, payload, sending } => {
            let (about, spec) = named(services, &format!("{service}.{command}"))?;
            let producer = Producer::connect(about, broker, timeout).await?;
            return send::run_one(producer, spec.name, payload, sending, format).await;
        }
    };
    match tool {
        Tool::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut line(services), "rabbitry", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end())
        }
        Tool::Store(command) => store::run(services, command, format).await,
        Tool::Status(args) => status::run(services, broker, args, format).await,
        Tool::DeadLetters(action) => dead_letters::run(services, broker, action, timeout, format).await,
        Tool::Topology(args) => topology::run(services, broker, args, format).await,
        Tool::Send(args) => {
            let (about, _) = named(services, &args.command)?;
            send::run(Producer::connect(about, broker, timeout).await?, args, format).await
        }
        Tool::Import(args) => {
            let (about, _) = named(services, &args.command)?;
            let timeout = global.timeout.unwrap_or(IMPORT_TIMEOUT);
            import::run(services, args, || Producer::connect(about, broker, timeout), format).await
        }
        Tool::Export(args) => {
            let about = chosen(services, Some(&args.service))?;
            export::run(Producer::connect(about, broker, timeout).await?, args).await
        }
    }
}

/// The service and the command that `users.create` names.
fn named<'a>(services: &'a [About], name: &str) -> Result<(&'a About, crate::Spec), Failure> {
    about::find(services, name)
        .ok_or_else(|| Failure::new(exit::USAGE, format!("there is no command {name:?}")))
}

/// The service with this name, or the only one.
fn chosen<'a>(services: &'a [About], name: Option<&str>) -> Result<&'a About, Failure> {
    match (name, services) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::new(exit::USAGE, "which service? --service says it")),
        (Some(name), _) => services
            .iter()
            .find(|service| service.name == name)
            .ok_or_else(|| Failure::new(exit::USAGE, format!("there is no service {name:?}"))),
    }
}

/// A connected client of a service, and how long it waits.
struct Producer<'a> {
    about: &'a About,
    client: Client,
    timeout: Duration,
}

impl<'a> Producer<'a> {
    async fn connect(about: &'a About, broker: &BrokerArgs, timeout: Duration) -> Result<Self, Failure> {
        let url: BrokerUrl = broker.broker()?;
        let name = format!("rabbitry {}", process_name());
        let client = Client::connect(url, about.name, &name).await?;
        Ok(Self { about, client, timeout })
    }

    /// Why a command has no answer.
    fn failure(&self, error: &CallError, command: &Command) -> Failure {
        let access = if self.about.is_read(&command.name) { Access::Read } else { Access::Write };
        Failure::of_call(error, Some((command, access)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::Toys;

    #[test]
    fn the_command_line_is_consistent() {
        line(&[About::of::<Toys>()]).debug_assert();
    }

    #[test]
    fn the_global_flags_are_taken_before_and_after_every_command() {
        let services = [About::of::<Toys>()];
        let lines: [&[&str]; 4] =
            [&["toys", "get", "ann"], &["send", "toys.get", "{}"], &["store", "check"], &["toys", "list"]];
        for words in lines {
            let global = ["--json", "--timeout", "3"];
            for words in [[&global[..], words].concat(), [words, &global[..]].concat()] {
                let matches = line(&services).try_get_matches_from([&["rabbitry"], &words[..]].concat());
                let cli = Cli::of(&services, &matches.unwrap()).unwrap();
                assert!(cli.global.json && cli.global.timeout == Some(Duration::from_secs(3)), "{words:?}");
            }
        }
    }
}
