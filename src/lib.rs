//! Rabbitry: a command worker system on RabbitMQ.

pub mod limits;
pub mod service;
pub mod users;
