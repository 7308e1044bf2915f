//! All SQL of the batches. Each statement takes arrays, so that it is the same for every size of a batch, and all that
//! need no answer of each other are sent together.

use futures::join;
use tokio_postgres::{Row, types::ToSql};

use super::{fault::Fault, session::Session, sql::Sql};
use crate::{
    failpoints::mutant,
    service::{
        Fingerprint,
        entity::{Entity, Field, Type, Unreadable, Value},
        inbox::{Inbox, StoredReply},
        rows::{Change, Rows, Wanted},
    },
};

/// The limit keeps the planner from any other plan than one look into the index for each id.
const FIND_REPLIES: &str = "
    SELECT found.fingerprint, found.status, found.reply, wanted.number
    FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS wanted (command, message_id, number)
    CROSS JOIN LATERAL (
        SELECT * FROM inbox
        WHERE inbox.command = wanted.command COLLATE \"C\" AND inbox.message_id = wanted.message_id
            AND inbox.service = $3 LIMIT 1
    ) AS found";
const INSERT_REPLIES: &str = "
    INSERT INTO inbox (service, command, message_id, fingerprint, status, reply, created_at)
    SELECT $6, new.*, (extract(epoch FROM now()) * 1000)::bigint
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::smallint[], $5::bytea[]) AS new
    ON CONFLICT (command, message_id, service) DO NOTHING";

/// What is sent before and after the statements of a load, in the same round trip; nothing if empty.
#[derive(Clone, Copy)]
pub(super) struct Around {
    pub(super) before: &'static str,
    pub(super) after: &'static str,
}

/// Shows whether replies can be written: what hinders that, a right or a lock, does not hinder an empty transaction.
pub(super) const PROBE: &str = "
    INSERT INTO inbox (service, command, message_id, fingerprint, status, reply, created_at)
    VALUES ('', '', '', decode(repeat('00', 16), 'hex'), 200, '', 0) ON CONFLICT DO NOTHING;
    DELETE FROM inbox WHERE command = ''";

/// Loads what a batch names, in one round trip. Entities that it may change are locked.
///
/// The replies are looked up after the locks: what the worker that had them before has answered is seen.
pub(super) async fn load<E: Entity>(
    session: &Session,
    sql: &Sql,
    around: Around,
    wanted: &Wanted<'_, E>,
) -> Result<(Rows<E>, Inbox), Fault> {
    let pages: Vec<_> = wanted.pages.iter().copied().collect();
    let replies: Vec<_> = wanted.replies.iter().copied().collect();
    let (written, read) = (keys(wanted.written.iter().copied()), keys(wanted.read.iter().copied()));
    let before_all = E::Key::TYPE.before_all();
    let after = pages.iter().map(|(after, _)| after.map_or(before_all, Field::value));
    let after = Column::of(E::Key::TYPE, after);
    let sizes: Vec<i64> = pages.iter().map(|(_, limit)| wanted.rows_of_page(*limit) as i64).collect();
    let commands: Vec<&str> = replies.iter().map(|(command, _)| *command).collect();
    let ids: Vec<&[u8]> = replies.iter().map(|(_, id)| id.as_bytes()).collect();
    let lock = if mutant!(LocksUnsorted) { &sql.lock_unsorted } else { &sql.lock };
    let needed = [
        (lock.as_str(), written.len()),
        (&sql.find, read.len()),
        (&sql.pages, pages.len()),
        (FIND_REPLIES, replies.len()),
    ];
    prepare(session, &needed).await?;
    // `join!` polls in this order, and the first poll sends.
    let (begun, locked, found, listed, answered, ended) = join!(
        execute(session, around.before),
        select(session, lock, written.len(), vec![written.parameter()]),
        select(session, &sql.find, read.len(), vec![read.parameter()]),
        select(session, &sql.pages, pages.len(), vec![after.parameter(), &sizes]),
        select(session, FIND_REPLIES, ids.len(), vec![&commands, &ids, &sql.service]),
        execute(session, around.after),
    );
    begun?;
    let (mut rows, mut inbox) = (Rows::default(), Inbox::default());
    for row in locked?.iter().chain(&found?) {
        rows.add(entity(row)?);
    }
    let number = E::columns().len();
    let mut entities_of_pages = vec![Vec::new(); pages.len()];
    for row in &listed? {
        entities_of_pages[position(row, number)?].push(entity(row)?);
    }
    for ((after, limit), page) in pages.into_iter().zip(entities_of_pages) {
        rows.add_page(after, limit, page);
    }
    for row in &answered? {
        let (command, id) = replies[position(row, 3)?];
        inbox.add(command, id, stored_reply(row)?);
    }
    ended?;
    Ok((rows, inbox))
}

