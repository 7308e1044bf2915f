//! All SQL of the batches. Each statement takes arrays, so that it is the same for every size of a batch, and all that
//! need no answer of each other are sent together.

use futures::join;
use tokio_postgres::{Row, types::ToSql};

use super::{fault::Fault, session::Session};
use crate::{
    failpoints::mutant,
    service::{
        Fingerprint,
        inbox::{Inbox, StoredReply},
    },
    users::{
        commands::list::List,
        model::{Email, Points, User, Username},
        working_set::{Change, Wanted, WorkingSet},
    },
};

/// In the order of the keys, which all workers lock in.
const LOCK_USERS: &str =
    "SELECT username, email, points, status FROM users WHERE username = ANY($1) ORDER BY username FOR UPDATE";
const LOCK_USERS_UNSORTED: &str = "SELECT username, email, points, status FROM users WHERE username = ANY($1) \
                                   ORDER BY md5(username || pg_backend_pid()) FOR UPDATE";
const FIND_USERS: &str = "SELECT username, email, points, status FROM users WHERE username = ANY($1)";
const FIND_PAGES: &str = "
    SELECT u.username, u.email, u.points, u.status, page.number
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS page (after, size, number)
    CROSS JOIN LATERAL (
        SELECT * FROM users WHERE username > page.after COLLATE \"C\" ORDER BY username LIMIT page.size
    ) AS u
    ORDER BY page.number, u.username";
/// The limit keeps the planner from any other plan than one look into the index for each id.
const FIND_REPLIES: &str = "
    SELECT found.fingerprint, found.status, found.reply, wanted.number
    FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS wanted (command, message_id, number)
    CROSS JOIN LATERAL (
        SELECT * FROM inbox
        WHERE inbox.command = wanted.command COLLATE \"C\" AND inbox.message_id = wanted.message_id LIMIT 1
    ) AS found";
pub(super) const INSERT_USERS: &str = "
    INSERT INTO users (username, email, points, status)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
    ON CONFLICT (username) DO NOTHING";
const UPDATE_USERS: &str = "
    UPDATE users SET email = new.email, points = new.points, status = new.status
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS new (username, email, points, status)
    WHERE users.username = new.username COLLATE \"C\"";
const INSERT_REPLIES: &str = "
    INSERT INTO inbox (command, message_id, fingerprint, status, reply, created_at)
    SELECT new.*, $6::bigint
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::smallint[], $5::bytea[]) AS new
    ON CONFLICT (command, message_id) DO NOTHING";

/// What is sent before and after the statements of a load, in the same round trip; nothing if empty.
#[derive(Clone, Copy)]
pub(super) struct Around {
    pub(super) before: &'static str,
    pub(super) after: &'static str,
}

/// Shows whether users and replies can be written: what hinders that, a right or a lock, does not hinder an empty
/// transaction.
pub(super) const PROBE: &str = "
    UPDATE users SET points = points WHERE false;
    INSERT INTO inbox VALUES ('', '', decode(repeat('00', 16), 'hex'), 200, '', 0) ON CONFLICT DO NOTHING;
    DELETE FROM inbox WHERE command = ''";

/// Loads what a batch names, in one round trip. Users that it may change are locked.
///
/// The replies are looked up after the locks: what the worker that had them before has answered is seen.
pub(super) async fn load(
    session: &Session,
    around: Around,
    wanted: &Wanted<'_>,
) -> Result<(WorkingSet, Inbox), Fault> {
    let pages: Vec<&List> = wanted.pages.iter().copied().collect();
    let replies: Vec<_> = wanted.replies.iter().copied().collect();
    let written = names(wanted.written.iter().copied());
    let read = names(wanted.read.iter().copied());
    // No username is empty.
    let after: Vec<&str> =
        pages.iter().map(|list| list.after.as_ref().map_or("", Username::as_str)).collect();
    let sizes: Vec<i64> = pages.iter().map(|list| i64::from(list.limit.get()) + 1).collect();
    let commands: Vec<&str> = replies.iter().map(|(command, _)| *command).collect();
    let ids: Vec<&[u8]> = replies.iter().map(|(_, id)| id.as_bytes()).collect();
    let lock_users = if mutant!(LocksUnsorted) { LOCK_USERS_UNSORTED } else { LOCK_USERS };
    let needed = [
        (lock_users, written.len()),
        (FIND_USERS, read.len()),
        (FIND_PAGES, pages.len()),
        (FIND_REPLIES, replies.len()),
    ];
    prepare(session, &needed).await?;
    // `join!` polls in this order, and the first poll sends.
    let (begun, locked, found, listed, answered, ended) = join!(
        execute(session, around.before),
        select(session, lock_users, written.len(), [&written]),
        select(session, FIND_USERS, read.len(), [&read]),
        select(session, FIND_PAGES, pages.len(), [&after, &sizes]),
        select(session, FIND_REPLIES, ids.len(), [&commands, &ids]),
        execute(session, around.after),
    );
    begun?;
    let (mut users, mut inbox) = (WorkingSet::default(), Inbox::default());
    for row in locked?.iter().chain(&found?) {
        users.add(user(row)?);
    }
    let mut users_of_pages = vec![Vec::new(); pages.len()];
    for row in &listed? {
        users_of_pages[position(row, 4)?].push(user(row)?);
    }
    for (list, page) in pages.into_iter().zip(users_of_pages) {
        users.add_page(list, page);
    }
    for row in &answered? {
        let (command, id) = replies[position(row, 3)?];
        inbox.add(command, id, stored_reply(row)?);
    }
    ended?;
    Ok((users, inbox))
}

