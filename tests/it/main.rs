//! The integration tests: one binary, one module per part.

mod batching;
mod store_contract;
mod support;
