//! The statements that follow from an entity's table.

use crate::service::entity::Entity;

/// The statements of one table, written once.
#[derive(Debug)]
pub(super) struct Sql {
    /// Whose the table is, and the replies in the inbox.
    pub(super) service: &'static str,
    /// One row by its key.
    pub(super) find: String,
    /// So many rows after a key, in the order of keys.
    pub(super) page: String,
    /// Writes a row, whether it is there or not.
    pub(super) upsert: String,
    /// Writes a row unless it is there.
    pub(super) add: String,
    /// Removes a row by its key.
    pub(super) remove: String,
    /// How many rows there are.
    pub(super) count: String,
}

impl Sql {
    pub(super) fn of<E: Entity>(service: &'static str) -> Self {
        let table = E::TABLE.name;
        let columns: Vec<_> = E::columns().into_iter().map(|(name, _)| name).collect();
        let (key, all) = (columns[0], columns.join(", "));
        let marks = vec!["?"; columns.len()].join(", ");
        let insert = format!("INSERT INTO {table} ({all}) VALUES ({marks}) ON CONFLICT");
        let updates: Vec<_> = columns[1..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let on_conflict = match updates.as_slice() {
            [] => "DO NOTHING".to_owned(),
            updates => format!("DO UPDATE SET {}", updates.join(", ")),
        };
        Self {
            service,
            find: format!("SELECT {all} FROM {table} WHERE {key} = ?"),
            page: format!("SELECT {all} FROM {table} WHERE {key} > ? ORDER BY {key} LIMIT ?"),
            upsert: format!("{insert} ({key}) {on_conflict}"),
            add: format!("{insert} DO NOTHING"),
            remove: format!("DELETE FROM {table} WHERE {key} = ?"),
            count: format!("SELECT count(*) FROM {table}"),
        }
    }
}