/// Locks entities without looking at them, in one round trip.
pub(super) async fn lock<E: Entity>(
    session: &Session,
    sql: &Sql,
    before: &'static str,
    wanted: &Wanted<'_, E>,
) -> Result<(), Fault> {
    let written = keys(wanted.written.iter().copied());
    session.prepare_cached(&sql.lock).await?;
    let (begun, locked) =
        join!(execute(session, before), select(session, &sql.lock, written.len(), vec![written.parameter()]));
    begun?;
    locked.map(drop)
}

/// Saves what a batch changed, in one round trip; beside the replies the server's time, as a worker's clock may be wrong.
///
/// # Errors
/// [`Fault::Outrun`] if another worker has meanwhile inserted what was not there when it was loaded.
pub(super) async fn save<E: Entity>(
    session: &Session,
    sql: &Sql,
    rows: &Rows<E>,
    inbox: &Inbox,
) -> Result<(), Fault> {
    let (mut created, mut updated, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for change in rows.changes() {
        match change {
            Change::Created(entity) => created.push(entity),
            Change::Updated(entity) => updated.push(entity),
            Change::Removed(key) => removed.push(key),
        }
    }
    let mut fresh: Vec<_> = inbox.fresh().collect();
    fresh.sort_unstable_by_key(|(key, _)| *key);
    let (new, old, gone) = (columns(&created), columns(&updated), keys(removed.iter().copied()));
    let commands: Vec<&str> = fresh.iter().map(|((command, _), _)| *command).collect();
    let ids: Vec<&[u8]> = fresh.iter().map(|((_, id), _)| id.as_bytes()).collect();
    let fingerprints: Vec<&[u8]> = fresh.iter().map(|(_, reply)| &reply.fingerprint.0[..]).collect();
    let statuses: Vec<i16> = fresh.iter().map(|(_, reply)| reply.status.cast_signed()).collect();
    let bodies: Vec<&[u8]> = fresh.iter().map(|(_, reply)| reply.body.as_slice()).collect();
    let replies: Vec<&(dyn ToSql + Sync)> =
        vec![&commands, &ids, &fingerprints, &statuses, &bodies, &sql.service];
    let needed = [
        (sql.insert.as_str(), created.len()),
        (&sql.update, updated.len()),
        (&sql.remove, removed.len()),
        (INSERT_REPLIES, fresh.len()),
    ];
    prepare(session, &needed).await?;
    // Entities before replies, as every worker does.
    let (inserted, changed, deleted, remembered) = join!(
        write(session, &sql.insert, created.len(), parameters(&new)),
        write(session, &sql.update, updated.len(), parameters(&old)),
        write(session, &sql.remove, removed.len(), vec![gone.parameter()]),
        write(session, INSERT_REPLIES, fresh.len(), replies),
    );
    let written = [inserted?, changed?, deleted?, remembered?];
    let sent = [created.len(), updated.len(), removed.len(), fresh.len()].map(|rows| rows as u64);
    if written == sent || mutant!(LostRaceIgnored) { Ok(()) } else { Err(Fault::Outrun) }
}

/// Prepares the statements that are needed for some rows. It is done once in a session, and before the round trip that
/// they are sent in. One that is not needed must not be: even to read a statement, the server waits for locks.
async fn prepare(session: &Session, needed: &[(&str, usize)]) -> Result<(), Fault> {
    for (sql, _) in needed.iter().filter(|(_, rows)| *rows > 0) {
        session.prepare_cached(sql).await?;
    }
    Ok(())
}

async fn execute(session: &Session, sql: &str) -> Result<(), Fault> {
    if sql.is_empty() { Ok(()) } else { Ok(session.batch_execute(sql).await?) }
}

type Parameter<'a> = &'a (dyn ToSql + Sync);

/// Nothing is sent for no rows.
async fn select(
    session: &Session,
    sql: &str,
    rows: usize,
    values: Vec<Parameter<'_>>,
) -> Result<Vec<Row>, Fault> {
    if rows == 0 {
        return Ok(Vec::new());
    }
    let statement = session.prepare_cached(sql).await?;
    Ok(session.query(&statement, &values).await?)
}

/// Nothing is sent for no rows. Returns how many were written.
async fn write(session: &Session, sql: &str, rows: usize, values: Vec<Parameter<'_>>) -> Result<u64, Fault> {
    if rows == 0 {
        return Ok(0);
    }
    let statement = session.prepare_cached(sql).await?;
    Ok(session.execute(&statement, &values).await?)
}

/// The values of one column, as one parameter of a statement.
pub(super) enum Column<'a> {
    Text(Vec<Option<&'a str>>),
    Integer(Vec<Option<i64>>),
}

impl<'a> Column<'a> {
    fn empty(kind: Type, rows: usize) -> Self {
        match kind {
            Type::Text => Self::Text(Vec::with_capacity(rows)),
            Type::Integer => Self::Integer(Vec::with_capacity(rows)),
        }
    }

    /// A value of another type than the column's is written as none, which the server refuses where it matters.
    fn push(&mut self, value: Value<'a>) {
        match (self, value) {
            (Self::Text(all), Value::Text(text)) => all.push(Some(text)),
            (Self::Text(all), _) => all.push(None),
            (Self::Integer(all), Value::Integer(number)) => all.push(Some(number)),
            (Self::Integer(all), _) => all.push(None),
        }
    }

    pub(super) fn of(kind: Type, values: impl Iterator<Item = Value<'a>>) -> Self {
        let mut column = Self::empty(kind, values.size_hint().0);
        values.for_each(|value| column.push(value));
        column
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(all) => all.len(),
            Self::Integer(all) => all.len(),
        }
    }

    pub(super) fn parameter(&self) -> Parameter<'_> {
        match self {
            Self::Text(all) => all,
            Self::Integer(all) => all,
        }
    }
}

