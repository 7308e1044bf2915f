//! The fault proxy of tests/faults does what it is told: a fault that does not happen would prove nothing.

#[path = "../faults/proxy/mod.rs"]
pub mod proxy;

mod broker;
mod bytes;
mod endings;
mod frames;
mod peers;
mod traps;
