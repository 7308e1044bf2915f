//! Copying a store into another, of whichever kinds: entities and remembered replies.
//!
//! Nobody can write to the source meanwhile. What the target holds already must be rows of the source, so that a copy
//! that was cut off goes on where it was, and nothing else is ever mixed with it. In the end both hold the same.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use super::OpenError;
use crate::service::entity::Entity;

/// Rows that are read or written at a time; each may be a reply of some hundred kilobytes.
pub(super) const PAGE: usize = 200;

/// A remembered reply, as stores keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) command: String,
    pub(super) id: String,
    pub(super) fingerprint: [u8; 16],
    pub(super) status: u16,
    pub(super) reply: Vec<u8>,
    pub(super) created_at: i64,
}

/// What is copied.
pub(super) trait Row: Clone + PartialEq + Send + Sync {
    /// What tells a row from others.
    type Key: Ord + Clone;

    fn key(&self) -> Self::Key;
    /// For people.
    fn name(&self) -> String;
}

/// An entity, as stores keep it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept<E>(pub(super) E);

impl<E: Entity> Row for Kept<E> {
    type Key = E::Key;

    fn key(&self) -> E::Key {
        self.0.key().clone()
    }

    fn name(&self) -> String {
        format!("{:?} of {}", self.0.key(), E::TABLE.name)
    }
}

impl Row for Remembered {
    type Key = (String, String);

    fn key(&self) -> Self::Key {
        (self.command.clone(), self.id.clone())
    }

    fn name(&self) -> String {
        format!("reply to {} with message_id {:?}", self.command, self.id)
    }
}

pub(super) type Work<'a, T> = BoxFuture<'a, Result<T, OpenError>>;

/// The rows of one kind in one store.
pub(super) trait Rows<R> {
    /// The next [`PAGE`] rows after one, in an order of the store's own; the first without one.
    fn page<'a>(&'a mut self, after: Option<&'a R>) -> Work<'a, Vec<R>>;
    /// The rows that have the keys of these, in any order.
    fn find<'a>(&'a mut self, like: &'a [R]) -> Work<'a, Vec<R>>;
    /// Adds rows; those whose keys are there already are left as they are.
    fn add<'a>(&'a mut self, rows: &'a [R]) -> Work<'a, ()>;
    fn count(&mut self) -> Work<'_, u64>;
}

/// A store that is copied from or to.
pub(super) trait Side<E: Entity>: Rows<Kept<E>> + Rows<Remembered> + Send {
    /// The store, for people.
    fn place(&self) -> String;
}

/// How many rows both stores hold after a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Entities.
    pub entities: u64,
    /// Remembered replies.
    pub replies: u64,
}

pub(super) async fn copy<E: Entity>(
    from: &mut dyn Side<E>,
    to: &mut dyn Side<E>,
) -> Result<Copied, OpenError> {
    refuse_others::<E, Kept<E>>(from, to).await?;
    refuse_others::<E, Remembered>(from, to).await?;
    Ok(Copied {
        entities: copy_rows::<E, Kept<E>>(from, to).await?,
        replies: copy_rows::<E, Remembered>(from, to).await?,
    })
}

/// Refuses a target that holds what the source does not.
async fn refuse_others<E: Entity, R: Row>(
    from: &mut (impl Rows<R> + Side<E> + ?Sized),
    to: &mut (impl Rows<R> + Side<E> + ?Sized),
) -> Result<(), OpenError> {
    let mut last = None;
    loop {
        let page: Vec<R> = to.page(last.as_ref()).await?;
        let found = from.find(&page).await?;
        if let Some(other) = first_missing(&page, found) {
            return Err(OpenError::NotDone(format!(
                "{} holds data of its own ({}): a copy goes into an empty store, or goes on with one that was cut off",
                to.place(),
                other.name()
            )));
        }
        match page.into_iter().last() {
            Some(row) => last = Some(row),
            None => return Ok(()),
        }
    }
}

async fn copy_rows<E: Entity, R: Row>(
    from: &mut (impl Rows<R> + Side<E> + ?Sized),
    to: &mut (impl Rows<R> + Side<E> + ?Sized),
) -> Result<u64, OpenError> {
    let mut last = None;
    loop {
        let page: Vec<R> = from.page(last.as_ref()).await?;
        to.add(&page).await?;
        let found = to.find(&page).await?;
        if let Some(missing) = first_missing(&page, found) {
            return Err(differs(to, &missing.name()));
        }
        match page.into_iter().last() {
            Some(row) => last = Some(row),
            None => break,
        }
    }
    let (there, here) = (Rows::<R>::count(from).await?, Rows::<R>::count(to).await?);
    if there == here { Ok(here) } else { Err(differs(to, &format!("{here} rows instead of {there}"))) }
}

fn differs<E: Entity>(to: &(impl Side<E> + ?Sized), what: &str) -> OpenError {
    OpenError::NotDone(format!(
        "{} was changed while it was copied to ({what}); stop all workers, empty it, and copy again",
        to.place()
    ))
}

/// The first of the rows that is not among those found, or is another there.
fn first_missing<R: Row>(rows: &[R], found: Vec<R>) -> Option<&R> {
    let found: BTreeMap<R::Key, R> = found.into_iter().map(|row| (row.key(), row)).collect();
    rows.iter().find(|row| found.get(&row.key()) != Some(*row))
}
