//! All SQL of the batches: loading and saving rows.

use rusqlite::{
    Connection, Error, OptionalExtension, Row, ToSql, params,
    types::{FromSqlError, ToSqlOutput, Type, ValueRef},
};
use uuid::Uuid;

use crate::{
    service::{
        Fingerprint,
        inbox::{Inbox, StoredReply},
    },
    users::{
        commands::list::List,
        model::{Email, Points, User, Username},
        working_set::{Wanted, WorkingSet},
    },
};

/// Loads what a batch names. Single rows in a loop: SQLite runs in this process, a statement costs about 2 µs.
pub(super) fn load(connection: &Connection, wanted: &Wanted<'_>) -> rusqlite::Result<(WorkingSet, Inbox)> {
    let mut users = WorkingSet::default();
    let mut select =
        connection.prepare_cached("SELECT username, email, points, status FROM users WHERE username = ?")?;
    for username in wanted.usernames() {
        if let Some(user) = select.query_row([username.as_str()], user).optional()? {
            users.add(user);
        }
    }
    for list in &wanted.pages {
        users.add_page(list, page(connection, list)?);
    }
    let mut inbox = Inbox::default();
    if !wanted.replies.is_empty() {
        let mut select = connection.prepare_cached(
            "SELECT fingerprint, status, reply FROM inbox WHERE command = ? AND message_id = ?",
        )?;
        for &(command, id) in &wanted.replies {
            if let Some(row) =
                select.query_row(params![command, MessageId::of(id)], stored_reply).optional()?
            {
                inbox.add(command, id, row);
            }
        }
    }
    Ok((users, inbox))
}

fn page(connection: &Connection, list: &List) -> rusqlite::Result<Vec<User>> {
    let mut select = connection.prepare_cached(
        "SELECT username, email, points, status FROM users WHERE username > ? ORDER BY username LIMIT ?",
    )?;
    // No username is empty.
    let after = list.after.as_ref().map_or("", Username::as_str);
    select.query_map(params![after, list.limit.get() + 1], user)?.collect()
}

/// Saves what a batch changed. `now` is written beside the replies, in milliseconds since the Unix epoch.
pub(super) fn save(
    connection: &Connection,
    users: &WorkingSet,
    inbox: &Inbox,
    now: i64,
) -> rusqlite::Result<()> {
    let mut upsert = connection.prepare_cached(
        "INSERT INTO users (username, email, points, status) VALUES (?, ?, ?, ?)
         ON CONFLICT (username) DO UPDATE
         SET email = excluded.email, points = excluded.points, status = excluded.status",
    )?;
    for (_, User { username, email, points, status }) in users.changed() {
        upsert.execute(params![username.as_str(), email.as_str(), points.as_i64(), status.as_str()])?;
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO inbox (command, message_id, fingerprint, status, reply, created_at)
         VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for ((command, id), StoredReply { fingerprint, status, body }) in inbox.fresh() {
        insert.execute(params![command, MessageId::of(id), fingerprint.0, status, body, now])?;
    }
    Ok(())
}

/// Writes a row of some pages and takes it back, as a full disk and a refused write show only then. Commands have names,
/// so no reply is hidden by it, and if it is left it is forgotten as the oldest of all.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "INSERT OR REPLACE INTO inbox VALUES ('', '', zeroblob(16), 200, zeroblob(65536), 0);
         DELETE FROM inbox WHERE command = '';",
    )
}

pub(super) fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        username: Username::stored(row.get(0)?),
        email: Email::stored(row.get(1)?),
        points: Points::try_from(row.get::<_, i64>(2)?).map_err(|error| unreadable(2, error))?,
        status: row.get_ref(3)?.as_str()?.parse().map_err(|error: String| unreadable(3, error))?,
    })
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
