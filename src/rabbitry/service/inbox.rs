//! What was answered before: the inbox that makes a repetition harmless.
//!
//! A row `(command, message id) → fingerprint, reply` is written in the same transaction as the effect. This module
//! decides, without I/O, what a request with an id gets; a store only loads and saves the rows.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Code, Problem, to_json};
use crate::{failpoints::mutant, limits::ID_AHEAD_MAX};

/// How long a reply is remembered by default. It must exceed the longest time the same id may still arrive: the
/// queues' time to live (3 days), and the time clients send again (24 hours).
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A command's content: the first half of SHA-256 over its name and the JSON form of the *parsed* command, so that
/// white space, the order of fields and a default written out make no difference, and a client that serializes its
/// command anew for a second try is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of one command.
    pub fn of(command: &str, content: &impl Serialize) -> Self {
        let mut hash = Sha256::new();
        hash.update(command);
        hash.update([0]);
        hash.update(to_json(content));
        Self::finish(hash)
    }

    /// The fingerprint of an array: its items' JSON forms (of an invalid item: its text) in their order.
    pub(super) fn of_many<'a, C: Serialize + 'a>(
        command: &str,
        items: impl Iterator<Item = (Option<&'a C>, &'a str)>,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(command);
        for (valid, text) in items {
            // A separator that no JSON text contains, so that no two arrays can look the same.
            match valid {
                Some(content) => hash.update([&[1], to_json(content).as_slice()].concat()),
                None => hash.update([&[2], text.as_bytes()].concat()),
            }
        }
        Self::finish(hash)
    }

    fn finish(hash: Sha256) -> Self {
        let digest: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Self(half)
    }
}

/// A remembered reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReply {
    /// The content that was answered.
    pub fingerprint: Fingerprint,
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// `(command, message id)`: ids are per command.
pub type Key = (&'static str, String);

/// The inbox rows that a batch touches.
#[derive(Debug, Default)]
pub struct Inbox {
    rows: HashMap<Key, StoredReply>,
    fresh: Vec<Key>,
}

impl Inbox {
    /// Takes a row that the store holds.
    pub fn add(&mut self, command: &'static str, id: &str, row: StoredReply) {
        self.rows.insert((command, id.to_owned()), row);
    }

    /// The reply that was given for this id, if any.
    ///
    /// # Errors
    /// `idempotency_conflict` if it was given for another content.
    pub fn find(
        &self,
        command: &'static str,
        id: &str,
        fingerprint: Fingerprint,
    ) -> Result<Option<&StoredReply>, Problem> {
        match self.rows.get(&(command, id.to_owned())) {
            None => Ok(None),
            Some(row) if row.fingerprint == fingerprint || mutant!(FingerprintIgnored) => Ok(Some(row)),
            Some(_) => Err(Problem::new(
                Code::IDEMPOTENCY_CONFLICT,
                format!(
                    "message_id {id:?} was used for another content of {command}; use a new id for a new command"
                ),
            )),
        }
    }

    /// Remembers a reply; the store writes it with [`Inbox::fresh`].
    pub fn remember(&mut self, command: &'static str, id: &str, row: StoredReply) {
        let key = (command, id.to_owned());
        self.fresh.push(key.clone());
        self.rows.insert(key, row);
    }

    /// The rows to be written, in the order in which the commands were run.
    pub fn fresh(&self) -> impl Iterator<Item = (&Key, &StoredReply)> {
        self.fresh.iter().map(|key| (key, &self.rows[key]))
    }
}

/// The time in an id that is a `UUIDv7` (RFC 9562, 5.7), in milliseconds since the Unix epoch.
pub fn minted_at(id: &str) -> Option<i64> {
    let uuid = Uuid::try_parse(id).ok().filter(|uuid| uuid.get_version_num() == 7)?;
    let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
    i64::try_from(seconds * 1000 + u64::from(nanos) / 1_000_000).ok()
}

/// Refuses an id whose reply may already have been forgotten, as its command may have been executed then; and one from the
/// future, which would still be taken when its reply has been forgotten.
///
/// # Errors
/// For a `UUIDv7`: `id_expired` if it is older than the retention, `id_from_future` if it lies more than
/// [`ID_AHEAD_MAX`] ahead. Other ids tell no time and pass.
pub fn check_age(id: &str, now: i64, retention: Duration) -> Result<(), Problem> {
    let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let ahead_ms = i64::try_from(ID_AHEAD_MAX.as_millis()).unwrap_or(i64::MAX);
    match minted_at(id) {
        Some(minted) if now.saturating_sub(minted) > retention_ms => Err(Problem::new(
            Code::ID_EXPIRED,
            format!(
                "message_id {id} was made more than {} hours ago, and replies are not remembered longer than that: \
                 the command may have been executed; look at the state, and use a new id to execute it",
                retention.as_secs() / 3600
            ),
        )),
        Some(minted) if minted.saturating_sub(now) > ahead_ms => Err(Problem::new(
            Code::ID_FROM_FUTURE,
            format!(
                "message_id {id} was made {} minutes ahead of the worker's clock, and at most {} are taken; set the clock \
                 of the producer (or of the worker) right, and use a new id",
                minted.saturating_sub(now) / 60_000,
                ID_AHEAD_MAX.as_secs() / 60
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_v7_tells_its_age_and_other_ids_do_not() {
        assert_eq!(minted_at("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"), Some(0x017f_22e2_79b0));
        assert_eq!(minted_at("9073926b-929f-4ce2-8e1c-2b1c3f2a1d11"), None);
        assert_eq!(minted_at("order-17"), None);
    }

    #[test]
    fn an_id_is_taken_from_shortly_before_it_was_made_until_the_retention_has_passed() {
        let minted = 0x017f_22e2_79b0;
        let check =
            |now| check_age("017f22e2-79b0-7cc3-98c4-dc0c0c07398f", now, RETENTION).map_err(|p| p.code.name);
        let retention = i64::try_from(RETENTION.as_millis()).unwrap();
        assert_eq!(check(minted + retention), Ok(()));
        assert_eq!(check(minted + retention + 1), Err("id_expired"));
        let ahead = i64::try_from(ID_AHEAD_MAX.as_millis()).unwrap();
        assert_eq!(check(minted - ahead), Ok(()));
        assert_eq!(check(minted - ahead - 1), Err("id_from_future"));
    }
}
