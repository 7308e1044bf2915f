//! The thread that reads, without waiting for any writer.

use std::{marker::PhantomData, time::Instant};

use rusqlite::TransactionBehavior;

use super::{
    connection::open_for_reading,
    lane::Work,
    place::Place,
    session::Session,
    sql::Sql,
    transaction::{self, Batch},
};
use crate::{
    service::{Reply, Request, Service, Unavailable},
    store::{OpenError, Options},
};

pub(super) struct Reader<S> {
    session: Session,
    options: Options,
    sql: Sql,
    commands: PhantomData<fn(S)>,
}

impl<S: Service> Reader<S> {
    /// Opens a database that a writer has opened before.
    pub(super) fn open(place: Place, options: Options) -> Result<Self, OpenError> {
        let session = Session::begin(place, open_for_reading)?;
        Ok(Self { session, options, sql: Sql::of::<S::Entity>(S::NAME), commands: PhantomData })
    }
}

impl<S: Service> Work for Reader<S> {
    type Command = S;

    fn answer(&mut self, requests: &[Request<S>]) -> Result<Vec<Reply>, Unavailable> {
        let batch = Batch { requests, options: &self.options, sql: &self.sql };
        self.session
            .with("read", |connection| transaction::run(connection, TransactionBehavior::Deferred, &batch))
    }

    fn reset(&mut self) {
        self.session.close();
    }

    fn next_chore(&self) -> Option<Instant> {
        None
    }

    fn do_chores(&mut self) {}
}
