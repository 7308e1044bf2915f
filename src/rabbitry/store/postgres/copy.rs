//! Copying from and to a server.

use tokio_postgres::{Client, Row, types::ToSql};

use super::{
    address::Address,
    fault::{Fault, open_failed, refused_or_unavailable},
    rows::{Column, cell, columns, entity, fingerprint, keys, parameters},
    sql::Sql,
};
use crate::{
    service::{
        Service,
        entity::{Entity, Field},
    },
    store::{
        OpenError,
        copy::{Kept, PAGE, Remembered, Rows, Side, Work},
    },
};

/// A session of its own.
pub(in crate::store) struct Database {
    client: Client,
    place: String,
    service: &'static str,
}

/// Nobody writes, and readers go on. The session may be idle while the other side works.
fn hold(table: &str) -> String {
    format!("SET idle_in_transaction_session_timeout = 0; BEGIN; LOCK TABLE {table}, inbox IN EXCLUSIVE MODE")
}

const PAGE_OF_REPLIES: &str = "
    SELECT command, message_id, fingerprint, status, reply, created_at FROM inbox
    WHERE (command, message_id) > ($1, $2) AND service = $4 ORDER BY command, message_id LIMIT $3";
const FIND_REPLIES: &str = "
    SELECT inbox.* FROM unnest($1::text[], $2::bytea[]) AS wanted (command, message_id)
    CROSS JOIN LATERAL (
        SELECT command, message_id, fingerprint, status, reply, created_at FROM inbox
        WHERE inbox.command = wanted.command COLLATE \"C\" AND inbox.message_id = wanted.message_id
            AND inbox.service = $3 LIMIT 1
    ) AS inbox";
const INSERT_REPLIES: &str = "
    INSERT INTO inbox (service, command, message_id, fingerprint, status, reply, created_at)
    SELECT $7, * FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::smallint[], $5::bytea[], $6::bigint[])
    ON CONFLICT (command, message_id, service) DO NOTHING";

type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Database {
    /// Opens a database whose schema is up to date. Nobody can write to one that is copied from.
    pub(in crate::store) async fn open<S: Service>(url: &str, is_source: bool) -> Result<Self, OpenError> {
        let address = Address::parse(url)?;
        let place = address.place().to_owned();
        let opened = async {
            let (client, _) = address.connect().await?;
            if is_source {
                client.batch_execute(&hold(S::Entity::TABLE.name)).await?;
            }
            Ok(client)
        };
        let client = opened.await.map_err(|error| refused_or_unavailable("copy", &place, &error))?;
        Ok(Self { client, place, service: S::NAME })
    }

    fn failed(&self, fault: &Fault) -> OpenError {
        match fault {
            Fault::Unreadable(_) => OpenError::Refused(format!("{}: {fault}", self.place)),
            _ => open_failed("copy", &self.place, fault),
        }
    }

    async fn read<R>(
        &self,
        sql: &str,
        values: Values<'_>,
        row: fn(&Row) -> Result<R, Fault>,
    ) -> Result<Vec<R>, OpenError> {
        let read = async { self.client.query(sql, values).await?.iter().map(row).collect::<Result<_, _>>() };
        read.await.map_err(|fault: Fault| self.failed(&fault))
    }

    async fn write(&self, sql: &str, values: Values<'_>) -> Result<(), OpenError> {
        let written = self.client.execute(sql, values).await;
        written.map(drop).map_err(|error| self.failed(&error.into()))
    }

    async fn count_of(&self, sql: &str) -> Result<u64, OpenError> {
        let counts = self.read(sql, &[], |row| cell::<i64>(row, 0)).await?;
        Ok(counts.first().copied().unwrap_or_default().cast_unsigned())
    }
}

impl<E: Entity> Side<E> for Database {
    fn place(&self) -> String {
        self.place.clone()
    }
}

