//! The matrix: one cell for each fault, a file for each family.

mod broker;
mod clock;
mod messages;
mod network;
mod sqlite;
mod workers;

use futures::future::LocalBoxFuture;

use crate::stage::Stage;

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

/// All of them, worker and broker first.
pub fn all() -> Vec<Cell> {
    [workers::cells(), broker::cells(), sqlite::cells(), network::cells(), messages::cells(), clock::cells()]
        .into_iter()
        .flatten()
        .collect()
}
