//! The entities that a batch touches, and what became of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    Access, Code, Payload, Problem, Request, Service,
    entity::{Entity, Field, Value},
};

/// What a command needs to have loaded.
#[derive(Debug)]
pub enum Needs<'a, E: Entity> {
    /// Nothing.
    None,
    /// One entity, if it is there.
    Key(&'a E::Key),
    /// Several entities, those of them that are there.
    Keys(Vec<&'a E::Key>),
    /// The first so many entities after a key, in the order of keys; without a key from the first one on.
    Page(Option<&'a E::Key>, u16),
}

impl<'a, E: Entity> Needs<'a, E> {
    /// How many things a command returns at most; an array has room for a bounded number of them.
    pub fn weight(&self) -> usize {
        match self {
            Self::Page(_, limit) => usize::from(*limit).max(1),
            _ => 1,
        }
    }
}

/// A page as it is asked for: after which key, and how many entities.
type PageKey<K> = (Option<K>, u16);

/// What a store has to load before a batch can be run.
#[derive(Debug)]
pub struct Wanted<'a, E: Entity> {
    /// Keys that commands with an effect name, sorted, so that stores lock them in one order.
    pub written: BTreeSet<&'a E::Key>,
    /// Keys that only reads name.
    pub read: BTreeSet<&'a E::Key>,
    /// Pages: after which key, and how many entities.
    pub pages: HashSet<(Option<&'a E::Key>, u16)>,
    /// Inbox rows, `(command, message id)`; reads have none.
    pub replies: BTreeSet<(&'static str, &'a str)>,
}

impl<E: Entity> Default for Wanted<'_, E> {
    fn default() -> Self {
        let (written, read) = (BTreeSet::new(), BTreeSet::new());
        Self { written, read, pages: HashSet::new(), replies: BTreeSet::new() }
    }
}

impl<'a, E: Entity> Wanted<'a, E> {
    /// What the requests name.
    pub fn by<S: Service<Entity = E>>(requests: &'a [Request<S>]) -> Self {
        let mut wanted = Self::default();
        for request in requests {
            wanted.replies.extend(request.inbox_key());
            let access = request.command.access;
            match &request.payload {
                Payload::One(command) => wanted.add(command.needs(), access),
                Payload::Many(items) => {
                    items.iter().flatten().for_each(|command| wanted.add(command.needs(), access));
                }
            }
        }
        wanted.read.retain(|key| !wanted.written.contains(key));
        wanted
    }

    fn add(&mut self, needs: Needs<'a, E>, access: Access) {
        let keys = if access == Access::Write { &mut self.written } else { &mut self.read };
        match needs {
            Needs::None => {}
            Needs::Key(key) => drop(keys.insert(key)),
            Needs::Keys(all) => keys.extend(all),
            Needs::Page(after, limit) => drop(self.pages.insert((after, limit))),
        }
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &'a E::Key> {
        self.written.iter().chain(&self.read).copied()
    }

    /// How many entities a page has to be loaded with: one more tells whether there is a next page, and each one that the
    /// batch removes may be followed by another.
    pub fn rows_of_page(&self, limit: u16) -> usize {
        usize::from(limit) + 1 + self.written.len()
    }
}

/// What the store has to do for a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change<'a, E: Entity> {
    /// It was not there, and is now.
    Created(&'a E),
    /// It was there, and is another now.
    Updated(&'a E),
    /// It was there, and is no longer.
    Removed(&'a E::Key),
}

/// Loaded entities, changed in memory until the store saves them.
#[derive(Debug)]
pub struct Rows<E: Entity> {
    now: i64,
    entities: BTreeMap<E::Key, E>,
    pages: HashMap<PageKey<E::Key>, Vec<E>>,
    /// What was there before each change, to take it back.
    journal: Vec<(E::Key, Option<E>)>,
}

impl<E: Entity> Default for Rows<E> {
    fn default() -> Self {
        Self { now: 0, entities: BTreeMap::new(), pages: HashMap::new(), journal: Vec::new() }
    }
}

impl<E: Entity> Rows<E> {
    /// The entity as the commands so far have left it.
    ///
    /// Only what the command's [`Needs`] named is there.
    pub fn get(&self, key: &E::Key) -> Option<&E> {
        self.entities.get(key)
    }

    /// A copy of an entity that has to be there.
    ///
    /// # Errors
    /// A problem with the code, if it is not.
    pub fn existing(&self, key: &E::Key, missing: Code) -> Result<E, Problem> {
        self.get(key).cloned().ok_or_else(|| {
            let table = E::TABLE.name;
            Problem::new(
                missing,
                match key.value() {
                    Value::Text(key) => format!("there is no {key} in {table}"),
                    Value::Integer(key) => format!("there is no {key} in {table}"),
                    Value::Null => format!("it is not in {table}"),
                },
            )
        })
    }

    /// Creates or changes an entity.
    pub fn put(&mut self, entity: E) {
        let key = entity.key().clone();
        let before = self.entities.insert(key.clone(), entity);
        self.journal.push((key, before));
    }

    /// Removes an entity and returns it, if it was there.
    pub fn remove(&mut self, key: &E::Key) -> Option<E> {
        let before = self.entities.remove(key);
        if before.is_some() {
            self.journal.push((key.clone(), before.clone()));
        }
        before
    }

    /// The page that the command's [`Needs`] named, as the commands so far have left it: its entities, and whether more
    /// follow.
    pub fn page(&self, after: Option<&E::Key>, limit: u16) -> (Vec<&E>, bool) {
        let stored = self.pages.get(&(after.cloned(), limit)).map(Vec::as_slice).unwrap_or_default();
        let mut page: BTreeMap<&E::Key, &E> = stored.iter().map(|entity| (entity.key(), entity)).collect();
        let within = |key: &&E::Key| after.is_none_or(|after| *key > after);
        for key in self.journal.iter().map(|(key, _)| key).filter(within) {
            match self.entities.get(key) {
                Some(entity) => page.insert(key, entity),
                None => page.remove(key),
            };
        }
        let limit = usize::from(limit);
        let more = page.len() > limit;
        (page.into_values().take(limit).collect(), more)
    }

    /// The moment at which the batch is run, in milliseconds since the Unix epoch, by the worker's clock.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Takes an entity that the store holds.
    pub fn add(&mut self, entity: E) {
        self.entities.insert(entity.key().clone(), entity);
    }

    /// Takes a page that the store holds: the first entities after a key, [`Wanted::rows_of_page`] of them.
    pub fn add_page(&mut self, after: Option<&E::Key>, limit: u16, entities: Vec<E>) {
        self.pages.insert((after.cloned(), limit), entities);
    }

    /// Sets the moment that [`Rows::now`] returns.
    pub(super) fn set_now(&mut self, now: i64) {
        self.now = now;
    }

    /// A mark for [`Rows::undo_after`].
    pub(super) fn mark(&self) -> usize {
        self.journal.len()
    }

    /// Takes back what was changed since the mark.
    pub(super) fn undo_after(&mut self, mark: usize) {
        for (key, before) in self.journal.drain(mark..).rev() {
            match before {
                Some(entity) => self.entities.insert(key, entity),
                None => self.entities.remove(&key),
            };
        }
    }

    /// What may differ from what the store holds, in the order of keys, and each key once.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_, E>> {
        let mut first: BTreeMap<&E::Key, bool> = BTreeMap::new();
        for (key, before) in &self.journal {
            first.entry(key).or_insert(before.is_some());
        }
        first.into_iter().filter_map(|(key, was_there)| match (was_there, self.entities.get(key)) {
            (false, Some(entity)) => Some(Change::Created(entity)),
            (true, Some(entity)) => Some(Change::Updated(entity)),
            (true, None) => Some(Change::Removed(key)),
            (false, None) => None,
        })
    }
}
