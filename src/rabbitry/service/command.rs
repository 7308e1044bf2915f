//! What a service can be asked for: one struct for each command, and the closed list of them.

use clap::{ArgMatches, Args};
use schemars::{JsonSchema, Schema};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Access, Problem,
    entity::Entity,
    rows::{Needs, Rows},
};

/// A command: its payload and its rule.
pub trait Command<E: Entity>: Serialize + DeserializeOwned + JsonSchema + Args + Send + Sync {
    /// What it is called, and how it is asked for.
    const SPEC: Spec;
    /// What a success returns, as JSON.
    type Output: Serialize + JsonSchema;

    /// What has to be loaded before the rule is applied.
    fn needs(&self) -> Needs<'_, E>;

    /// The rule: a pure function of the payload and of what was loaded. No input or output, and no clock but
    /// [`Rows::now`].
    ///
    /// # Errors
    /// A refusal that follows from the state. What was changed before it stays changed, so judge first.
    fn apply(&self, rows: &mut Rows<E>) -> Result<Self::Output, Problem>;
}

/// What a command is called and whether it can have an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The command's name: routing key, and the end of its queue's name.
    pub name: &'static str,
    /// Whether it needs the inbox and a write transaction.
    pub access: Access,
    /// The status of a success: 200 or 201.
    pub status: u16,
    /// Whether a success is a [`Page`](super::list::Page); an export reads all of them.
    pub pages: bool,
}

impl Spec {
    /// A command without an effect.
    pub const fn read(name: &'static str) -> Self {
        Self { name, access: Access::Read, status: 200, pages: false }
    }

    /// A command with an effect: at most once for each message id.
    pub const fn write(name: &'static str) -> Self {
        Self { name, access: Access::Write, status: 200, pages: false }
    }

    /// A success means that something was created: status 201.
    #[must_use]
    pub const fn created(self) -> Self {
        Self { status: 201, ..self }
    }

    /// A success is a page.
    pub(super) const fn paged(self) -> Self {
        Self { pages: true, ..self }
    }
}

/// A command of a service, as everything but the rule sees it.
pub struct Entry<S> {
    /// What it is called, and how it is asked for.
    pub spec: Spec,
    /// Reads a payload, from an object that may have members of these names beside its own: those that an export wrote.
    pub parse: fn(&[u8], &[&str]) -> Result<S, Problem>,
    /// Adds its flags to a command line.
    pub flags: fn(clap::Command) -> clap::Command,
    /// Reads it from a command line.
    pub of_flags: fn(&ArgMatches) -> Result<S, clap::Error>,
    /// The JSON Schema of its payload.
    pub schema: fn() -> Schema,
}

/// A service: its name, what it keeps, and the closed set of its commands. A value of the type is one command;
/// [`service!`](crate::service!) makes it.
pub trait Service: Serialize + Send + Sync + Sized + 'static {
    /// The service's name, with which those of its queues begin.
    const NAME: &'static str;

    /// What it keeps.
    type Entity: Entity;

    /// Its commands, in the order in which they are shown.
    const COMMANDS: &'static [Spec];

    /// The same commands with all that belongs to them.
    const ENTRIES: &'static [Entry<Self>];

    /// The command with this name.
    fn entry(name: &str) -> Option<&'static Entry<Self>> {
        Self::ENTRIES.iter().find(|entry| entry.spec.name == name)
    }

    /// What has to be loaded before the command is applied.
    fn needs(&self) -> Needs<'_, Self::Entity>;

    /// Applies the command: status and JSON of its success, or a refusal.
    ///
    /// # Errors
    /// The refusals of the single commands.
    fn apply(&self, rows: &mut Rows<Self::Entity>) -> Result<(u16, Vec<u8>), Problem>;
}

/// Whether a service or a command may be called so: the name stands in those of queues and tables, and on the command line.
pub const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'a'..=b'z' => {}
            b'0'..=b'9' | b'_' if index > 0 => {}
            _ => return false,
        }
        index += 1;
    }
    0 < index && index <= 40
}

/// Makes a [`Service`]: an enum with a variant for each of its commands, a
/// [`Command`].
#[macro_export]
macro_rules! service {
    ($(#[$about:meta])* $vis:vis enum $name:ident($service:literal) of $entity:ty {
        $($(#[$doc:meta])* $variant:ident($command:ty)),+ $(,)?
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[serde(untagged)]
        $vis enum $name {
            $($(#[$doc])* $variant($command)),+
        }

        const _: () = assert!(
            $crate::service::command::is_name($service)
                $(&& $crate::service::command::is_name(<$command as $crate::service::command::Command<$entity>>::SPEC.name))+,
            "a name has 1 to 40 of a-z, 0-9 and _, and begins with a letter"
        );

        impl $crate::service::command::Service for $name {
            const NAME: &'static str = $service;
            type Entity = $entity;
            const COMMANDS: &'static [$crate::service::command::Spec] =
                &[$(<$command as $crate::service::command::Command<$entity>>::SPEC),+];

            const ENTRIES: &'static [$crate::service::command::Entry<Self>] = &[$(
                $crate::service::command::Entry {
                    spec: <$command as $crate::service::command::Command<$entity>>::SPEC,
                    parse: |payload, ignored| {
                        $crate::service::payload::parse_without::<$command>(payload, ignored).map(Self::$variant)
                    },
                    flags: <$command as $crate::clap::Args>::augment_args,
                    of_flags: |flags| {
                        <$command as $crate::clap::FromArgMatches>::from_arg_matches(flags).map(Self::$variant)
                    },
                    schema: || $crate::schemars::schema_for!($command),
                }
            ),+];

            fn needs(&self) -> $crate::service::rows::Needs<'_, $entity> {
                match self {
                    $(Self::$variant(command) => $crate::service::command::Command::needs(command)),+
                }
            }

            fn apply(
                &self,
                rows: &mut $crate::service::rows::Rows<$entity>,
            ) -> Result<(u16, Vec<u8>), $crate::service::Problem> {
                match self {
                    $(Self::$variant(command) => {
                        let output = $crate::service::command::Command::apply(command, rows)?;
                        let spec = <$command as $crate::service::command::Command<$entity>>::SPEC;
                        Ok((spec.status, $crate::service::to_json(&output)))
                    }),+
                }
            }
        }
    };
}
