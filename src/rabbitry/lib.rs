//! Rabbitry: services on RabbitMQ. A command is one struct; nothing is lost, and nothing is done twice.
//!
//! Producers put commands on queues; workers run them on a store, SQLite or PostgreSQL, and answer on the queue that `reply_to`
//! names. A whole service:
//!
//! ```no_run
//! use rabbitry::prelude::*;
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! whole! { pub struct Count("a count is": 0 => 1_000_000); }
//!
//! /// What the service keeps: a row of one table.
//! #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
//! pub struct Counter { name: String, count: Count }
//!
//! impl Entity for Counter {
//!     type Key = String;
//!     const TABLE: Table = Table::new("counters", &[(
//!         "V1__counters",
//!         "CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, count BIGINT NOT NULL)",
//!     )]);
//!     columns!(name, count);
//! }
//!
//! /// Count one more
//! #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
//! #[serde(deny_unknown_fields)]
//! pub struct Add { name: String }
//!
//! impl Command<Counter> for Add {
//!     const SPEC: Spec = Spec::write("add");
//!     type Output = Counter;
//!     fn needs(&self) -> Needs<'_, Counter> { Needs::Key(&self.name) }
//!     /// The rule: a pure function of the command and of what it needs.
//!     fn apply(&self, counters: &mut Rows<Counter>) -> Result<Counter, Problem> {
//!         let before = counters.get(&self.name).map_or(0, |counter| counter.count.get());
//!         let full = |bound| Problem::new(Code::fatal("full", 409, "The counter is full"), bound);
//!         let counter = Counter { name: self.name.clone(), count: Count::try_from(before + 1).map_err(full)? };
//!         counters.put(counter.clone());
//!         Ok(counter)
//!     }
//! }
//!
//! service! { pub enum Counters("counters") of Counter { Add(Add), List(List<String>) } }
//!
//! fn main() -> std::process::ExitCode { rabbitry::worker::main::<Counters>() }
//! ```
//!
//! The command line of services is [`cli::main`]. In the modules:
//!
//! ```text
//!   cli/         commands, import, export, operator's tools         worker      the program of a worker
//!                  │                                                     │
//!   amqp/        client ──────────► RabbitMQ <service>.* ──────────► server
//!                  ▲                                                     │ a batch of requests
//!                  └────────────── reply_to ◄────── replies ─────────────┤
//!   store/                                         sqlite, postgres: load, run, save, commit
//!                                                                        ▼
//!   service/                           what a service is; how a batch runs: inbox, deadlines, rules (pure)
//! ```
//!
//! What holds, and what guards it:
//! * a message is acknowledged only after its effect is durable and its reply was sent ([`amqp::server`]);
//! * effect, inbox row and reply are one transaction ([`store`]), so that a repetition changes nothing and gets
//!   the same reply ([`service::inbox`]);
//! * how commands are cut into batches is invisible ([`service::batch`]);
//! * everything has a limit, and all of them stand in [`limits`].

// They panic where nothing can be written; see `telemetry::report` and `cli::output`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod amqp;
pub mod backoff;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod config;
pub mod exit;
pub mod failpoints;
pub mod home;
pub mod limits;
#[cfg(feature = "cli")]
pub mod management;
pub mod service;
pub mod shutdown;
pub mod stack;
pub mod store;
pub mod telemetry;
#[cfg(test)]
pub mod toy;
pub mod worker;

// The macros name them.
#[doc(hidden)]
pub use {clap, regex, schemars, serde_json};

/// What the author of a service needs: `use rabbitry::prelude::*`.
pub mod prelude {
    pub use crate::{
        Code, Command, Entity, List, Needs, Problem, Rows, Spec, Table, columns, service, text, whole,
    };
}

pub use service::{
    Code, Command, Entity, Needs, Problem, Rows, Service, Spec,
    entity::{Field, Table},
    list::List,
};
