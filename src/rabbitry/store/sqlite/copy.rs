//! Copying from and to a file.

use std::{future::ready, path::Path};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    connection::connect,
    fault::failed,
    rows::{self, MessageId, cell, cells, entity, stored_id},
    sql::Sql,
};
use crate::{
    service::entity::{Entity, Field},
    store::{
        OpenError,
        copy::{Kept, PAGE, Remembered, Rows, Side, Work},
    },
};

/// A database that nothing else is done with meanwhile, so its work is done where it is asked for, although it blocks.
pub(in crate::store) struct File {
    connection: Connection,
    place: String,
    service: &'static str,
}

impl File {
    /// Opens a database whose schema is up to date. Nobody can write to one that is copied from.
    pub(in crate::store) fn open(
        service: &'static str,
        path: &Path,
        is_source: bool,
    ) -> Result<Self, OpenError> {
        let open = || {
            let connection = connect(path)?;
            connection.execute_batch(if is_source { "BEGIN IMMEDIATE" } else { "" })?;
            Ok(connection)
        };
        let connection = open().map_err(|error| failed("copy", path, &error))?;
        Ok(Self { connection, place: path.display().to_string(), service })
    }

    fn done<'a, T: Send + 'a>(&self, outcome: rusqlite::Result<T>) -> Work<'a, T> {
        Box::pin(ready(outcome.map_err(|error| failed("copy", Path::new(&self.place), &error))))
    }

    fn count_of(&self, sql: &str) -> rusqlite::Result<u64> {
        self.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
    }
}

impl<E: Entity> Side<E> for File {
    fn place(&self) -> String {
        self.place.clone()
    }
}

impl<E: Entity> Rows<Kept<E>> for File {
    fn page<'a>(&'a mut self, after: Option<&'a Kept<E>>) -> Work<'a, Vec<Kept<E>>> {
        let after = after.map(|kept| kept.0.key());
        let page = rows::page(&self.connection, &Sql::of::<E>(self.service), after, PAGE);
        self.done(page.map(|page| page.into_iter().map(Kept).collect()))
    }

    fn find<'a>(&'a mut self, like: &'a [Kept<E>]) -> Work<'a, Vec<Kept<E>>> {
        let read = || {
            let mut select = self.connection.prepare_cached(&Sql::of::<E>(self.service).find)?;
            let found =
                like.iter().map(|Kept(one)| select.query_row([cell(one.key().value())], entity).optional());
            found.filter_map(Result::transpose).map(|one| one.map(Kept)).collect()
        };
        self.done(read())
    }

    fn add<'a>(&'a mut self, rows: &'a [Kept<E>]) -> Work<'a, ()> {
        let write = || {
            let transaction = self.connection.unchecked_transaction()?;
            let mut insert = transaction.prepare_cached(&Sql::of::<E>(self.service).add)?;
            for Kept(one) in rows {
                insert.execute(cells(one))?;
            }
            drop(insert);
            transaction.commit()
        };
        self.done(write())
    }

    fn count(&mut self) -> Work<'_, u64> {
        self.done(self.count_of(&Sql::of::<E>(self.service).count))
    }
}

const REPLIES: &str = "SELECT command, message_id, fingerprint, status, reply, created_at FROM inbox";

impl Rows<Remembered> for File {
    fn page<'a>(&'a mut self, after: Option<&'a Remembered>) -> Work<'a, Vec<Remembered>> {
        let read = || {
            // The order of the index: texts come before UUIDs. No command is empty.
            let sql = format!(
                "{REPLIES} WHERE (command, message_id) > (?, ?) AND service = ? ORDER BY command, message_id LIMIT ?"
            );
            let (command, id) = after.map_or(("", ""), |row| (row.command.as_str(), row.id.as_str()));
            let values = params![command, MessageId::of(id), self.service, PAGE as i64];
            self.connection.prepare_cached(&sql)?.query_map(values, remembered)?.collect()
        };
        self.done(read())
    }

    fn find<'a>(&'a mut self, like: &'a [Remembered]) -> Work<'a, Vec<Remembered>> {
        let read = || {
            let sql = format!("{REPLIES} WHERE command = ? AND message_id = ? AND service = ?");
            let mut select = self.connection.prepare_cached(&sql)?;
            let found = like.iter().map(|one| {
                let key = params![one.command, MessageId::of(&one.id), self.service];
                select.query_row(key, remembered).optional()
            });
            found.filter_map(Result::transpose).collect()
        };
        self.done(read())
    }

    fn add<'a>(&'a mut self, rows: &'a [Remembered]) -> Work<'a, ()> {
        let write = || {
            let transaction = self.connection.unchecked_transaction()?;
            let sql =
                "INSERT INTO inbox (service, command, message_id, fingerprint, status, reply, created_at)
                       VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
            let mut insert = transaction.prepare_cached(sql)?;
            for Remembered { command, id, fingerprint, status, reply, created_at } in rows {
                insert.execute(params![
                    self.service,
                    command,
                    MessageId::of(id),
                    fingerprint,
                    status,
                    reply,
                    created_at
                ])?;
            }
            drop(insert);
            transaction.commit()
        };
        self.done(write())
    }

    fn count(&mut self) -> Work<'_, u64> {
        self.done(self.count_of(&format!("SELECT count(*) FROM inbox WHERE service = '{}'", self.service)))
    }
}

fn remembered(row: &Row<'_>) -> rusqlite::Result<Remembered> {
    Ok(Remembered {
        command: row.get(0)?,
        id: stored_id(row, 1)?,
        fingerprint: row.get(2)?,
        status: row.get(3)?,
        reply: row.get(4)?,
        created_at: row.get(5)?,
    })
}