impl<E: Entity> Rows<Kept<E>> for Database {
    fn page<'a>(&'a mut self, after: Option<&'a Kept<E>>) -> Work<'a, Vec<Kept<E>>> {
        Box::pin(async move {
            let after = after.map_or(E::Key::TYPE.before_all(), |kept| kept.0.key().value());
            let after = Column::of(E::Key::TYPE, [after].into_iter());
            self.read(&Sql::of::<E>(self.service).pages, &[after.parameter(), &vec![PAGE as i64]], kept).await
        })
    }

    fn find<'a>(&'a mut self, like: &'a [Kept<E>]) -> Work<'a, Vec<Kept<E>>> {
        Box::pin(async move {
            let keys = keys(like.iter().map(|kept| kept.0.key()));
            self.read(&Sql::of::<E>(self.service).find, &[keys.parameter()], kept).await
        })
    }

    fn add<'a>(&'a mut self, rows: &'a [Kept<E>]) -> Work<'a, ()> {
        Box::pin(async move {
            let rows: Vec<&E> = rows.iter().map(|Kept(row)| row).collect();
            self.write(&Sql::of::<E>(self.service).insert, &parameters(&columns(&rows))).await
        })
    }

    fn count(&mut self) -> Work<'_, u64> {
        Box::pin(async move { self.count_of(&Sql::of::<E>(self.service).count).await })
    }
}

fn kept<E: Entity>(row: &Row) -> Result<Kept<E>, Fault> {
    entity(row).map(Kept)
}

impl Rows<Remembered> for Database {
    fn page<'a>(&'a mut self, after: Option<&'a Remembered>) -> Work<'a, Vec<Remembered>> {
        Box::pin(async move {
            // No command is empty.
            let (command, id) = after.map_or(("", ""), |row| (row.command.as_str(), row.id.as_str()));
            self.read(PAGE_OF_REPLIES, &[&command, &id.as_bytes(), &(PAGE as i64), &self.service], remembered)
                .await
        })
    }

    fn find<'a>(&'a mut self, like: &'a [Remembered]) -> Work<'a, Vec<Remembered>> {
        Box::pin(async move {
            let commands: Vec<&str> = like.iter().map(|row| row.command.as_str()).collect();
            let ids: Vec<&[u8]> = like.iter().map(|row| row.id.as_bytes()).collect();
            self.read(FIND_REPLIES, &[&commands, &ids, &self.service], remembered).await
        })
    }

    fn add<'a>(&'a mut self, rows: &'a [Remembered]) -> Work<'a, ()> {
        Box::pin(async move {
            let commands: Vec<&str> = rows.iter().map(|row| row.command.as_str()).collect();
            let ids: Vec<&[u8]> = rows.iter().map(|row| row.id.as_bytes()).collect();
            let fingerprints: Vec<&[u8]> = rows.iter().map(|row| &row.fingerprint[..]).collect();
            let statuses: Vec<i16> = rows.iter().map(|row| row.status.cast_signed()).collect();
            let replies: Vec<&[u8]> = rows.iter().map(|row| row.reply.as_slice()).collect();
            let created: Vec<i64> = rows.iter().map(|row| row.created_at).collect();
            let values: Values<'_> =
                &[&commands, &ids, &fingerprints, &statuses, &replies, &created, &self.service];
            self.write(INSERT_REPLIES, values).await
        })
    }

    fn count(&mut self) -> Work<'_, u64> {
        let sql = format!("SELECT count(*) FROM inbox WHERE service = '{}'", self.service);
        Box::pin(async move { self.count_of(&sql).await })
    }
}

fn remembered(row: &Row) -> Result<Remembered, Fault> {
    Ok(Remembered {
        command: cell(row, 0)?,
        id: String::from_utf8(cell(row, 1)?).map_err(|error| Fault::Unreadable(error.to_string()))?,
        fingerprint: fingerprint(row, 2)?.0,
        status: cell::<i16>(row, 3)?.cast_unsigned(),
        reply: cell(row, 4)?,
        created_at: cell(row, 5)?,
    })
}
