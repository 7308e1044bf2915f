//! The thread that reads, without waiting for any writer.

use std::time::Instant;

use rusqlite::TransactionBehavior;

use super::{connection::open_for_reading, lane::Work, place::Place, session::Session, transaction};
use crate::{
    service::{Reply, Request, Unavailable},
    users::{
        commands::Command,
        store::{OpenError, Options},
    },
};

pub(super) struct Reader {
    session: Session,
    options: Options,
}

impl Reader {
    /// Opens a database that a writer has opened before.
    pub(super) fn open(place: Place, options: Options) -> Result<Self, OpenError> {
        Ok(Self { session: Session::begin(place, open_for_reading)?, options })
    }
}

impl Work for Reader {
    fn answer(&mut self, batch: &[Request<Command>]) -> Result<Vec<Reply>, Unavailable> {
        let options = &self.options;
        self.session.with("read", |connection| {
            transaction::run(connection, TransactionBehavior::Deferred, batch, options)
        })
    }

    fn reset(&mut self) {
        self.session.close();
    }

    fn next_chore(&self) -> Option<Instant> {
        None
    }

    fn do_chores(&mut self) {}
}
