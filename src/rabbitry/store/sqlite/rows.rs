//! All SQL of the batches: loading and saving rows.

use rusqlite::{
    Connection, Error, OptionalExtension, Params, Row, ToSql, params, params_from_iter,
    types::{FromSqlError, ToSqlOutput, Type, ValueRef},
};
use uuid::Uuid;

use super::sql::Sql;
use crate::service::{
    Fingerprint,
    entity::{Entity, Field, Unreadable, Value},
    inbox::{Inbox, StoredReply},
    rows::{Change, Rows, Wanted},
};

/// Loads what a batch names. Single rows in a loop: SQLite runs in this process, a statement costs about 2 µs.
pub(super) fn load<E: Entity>(
    connection: &Connection,
    sql: &Sql,
    wanted: &Wanted<'_, E>,
) -> rusqlite::Result<(Rows<E>, Inbox)> {
    let mut rows = Rows::default();
    let mut select = connection.prepare_cached(&sql.find)?;
    for key in wanted.keys() {
        if let Some(found) = select.query_row([cell(key.value())], entity).optional()? {
            rows.add(found);
        }
    }
    for &(after, limit) in &wanted.pages {
        let page = page(connection, sql, after, wanted.rows_of_page(limit))?;
        rows.add_page(after, limit, page);
    }
    let mut inbox = Inbox::default();
    if !wanted.replies.is_empty() {
        let mut select = connection.prepare_cached(
            "SELECT fingerprint, status, reply FROM inbox WHERE command = ? AND message_id = ? AND service = ?",
        )?;
        for &(command, id) in &wanted.replies {
            let key = params![command, MessageId::of(id), sql.service];
            if let Some(row) = select.query_row(key, stored_reply).optional()? {
                inbox.add(command, id, row);
            }
        }
    }
    Ok((rows, inbox))
}

/// The first so many entities after a key.
pub(super) fn page<E: Entity>(
    connection: &Connection,
    sql: &Sql,
    after: Option<&E::Key>,
    rows: usize,
) -> rusqlite::Result<Vec<E>> {
    let after = after.map_or(E::Key::TYPE.before_all(), Field::value);
    let mut select = connection.prepare_cached(&sql.page)?;
    select.query_map(params![cell(after), rows as i64], entity)?.collect()
}

/// Saves what a batch changed. `now` is written beside the replies, in milliseconds since the Unix epoch.
pub(super) fn save<E: Entity>(
    connection: &Connection,
    sql: &Sql,
    rows: &Rows<E>,
    inbox: &Inbox,
    now: i64,
) -> rusqlite::Result<()> {
    for change in rows.changes() {
        match change {
            Change::Created(entity) | Change::Updated(entity) => {
                connection.prepare_cached(&sql.upsert)?.execute(cells(entity))?
            }
            Change::Removed(key) => connection.prepare_cached(&sql.remove)?.execute([cell(key.value())])?,
        };
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO inbox (service, command, message_id, fingerprint, status, reply, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    for ((command, id), StoredReply { fingerprint, status, body }) in inbox.fresh() {
        insert.execute(params![sql.service, command, MessageId::of(id), fingerprint.0, status, body, now])?;
    }
    Ok(())
}

/// An entity's values as parameters of a statement.
pub(super) fn cells<E: Entity>(entity: &E) -> impl Params + '_ {
    params_from_iter(entity.values().into_iter().map(cell))
}

/// A value as a parameter of a statement.
pub(super) fn cell(value: Value<'_>) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match value {
        Value::Null => ValueRef::Null,
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
        Value::Integer(number) => ValueRef::Integer(number),
    })
}

/// Writes a row of some pages, takes it back, and commits: a full disk, a refused write and a failed `fsync` show only
/// then. In one transaction, so that no end of this process leaves the row.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "BEGIN IMMEDIATE;
         INSERT INTO inbox (service, command, message_id, fingerprint, status, reply, created_at)
         VALUES ('', '', '', zeroblob(16), 200, zeroblob(65536), 0);
         DELETE FROM inbox WHERE command = '';
         COMMIT",
    )
}

/// Reads a row that holds an entity's columns.
pub(super) fn entity<E: Entity>(row: &Row<'_>) -> rusqlite::Result<E> {
    let value = |column| match row.get_ref(column)? {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(number) => Ok(Value::Integer(number)),
        text => Ok(Value::Text(text.as_str()?)),
    };
    let values = (0..row.as_ref().column_count()).map(value).collect::<rusqlite::Result<_>>()?;
    E::read(values).map_err(|Unreadable(error)| unreadable(0, error))
}

fn stored_reply(row: &Row<'_>) -> rusqlite::Result<StoredReply> {
    Ok(StoredReply { fingerprint: Fingerprint(row.get(0)?), status: row.get(1)?, body: row.get(2)? })
}

fn unreadable(column: usize, error: String) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, Box::new(FromSqlError::Other(error.into())))
}

/// An idempotency key as it is stored: a UUID in its usual form as its 16 bytes, anything else as text. No two ids
/// are stored alike, as no other text is that form of the same UUID.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MessageId<'a> {
    Uuid([u8; 16]),
    Text(&'a str),
}

impl<'a> MessageId<'a> {
    pub(super) fn of(id: &'a str) -> Self {
        let mut buffer = Uuid::encode_buffer();
        match Uuid::try_parse(id) {
            Ok(uuid) if *uuid.hyphenated().encode_lower(&mut buffer) == *id => Self::Uuid(uuid.into_bytes()),
            _ => Self::Text(id),
        }
    }
}

/// The id that a row was stored with.
pub(super) fn stored_id(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    match row.get_ref(column)? {
        ValueRef::Blob(bytes) => {
            let uuid = Uuid::from_slice(bytes).map_err(|error| unreadable(column, error.to_string()))?;
            Ok(uuid.hyphenated().to_string())
        }
        text => Ok(text.as_str()?.to_owned()),
    }
}

impl ToSql for MessageId<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Uuid(bytes) => ValueRef::Blob(bytes),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_form_of_a_uuid_is_shortened() {
        let usual = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        assert!(matches!(MessageId::of(usual), MessageId::Uuid(_)));
        for other in [
            "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
            "017f22e279b07cc398c4dc0c0c07398f",
            "{017f22e2-79b0-7cc3-98c4-dc0c0c07398f}",
            "urn:uuid:017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
            "order-17",
            "",
            "a\0b",
        ] {
            assert_eq!(MessageId::of(other), MessageId::Text(other));
        }
    }
}
