//! The broker's management: a client of its HTTP API, and the topology that it is asked for.

mod api;
pub mod status;
pub mod topology;

pub use api::{Management, ManagementError};
