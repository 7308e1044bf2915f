//! What is asked for.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::load::Generator;

/// Users that `get` chooses from.
const USERS: usize = 10_000;

/// A command that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Command {
    /// Each time another user.
    Create,
    /// One of the users that were stored before.
    Get,
}

impl Command {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
        }
    }
}

/// Makes the payloads.
#[derive(Debug)]
pub(crate) enum Work {
    Create,
    Get(Vec<String>),
}

impl Work {
    pub(crate) fn new(command: Command) -> Self {
        match command {
            Command::Create => Self::Create,
            Command::Get => Self::Get((0..USERS).map(|_| username()).collect()),
        }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        match self {
            Self::Create => user(&username()),
            Self::Get(names) => format!(r#"{{"username":"{}"}}"#, names[fastrand::usize(..names.len())]),
        }
        .into_bytes()
    }

    /// Stores what will be asked for, through the worker, many users in one message.
    pub(crate) async fn prepare(&self, worker: &mut Generator) -> Result<()> {
        let Self::Get(names) = self else { return Ok(()) };
        for names in names.chunks(1000) {
            let users = names.iter().map(|name| user(name)).collect::<Vec<_>>().join(",");
            let reply = worker.ask("create", format!("[{users}]").as_bytes()).await?;
            let stored: Vec<Value> = serde_json::from_slice(&reply.data).context("an array of users")?;
            ensure!(stored.iter().all(|user| user["code"].is_null()), "a user was refused: {stored:?}");
        }
        Ok(())
    }
}

/// In no order, so that rows land all over the table.
fn username() -> String {
    format!("u{:016x}", fastrand::u64(..))
}

fn user(name: &str) -> String {
    format!(r#"{{"username":"{name}","email":"{name}@example.com","points":120}}"#)
}
