//! The users service, as the engine sees it.

use std::sync::Arc;

use super::{SERVICE, commands::UserCommand};
use crate::{
    service::{CommandSpec, Problem, Reply, Request, Service, Unavailable, command::Commands},
    store::Store,
};

/// Answers the commands of [`super::commands`] from a store.
pub struct UserService {
    store: Arc<dyn Store<UserCommand>>,
}

impl UserService {
    /// A service on a store.
    pub fn new(store: Arc<dyn Store<UserCommand>>) -> Self {
        Self { store }
    }
}

impl Service for UserService {
    type Command = UserCommand;

    fn name(&self) -> &'static str {
        SERVICE
    }

    fn commands(&self) -> &'static [CommandSpec] {
        UserCommand::ALL
    }

    fn parse(&self, command: &str, payload: &[u8]) -> Result<UserCommand, Problem> {
        UserCommand::parse(command, payload)
    }

    fn weight(&self, command: &UserCommand) -> usize {
        command.needs().weight()
    }

    async fn answer(&self, batch: Arc<[Request<UserCommand>]>) -> Result<Vec<Reply>, Unavailable> {
        self.store.apply(batch).await
    }

    async fn ready(&self) -> Result<(), Unavailable> {
        self.store.ready().await
    }
}
