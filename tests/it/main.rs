//! The integration tests: one binary, a module for each subject. `make test` brings up the broker they need.
#![allow(missing_docs, clippy::unwrap_used, unreachable_pub)]

mod batching;
mod engine;
mod interval;
mod pressure;
mod store_contract;
mod support;
