//! The integration tests: one binary, a module for each subject. `make test` brings up the broker they need.
#![allow(missing_docs, clippy::unwrap_used, unreachable_pub)]

mod bad_input;
mod batching;
mod cli;
mod engine;
mod other_clients;
mod store_contract;
mod support;
mod ui_publish;
mod worker;
