//! The matrix: one cell for each fault, a file for each family.

mod bank;
mod broker;
mod clock;
mod messages;
mod network;
mod postgres;
mod sqlite;
mod workers;

use futures::future::LocalBoxFuture;

use crate::{stage::Stage, store};

/// What a cell does while the clients go on. When it returns, the fault has to be over, but for what the proxies do.
pub type Fault = for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, ()>;

pub struct Cell {
    pub name: &'static str,
    pub family: &'static str,
    /// Whether the short suite of `make test` runs it.
    pub quick: bool,
    pub needs_root: bool,
    pub fault: Fault,
}

impl Cell {
    const fn new(family: &'static str, name: &'static str, fault: Fault) -> Self {
        Self { name, family, quick: false, needs_root: false, fault }
    }

    const fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    const fn for_root(self) -> Self {
        Self { needs_root: true, ..self }
    }
}

/// All of them for the store of this run, worker and broker first.
pub fn all() -> Vec<Cell> {
    let of_the_store = if store::is_postgres() { postgres::cells() } else { sqlite::cells() };
    [
        workers::cells(),
        broker::cells(),
        of_the_store,
        network::cells(),
        messages::cells(),
        clock::cells(),
        bank::cells(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