/// Locks users without looking at them, in one round trip.
pub(super) async fn lock(session: &Session, before: &'static str, wanted: &Wanted<'_>) -> Result<(), Fault> {
    let written = names(wanted.written.iter().copied());
    session.prepare_cached(LOCK_USERS).await?;
    let (begun, locked) =
        join!(execute(session, before), select(session, LOCK_USERS, written.len(), [&written]));
    begun?;
    locked.map(drop)
}

/// Saves what a batch changed, in one round trip. `now` is written beside the replies, in milliseconds since the Unix
/// epoch.
///
/// # Errors
/// [`Fault::Outrun`] if another worker has meanwhile inserted what was not there when it was loaded.
pub(super) async fn save(
    session: &Session,
    users: &WorkingSet,
    inbox: &Inbox,
    now: i64,
) -> Result<(), Fault> {
    let of = |wanted: Change| {
        users.changed().filter(move |(change, _)| *change == wanted).map(|(_, user)| user).collect::<Vec<_>>()
    };
    let (created, updated) = (of(Change::Created), of(Change::Updated));
    let mut fresh: Vec<_> = inbox.fresh().collect();
    fresh.sort_unstable_by_key(|(key, _)| *key);
    let (new, old) = (Columns::of(&created), Columns::of(&updated));
    let commands: Vec<&str> = fresh.iter().map(|((command, _), _)| *command).collect();
    let ids: Vec<&[u8]> = fresh.iter().map(|((_, id), _)| id.as_bytes()).collect();
    let fingerprints: Vec<&[u8]> = fresh.iter().map(|(_, reply)| &reply.fingerprint.0[..]).collect();
    let statuses: Vec<i16> = fresh.iter().map(|(_, reply)| reply.status.cast_signed()).collect();
    let bodies: Vec<&[u8]> = fresh.iter().map(|(_, reply)| reply.body.as_slice()).collect();
    let needed =
        [(INSERT_USERS, created.len()), (UPDATE_USERS, updated.len()), (INSERT_REPLIES, fresh.len())];
    prepare(session, &needed).await?;
    // Users before replies, as every worker does.
    let (inserted, changed, remembered) = join!(
        write(session, INSERT_USERS, created.len(), new.parameters()),
        write(session, UPDATE_USERS, updated.len(), old.parameters()),
        write(
            session,
            INSERT_REPLIES,
            fresh.len(),
            [&commands, &ids, &fingerprints, &statuses, &bodies, &now]
        ),
    );
    let (inserted, changed, remembered) = (inserted?, changed?, remembered?);
    let sent = (created.len() as u64, updated.len() as u64, fresh.len() as u64);
    if (inserted, changed, remembered) == sent || mutant!(LostRaceIgnored) {
        Ok(())
    } else {
        Err(Fault::Outrun)
    }
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

type Value<'a> = &'a (dyn ToSql + Sync);

/// Nothing is sent for no rows.
async fn select<const N: usize>(
    session: &Session,
    sql: &str,
    rows: usize,
    values: [Value<'_>; N],
) -> Result<Vec<Row>, Fault> {
    if rows == 0 {
        return Ok(Vec::new());
    }
    let statement = session.prepare_cached(sql).await?;
    Ok(session.query(&statement, &values).await?)
}

/// Nothing is sent for no rows. Returns how many were written.
async fn write<const N: usize>(
    session: &Session,
    sql: &str,
    rows: usize,
    values: [Value<'_>; N],
) -> Result<u64, Fault> {
    if rows == 0 {
        return Ok(0);
    }
    let statement = session.prepare_cached(sql).await?;
    Ok(session.execute(&statement, &values).await?)
}

/// Users, column by column.
pub(super) struct Columns<'a> {
    usernames: Vec<&'a str>,
    emails: Vec<&'a str>,
    points: Vec<i64>,
    statuses: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(users: &[&'a User]) -> Self {
        Self {
            usernames: users.iter().map(|user| user.username.as_str()).collect(),
            emails: users.iter().map(|user| user.email.as_str()).collect(),
            points: users.iter().map(|user| user.points.as_i64()).collect(),
            statuses: users.iter().map(|user| user.status.as_str()).collect(),
        }
    }

    pub(super) fn parameters(&self) -> [Value<'_>; 4] {
        [&self.usernames, &self.emails, &self.points, &self.statuses]
    }
}

fn names<'a>(usernames: impl Iterator<Item = &'a Username>) -> Vec<&'a str> {
    usernames.map(Username::as_str).collect()
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

pub(super) fn user(row: &Row) -> Result<User, Fault> {
    Ok(User {
        username: Username::stored(cell(row, 0)?),
        email: Email::stored(cell(row, 1)?),
        points: Points::try_from(cell::<i64>(row, 2)?).map_err(Fault::Unreadable)?,
        status: cell::<&str>(row, 3)?.parse().map_err(Fault::Unreadable)?,
    })
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
