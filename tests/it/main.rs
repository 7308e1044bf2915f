//! The integration tests: one binary, a module for each subject. `make test` brings up the broker they need.
#![allow(missing_docs, clippy::unwrap_used, unreachable_pub)]

mod bad_input;
#[path = "../bank/mod.rs"]
mod bank;
mod batching;
mod cli;
mod client;
mod engine;
mod failpoints;
mod fault_proxy;
mod faults;
mod home;
mod import;
mod interval;
mod make;
mod operator;
mod other_clients;
mod own_service;
mod postgres_only;
mod pressure;
mod readme;
mod store_commands;
mod store_contract;
mod store_copy;
mod store_services;
mod store_upgrade;
mod support;
mod tidy;
mod ui_publish;
mod worker;
