//! Rabbitry: a command worker system on RabbitMQ.
//!
//! ```text
//!             rabbitry (CLI)                              users-worker × N processes
//!                   │                                               │
//!   amqp/        client ──────────► RabbitMQ users.* ───────────► server     (lapin; no word of users)
//!                   ▲                                               │ Service::answer(batch)
//!                   └────────────── reply_to ◄─────── replies ──────┤
//!   service/                           the seam: trait, inbox, batch, problems
//!                                                                   ▼
//!   users/                              service ─► store ─► commands ─► promotion   (no word of AMQP)
//!                                               load ──► apply (pure) ──► save
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

pub use service::{
    Code, Command, Entity, Needs, Problem, Rows, Service, Spec,
    entity::{Field, Table},
    list::List,
};
