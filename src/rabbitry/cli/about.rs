//! A service as the command line knows it.

use clap::ArgMatches;
use futures::future::BoxFuture;
use schemars::Schema;

use crate::{
    Service, Spec,
    service::{
        Access, Code, Entity, Needs, Problem,
        entity::{Field, Type, Value},
        to_json,
    },
    store::{self, Copied, OpenError},
};

/// A store: its URL, and the setting that holds it.
type Named<'a> = (&'a str, &'a str);

type Reader = fn(&str, &[u8], &[&str]) -> Result<Read, Problem>;

/// What the verbs have to know of a service.
#[derive(Clone, Copy)]
pub struct About {
    pub(super) name: &'static str,
    pub(super) commands: &'static [Spec],
    /// The table that it keeps, under whose name a page has its entities.
    pub(super) table: &'static str,
    /// The table's columns.
    pub(super) columns: fn() -> Vec<(&'static str, Type)>,
    /// Adds the flags of a command.
    pub(super) flags: fn(&str, clap::Command) -> clap::Command,
    /// The payload that a command's flags stand for.
    pub(super) payload: fn(&str, &ArgMatches) -> Result<Vec<u8>, clap::Error>,
    /// Reads a command from an object that may have some other members.
    pub(super) read: Reader,
    /// The JSON Schema of a command's payload.
    pub(super) schema: fn(&str) -> Option<Schema>,
    /// Copies a store.
    pub(super) copy: for<'a> fn(Named<'a>, Named<'a>) -> BoxFuture<'a, Result<Copied, OpenError>>,
}

/// A command that was read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    /// Its payload, as this program writes it.
    pub(super) payload: Vec<u8>,
    /// The keys that it names, as text.
    pub(super) keys: Vec<String>,
}

impl About {
    /// All that the verbs have to know.
    pub fn of<S: Service>() -> Self {
        Self {
            name: S::NAME,
            commands: S::COMMANDS,
            table: S::Entity::TABLE.name,
            columns: S::Entity::columns,
            flags: |name, line| match S::entry(name) {
                Some(entry) => (entry.flags)(line),
                None => line,
            },
            payload: |name, flags| {
                let unknown = || clap::Error::new(clap::error::ErrorKind::InvalidSubcommand);
                let entry = S::entry(name).ok_or_else(unknown)?;
                (entry.of_flags)(flags).map(|command| to_json(&command))
            },
            read: read::<S>,
            schema: |name| S::entry(name).map(|entry| (entry.schema)()),
            copy: |from, to| Box::pin(store::copy::<S>(from, to)),
        }
    }

    /// The command with this name.
    pub(super) fn command(&self, name: &str) -> Option<Spec> {
        self.commands.iter().copied().find(|command| command.name == name)
    }

    /// Whether a command has no effect.
    pub(super) fn is_read(&self, name: &str) -> bool {
        self.command(name).is_some_and(|command| command.access == Access::Read)
    }
}

fn read<S: Service>(name: &str, object: &[u8], ignored: &[&str]) -> Result<Read, Problem> {
    let unknown = || Problem::new(Code::INVALID, format!("there is no command {name:?}"));
    let command = (S::entry(name).ok_or_else(unknown)?.parse)(object, ignored)?;
    let text = |key: &<S::Entity as Entity>::Key| match key.value() {
        Value::Text(text) => text.to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Null => String::new(),
    };
    let keys = match command.needs() {
        Needs::Key(key) => vec![text(key)],
        Needs::Keys(keys) => keys.into_iter().map(text).collect(),
        Needs::None | Needs::Page(..) => Vec::new(),
    };
    Ok(Read { payload: to_json(&command), keys })
}

/// The service and the command that `users.create` names.
pub(super) fn find<'a>(services: &'a [About], full_name: &str) -> Option<(&'a About, Spec)> {
    let (service, command) = full_name.split_once('.')?;
    let about = services.iter().find(|about| about.name == service)?;
    Some((about, about.command(command)?))
}
