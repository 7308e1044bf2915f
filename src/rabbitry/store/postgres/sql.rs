//! The statements that follow from an entity's table. Each takes arrays, so that it is the same for every size of a batch.

use crate::service::entity::{Entity, Type};

/// The statements of one table, written once.
#[derive(Debug)]
pub(super) struct Sql {
    /// Whose the table is, and the replies in the inbox.
    pub(super) service: &'static str,
    /// Rows by their keys, locked in the order of keys, which all workers lock in.
    pub(super) lock: String,
    /// The same in an order of the session's own; only for a mutant.
    pub(super) lock_unsorted: String,
    /// Rows by their keys.
    pub(super) find: String,
    /// Several pages: after which key, and how many rows; each row with the number of its page.
    pub(super) pages: String,
    /// Adds rows that are not there.
    pub(super) insert: String,
    /// Changes rows that are there.
    pub(super) update: String,
    /// Removes rows by their keys.
    pub(super) remove: String,
    /// How many rows there are.
    pub(super) count: String,
    /// Shows whether rows can be written.
    pub(super) probe: String,
}

impl Sql {
    pub(super) fn of<E: Entity>(service: &'static str) -> Self {
        let table = E::TABLE.name;
        let columns = E::columns();
        let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
        let (key, key_type) = columns[0];
        let all = names.join(", ");
        let arrays: Vec<_> = columns
            .iter()
            .enumerate()
            .map(|(n, (_, kind))| format!("${}::{}[]", n + 1, sql_type(*kind)))
            .collect();
        let arrays = arrays.join(", ");
        let updates: Vec<_> = names[1..].iter().map(|name| format!("{name} = new.{name}")).collect();
        // A table of keys alone has nothing to change.
        let updates = if updates.is_empty() { format!("{key} = new.{key}") } else { updates.join(", ") };
        // By bytes, whatever the database's locale is.
        let bytes = if key_type == Type::Text { " COLLATE \"C\"" } else { "" };
        let find = format!("SELECT {all} FROM {table} WHERE {key} = ANY($1)");
        Self {
            service,
            lock: format!("{find} ORDER BY {key}{bytes} FOR UPDATE"),
            lock_unsorted: format!("{find} ORDER BY md5({key}::text || pg_backend_pid()) FOR UPDATE"),
            pages: format!(
                "SELECT found.*, page.number
                 FROM unnest($1::{}[], $2::bigint[]) WITH ORDINALITY AS page (after, size, number)
                 CROSS JOIN LATERAL (
                     SELECT {all} FROM {table} WHERE {key} > page.after{bytes} ORDER BY {key}{bytes} LIMIT page.size
                 ) AS found
                 ORDER BY page.number, found.{key}{bytes}",
                sql_type(key_type)
            ),
            find,
            insert: format!(
                "INSERT INTO {table} ({all}) SELECT * FROM unnest({arrays}) ON CONFLICT ({key}) DO NOTHING"
            ),
            update: format!(
                "UPDATE {table} SET {updates} FROM unnest({arrays}) AS new ({all})
                 WHERE {table}.{key} = new.{key}"
            ),
            remove: format!("DELETE FROM {table} WHERE {key} = ANY($1)"),
            count: format!("SELECT count(*) FROM {table}"),
            probe: format!("UPDATE {table} SET {key} = {key} WHERE false"),
        }
    }
}

fn sql_type(kind: Type) -> &'static str {
    match kind {
        Type::Text => "text",
        Type::Integer => "bigint",
    }
}
