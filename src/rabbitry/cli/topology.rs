//! `rabbitry topology`: the exchanges, queues, bindings and policies, applied and checked.

use std::{fs, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    About, Failure,
    output::{Format, print, print_table, table},
};
use crate::{
    config::{BrokerArgs, ConfigError, ManagementArgs},
    exit,
    management::{
        Management, ManagementError,
        topology::{self, Applied, Definitions, Object},
    },
};

/// What to do with the topology.
#[derive(Debug, Args)]
pub(super) struct TopologyArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    management: ManagementArgs,
    /// Definitions as RabbitMQ exports them, instead of the project's own; users and permissions in it are ignored
    #[arg(long, global = true, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The virtual host [default: the one of the broker's URL]
    #[arg(long, global = true, value_parser = vhost)]
    vhost: Option<String>,
}

/// An empty one comes of a variable that is not set.
fn vhost(text: &str) -> Result<String, String> {
    match text {
        "" | "." | ".." => Err("the management API can be asked for no such virtual host".to_owned()),
        _ if text.contains(char::is_control) => Err("it holds a control character".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Action {
    /// Create what is missing, set the policies, and read everything back
    Apply,
    /// Read everything back and change nothing
    Check,
    /// Print the definitions, as a broker loads them at its start
    Show,
}

/// Runs `rabbitry topology`.
pub(super) async fn run(
    services: &[About],
    broker: &BrokerArgs,
    args: TopologyArgs,
    format: Format,
) -> Result<(), Failure> {
    let wanted = definitions(services, args.file.as_ref())?;
    if args.action == Action::Show {
        return print(wanted.to_file().trim_end());
    }
    let vhost = match &args.vhost {
        Some(vhost) => vhost.clone(),
        None => broker.broker()?.vhost().to_owned(),
    };
    let management = Management::new(&args.management.management(broker)?)?;
    let applied = match args.action {
        Action::Show | Action::Apply => topology::apply(&management, &vhost, &wanted).await?,
        Action::Check => {
            let after = topology::check(&management, &vhost, &wanted).await?;
            Applied { before: after.clone(), after }
        }
    };
    report(&applied, &vhost, format)?;
    match told(&applied.after) {
        differences if differences.is_empty() => Ok(()),
        differences => Err(Failure::new(
            exit::CONFIG,
            format!(
                "the topology on virtual host {vhost:?} is not as it is wanted:\n{}",
                differences.join("\n")
            ),
        )),
    }
}

fn definitions(services: &[About], file: Option<&PathBuf>) -> Result<Definitions, ConfigError> {
    let Some(file) = file else {
        let services: Vec<_> = services.iter().map(|service| (service.name, service.commands)).collect();
        return Ok(Definitions::of(&services));
    };
    let in_file =
        |error: &dyn std::fmt::Display| ConfigError::new(format!("--file {}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| in_file(&error))?;
    Definitions::parse(&text).map_err(|error| in_file(&error))
}

/// Every difference as a line.
fn told(objects: &[Object]) -> Vec<String> {
    let lines = objects.iter().flat_map(|object| {
        object.differences.iter().map(move |difference| {
            let Object { kind, name, description, .. } = object;
            // Several bindings may have the same ends.
            let name = if *kind == "binding" { format!("{name} ({description})") } else { name.clone() };
            let topology::Difference { what, expected, found, advice } = difference;
            if object.found {
                format!("  {kind} {name}: {what}: expected {expected}, found {found}; {advice}")
            } else {
                format!("  {kind} {name}: {expected}, but it is {found}; {advice}")
            }
        })
    });
    lines.collect()
}

fn report(applied: &Applied, vhost: &str, format: Format) -> Result<(), Failure> {
    let states = applied.before.iter().zip(&applied.after).map(|(before, after)| state(before, after));
    let rows: Vec<_> = applied.after.iter().zip(states).collect();
    if format == Format::Json {
        let objects = rows.iter().map(|(object, state)| {
            let Object { kind, name, description, differences, .. } = object;
            json!({"kind": kind, "name": name, "description": description, "state": state, "differences": differences})
        });
        return print(&json!({"vhost": vhost, "objects": objects.collect::<Vec<_>>()}).to_string());
    }
    let mut table = table(&["KIND", "STATE", "NAME", ""]);
    for (object, state) in &rows {
        table.add_row([object.kind, state, object.name.as_str(), object.description.as_str()]);
    }
    print_table(&table)?;
    if rows.iter().all(|(_, state)| *state == "was there") {
        print(&format!("everything on virtual host {vhost:?} is as it is wanted"))?;
    }
    Ok(())
}

/// What became of an object, in a word or two.
fn state(before: &Object, after: &Object) -> &'static str {
    match (before.found && before.differences.is_empty(), after.found, after.differences.is_empty()) {
        (_, false, _) => "missing",
        (_, true, false) => "differs",
        (true, true, true) => "was there",
        (false, true, true) if before.found => "updated",
        (false, true, true) => "created",
    }
}

impl From<ManagementError> for Failure {
    fn from(error: ManagementError) -> Self {
        let (code, advice) = match &error {
            ManagementError::Unreachable { .. } => (
                exit::UNAVAILABLE,
                "`make up` starts a broker with it, AMQP_MANAGEMENT_URL names another; it takes the plugin rabbitmq_management",
            ),
            ManagementError::NotPermitted { .. } => (
                exit::NOT_PERMITTED,
                "check the login in AMQP_MANAGEMENT_URL (or AMQP_URL); `topology apply` takes the tag administrator, \
                 the others take monitoring and a right on the virtual host",
            ),
            ManagementError::NotFound { .. } => (
                exit::CONFIG,
                "check the virtual host in AMQP_URL or --vhost; an administrator creates one (management UI, Admin, Virtual Hosts)",
            ),
            ManagementError::Refused { status: 500.., .. } => {
                (exit::TRY_AGAIN, "the broker's log tells more")
            }
            ManagementError::Refused { .. } => (exit::CONFIG, "change the definitions"),
            ManagementError::Unreadable { .. } => {
                (exit::INTERNAL, "does AMQP_MANAGEMENT_URL name RabbitMQ's management API?")
            }
        };
        Self::new(code, format!("{error}; {advice}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(found: bool, differs: bool) -> Object {
        let difference = topology::Difference {
            what: "type".to_owned(),
            expected: "quorum".to_owned(),
            found: "classic".to_owned(),
            advice: "delete it".to_owned(),
        };
        Object {
            kind: "queue",
            name: "q".to_owned(),
            description: String::new(),
            found,
            differences: if differs { vec![difference] } else { Vec::new() },
        }
    }

    #[test]
    fn an_objects_state_tells_what_was_done() {
        let (missing, same, differs) = (object(false, true), object(true, false), object(true, true));
        let states = [
            (&missing, &same),
            (&same, &same),
            (&differs, &same),
            (&differs, &differs),
            (&missing, &missing),
        ];
        let states = states.map(|(before, after)| state(before, after));
        assert_eq!(states, ["created", "was there", "updated", "differs", "missing"]);
    }

    #[test]
    fn a_difference_says_what_is_expected_what_is_there_and_what_to_do() {
        let line = "  queue q: type: expected quorum, found classic; delete it";
        assert_eq!(told(&[object(true, true), object(true, false)]), [line]);
    }
}
