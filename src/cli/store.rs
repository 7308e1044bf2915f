//! `rabbitry store`: a copy of the store, and a check of one. It works on the file, without the broker.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Failure,
    output::{Format, print},
};
use crate::{
    config::StoreArgs,
    exit,
    users::store::{self, OpenError},
};

/// What to do with the store.
#[derive(Debug, Args)]
pub(super) struct StoreCommand {
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
}

/// Runs `rabbitry store`.
pub(super) async fn run(command: StoreCommand, format: Format) -> Result<(), Failure> {
    let url = match &command.action {
        Action::Check { file: Some(file) } => format!("sqlite:{}", file.display()),
        _ => command.store.store()?,
    };
    let work = move || match command.action {
        Action::Backup { file } => {
            let told = (json!({"backup": file}), format!("{} is a whole copy", file.display()));
            store::backup(&url, &file).map(|()| told)
        }
        Action::Check { .. } => {
            let described = store::describe(&url);
            let told = (json!({"whole": described}), format!("{described} is whole"));
            store::check(&url).map(|()| told)
        }
    };
    let done = tokio::task::spawn_blocking(work).await;
    let (json, sentence) = done.map_err(|error| Failure::new(exit::INTERNAL, error.to_string()))??;
    match format {
        Format::Json => print(&json.to_string()),
        Format::Table => print(&sentence),
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Refused(_) => exit::REFUSED,
            OpenError::Unavailable(_) => exit::TRY_AGAIN,
        };
        Self::new(code, error.to_string())
    }
}
