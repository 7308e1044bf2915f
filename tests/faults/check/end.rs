//! What a run leaves behind.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OpenFlags, Row, types::ValueRef};
use uuid::Uuid;

/// What a run leaves behind, once nothing works any more.
#[derive(Debug, Clone, Default)]
pub struct End {
    pub users: BTreeMap<String, UserRow>,
    /// By command and message id.
    pub inbox: BTreeMap<(String, String), InboxRow>,
    pub dead: Vec<DeadLetter>,
    /// The command queues, by their names (`users.create`); not the dead-letter queue.
    pub queues: BTreeMap<String, Depth>,
}

/// A user, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    pub email: String,
    pub points: i64,
    pub status: String,
}

/// A remembered reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxRow {
    pub fingerprint: Vec<u8>,
    pub status: u16,
    pub body: Vec<u8>,
}

/// A message that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub id: String,
    pub command: Option<String>,
    pub reason: Option<String>,
}

/// The messages of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    pub ready: u64,
    pub unacked: u64,
}

impl End {
    /// Reads users and inbox of a SQLite store at one moment; the broker's part is left empty.
    pub fn from_sqlite(path: &Path) -> rusqlite::Result<Self> {
        // Read-only, so that what a crash left behind stays as it is.
        let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let snapshot = connection.transaction()?;
        let users = snapshot
            .prepare("SELECT username, email, points, status FROM users")?
            .query_map([], |row| {
                Ok((row.get(0)?, UserRow { email: row.get(1)?, points: row.get(2)?, status: row.get(3)? }))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let inbox = snapshot
            .prepare("SELECT command, message_id, fingerprint, status, reply FROM inbox")?
            .query_map([], |row| {
                let reply = InboxRow { fingerprint: row.get(2)?, status: row.get(3)?, body: row.get(4)? };
                Ok(((row.get(0)?, message_id(row)?), reply))
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self { users, inbox, ..Self::default() })
    }
}

/// A UUID in its usual form is stored as its 16 bytes, any other id as text.
fn message_id(row: &Row<'_>) -> rusqlite::Result<String> {
    match row.get_ref(1)? {
        ValueRef::Blob(bytes) => Ok(Uuid::from_slice(bytes).expect("16 bytes, by the schema").to_string()),
        text => Ok(text.as_str()?.to_owned()),
    }
}
