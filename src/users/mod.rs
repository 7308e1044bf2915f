//! The users service: username, e-mail, points, and a status earned by points.
//!
//! This folder knows users and has never heard of AMQP. A command is a pure function over a [`user::User`]; SQL
//! stands only in its migrations.

pub mod commands;
pub mod promotion;
pub mod user;

pub use commands::Users;

/// The service's name, with which those of its queues begin.
pub const SERVICE: &str = "users";