/// Keys, as one parameter.
pub(super) fn keys<'a, K: Field>(keys: impl Iterator<Item = &'a K>) -> Column<'a> {
    Column::of(K::TYPE, keys.map(Field::value))
}

/// Entities, column by column.
pub(super) fn columns<'a, E: Entity>(entities: &[&'a E]) -> Vec<Column<'a>> {
    let mut columns: Vec<_> =
        E::columns().into_iter().map(|(_, kind)| Column::empty(kind, entities.len())).collect();
    for entity in entities {
        for (column, value) in columns.iter_mut().zip(entity.values()) {
            column.push(value);
        }
    }
    columns
}

pub(super) fn parameters<'a>(columns: &'a [Column<'_>]) -> Vec<Parameter<'a>> {
    columns.iter().map(Column::parameter).collect()
}

pub(super) fn cell<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T, Fault> {
    row.try_get(column).map_err(|error| Fault::Unreadable(super::fault::described(&error)))
}

/// Which of the wanted a row is of; the database counts from 1.
fn position(row: &Row, column: usize) -> Result<usize, Fault> {
    let number: i64 = cell(row, column)?;
    usize::try_from(number - 1).map_err(|error| Fault::Unreadable(error.to_string()))
}

/// Reads a row that begins with an entity's columns.
pub(super) fn entity<E: Entity>(row: &Row) -> Result<E, Fault> {
    let value = |(column, (_, kind)): (usize, (&str, Type))| {
        Ok(match kind {
            Type::Text => cell::<Option<&str>>(row, column)?.map_or(Value::Null, Value::Text),
            Type::Integer => cell::<Option<i64>>(row, column)?.map_or(Value::Null, Value::Integer),
        })
    };
    let values = E::columns().into_iter().enumerate().map(value).collect::<Result<_, Fault>>()?;
    E::read(values).map_err(|Unreadable(error)| Fault::Unreadable(error))
}

fn stored_reply(row: &Row) -> Result<StoredReply, Fault> {
    Ok(StoredReply {
        fingerprint: fingerprint(row, 0)?,
        status: cell::<i16>(row, 1)?.cast_unsigned(),
        body: cell(row, 2)?,
    })
}

pub(super) fn fingerprint(row: &Row, column: usize) -> Result<Fingerprint, Fault> {
    let bytes = cell::<&[u8]>(row, column)?.try_into();
    Ok(Fingerprint(bytes.map_err(|_| Fault::Unreadable("a fingerprint has 16 bytes".to_owned()))?))
}
