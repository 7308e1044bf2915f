//! The users service: username, e-mail, points, and a status earned by points.
//!
//! A command is one file: its payload, its flags, and a pure function over a [`user::User`]. Queues, stores and programs are the
//! engine's.

pub mod commands;
pub mod limits;
pub mod promotion;
pub mod user;

pub use commands::Users;
