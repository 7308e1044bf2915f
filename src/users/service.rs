//! The users service, as the engine sees it.

use std::sync::Arc;

use super::{
    SERVICE,
    commands::{COMMANDS, Command},
    store::Store,
};
use crate::service::{CommandSpec, Problem, Reply, Request, Service, Unavailable};

/// Answers the commands of [`super::commands`] from a store.
pub struct UserService {
    store: Arc<dyn Store>,
}

impl UserService {
    /// A service on a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

impl Service for UserService {
    type Command = Command;

    fn name(&self) -> &'static str {
        SERVICE
    }

    fn commands(&self) -> &'static [CommandSpec] {
        COMMANDS
    }

    fn parse(&self, command: &str, payload: &[u8]) -> Result<Command, Problem> {
        Command::parse(command, payload)
    }

    fn weight(&self, command: &Command) -> usize {
        match command {
            Command::List(list) => list.limit.get().into(),
            _ => 1,
        }
    }

    async fn answer(&self, batch: Arc<[Request<Command>]>) -> Result<Vec<Reply>, Unavailable> {
        self.store.apply(batch).await
    }

    async fn ready(&self) -> Result<(), Unavailable> {
        self.store.ready().await
    }
}
