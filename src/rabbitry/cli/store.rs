//! `rabbitry store`: a copy of the store, and a check of one. It works on the store itself, without the broker.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    About, Failure, chosen,
    output::{Format, print},
};
use crate::{
    config::StoreArgs,
    exit,
    store::{self, Copied, OpenError},
};

/// What to do with the store.
#[derive(Debug, Args)]
pub(super) struct StoreCommand {
    /// Whose store [default: the only service's]
    #[arg(long, global = true, value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Copy the store into a new file, while workers go on: a snapshot of one moment, checked
    Backup {
        /// The file to be made; nothing is overwritten
        file: PathBuf,
    },
    /// Read the whole store, or a copy of it, and tell whether it is damaged
    Check {
        /// A copy [default: the store itself]
        file: Option<PathBuf>,
    },
    /// Copy a store into another one of whichever kind, with the replies that it remembers; stop all workers before
    Copy {
        /// The URL of the store that is copied; nobody can write to it meanwhile
        #[arg(value_name = "FROM", env = "COPY_FROM", hide_env_values = true)]
        from: String,
        /// The URL of an empty store, or of one into which copying was cut off
        #[arg(value_name = "TO", env = "COPY_TO", hide_env_values = true)]
        to: String,
    },
}

/// Runs `rabbitry store`.
pub(super) async fn run(services: &[About], command: StoreCommand, format: Format) -> Result<(), Failure> {
    let about = chosen(services, command.service.as_deref())?;
    let (json, sentence) = match command.action {
        Action::Copy { from, to } => copy(about, &from, &to).await?,
        Action::Backup { file } => {
            let told = (json!({"backup": file}), format!("{} is a whole copy", file.display()));
            let (url, setting) = (command.store.store(about.name)?, command.store.setting());
            let backup = move || store::backup(&url, &file).map_err(|error| error.of_setting(&setting));
            off_the_runtime(backup).await.map(|()| told)?
        }
        Action::Check { file } => {
            let url = match file {
                Some(file) => format!("sqlite:{}", file.display()),
                None => command.store.store(about.name)?,
            };
            let described = store::describe(&url);
            let told = (json!({"whole": described}), format!("{described} is whole"));
            let setting = command.store.setting();
            let check = move || store::check(&url).map_err(|error| error.of_setting(&setting));
            off_the_runtime(check).await.map(|()| told)?
        }
    };
    match format {
        Format::Json => print(&json.to_string()),
        Format::Table => print(&sentence),
    }
}

async fn off_the_runtime(
    work: impl FnOnce() -> Result<(), OpenError> + Send + 'static,
) -> Result<(), Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Failure::new(exit::INTERNAL, error.to_string()))??)
}

async fn copy(about: &About, from: &str, to: &str) -> Result<(Value, String), Failure> {
    let Copied { entities, replies } = (about.copy)((from, "COPY_FROM"), (to, "COPY_TO")).await?;
    let (from, to, table) = (store::describe(from), store::describe(to), about.table);
    let sentence = format!("{to} holds all of {from}: {entities} {table} and {replies} remembered replies");
    Ok((json!({"from": from, "to": to, table: entities, "replies": replies}), sentence))
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Refused(_) => exit::CONFIG,
            OpenError::NotDone(_) => exit::REFUSED,
            OpenError::Unavailable(_) => exit::TRY_AGAIN,
        };
        Self::new(code, error.to_string())
    }
}
