//! The users that a batch touches, and what became of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    commands::{Command, list::List},
    model::{User, Username},
};
use crate::service::{Access, Payload, Problem, Request, batch::State};

/// What a store has to load before a batch can be run.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// Users that commands with an effect name, sorted, so that stores lock them in one order.
    pub written: BTreeSet<&'a Username>,
    /// Users that only reads name.
    pub read: BTreeSet<&'a Username>,
    /// Pages of users by username.
    pub pages: HashSet<&'a List>,
    /// Inbox rows, `(command, message id)`; reads have none.
    pub replies: BTreeSet<(&'static str, &'a str)>,
}

impl<'a> Wanted<'a> {
    /// What the requests name.
    pub fn by(requests: &'a [Request<Command>]) -> Self {
        let mut wanted = Self::default();
        for request in requests {
            wanted.replies.extend(request.inbox_key());
            let access = request.command.access;
            match &request.payload {
                Payload::One(command) => wanted.add(command, access),
                Payload::Many(items) => {
                    items.iter().flatten().for_each(|command| wanted.add(command, access));
                }
            }
        }
        wanted.read.retain(|username| !wanted.written.contains(username));
        wanted
    }

    fn add(&mut self, command: &'a Command, access: Access) {
        match (command, access) {
            (Command::List(list), _) => {
                self.pages.insert(list);
            }
            (command, Access::Write) => self.written.extend(command.username()),
            (command, Access::Read) => self.read.extend(command.username()),
        }
    }

    /// All users by name.
    pub fn usernames(&self) -> impl Iterator<Item = &'a Username> {
        self.written.iter().chain(&self.read).copied()
    }
}

/// Whether the store held a user before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It did not.
    Created,
    /// It did.
    Updated,
}

/// Loaded users, changed in memory until the store saves them.
#[derive(Debug, Default)]
pub struct WorkingSet {
    users: BTreeMap<Username, User>,
    pages: HashMap<List, Vec<User>>,
    /// What was there before each change, to take it back.
    journal: Vec<(Username, Option<User>)>,
}

impl WorkingSet {
    /// Takes a user that the store holds.
    pub fn add(&mut self, user: User) {
        self.users.insert(user.username.clone(), user);
    }

    /// Takes a page that the store holds: the first `limit + 1` users after `after`, by username.
    pub fn add_page(&mut self, list: &List, users: Vec<User>) {
        self.pages.insert(list.clone(), users);
    }

    /// The user as the commands so far have left it.
    pub fn get(&self, username: &Username) -> Option<&User> {
        self.users.get(username)
    }

    /// Changes or creates a user.
    pub fn put(&mut self, user: User) {
        let username = user.username.clone();
        let before = self.users.insert(username.clone(), user);
        self.journal.push((username, before));
    }

    /// The page with what the batch has changed so far: at most `limit + 1` users.
    ///
    /// Users are never deleted, so the first users of the union are among the first of the store or changed here.
    pub fn page(&self, list: &List) -> Vec<&User> {
        let stored = self.pages.get(list).map(Vec::as_slice).unwrap_or_default();
        let mut page: BTreeMap<&Username, &User> = stored.iter().map(|user| (&user.username, user)).collect();
        let changed = self.journal.iter().filter_map(|(username, _)| self.users.get(username));
        let after = |user: &&User| list.after.as_ref().is_none_or(|after| user.username > *after);
        page.extend(changed.filter(after).map(|user| (&user.username, user)));
        page.into_values().take(usize::from(list.limit.get()) + 1).collect()
    }

    /// The users that may differ from what the store holds, sorted by name, and each once.
    pub fn changed(&self) -> impl Iterator<Item = (Change, &User)> {
        let mut first: BTreeMap<&Username, Change> = BTreeMap::new();
        for (username, before) in &self.journal {
            first.entry(username).or_insert(if before.is_some() { Change::Updated } else { Change::Created });
        }
        first.into_iter().filter_map(|(username, change)| Some((change, self.users.get(username)?)))
    }
}

impl State for WorkingSet {
    type Command = Command;

    fn apply(&mut self, command: &Command) -> Result<(u16, Vec<u8>), Problem> {
        command.apply(self)
    }

    fn mark(&self) -> usize {
        self.journal.len()
    }

    fn undo_after(&mut self, mark: usize) {
        for (username, before) in self.journal.drain(mark..).rev() {
            match before {
                Some(user) => self.users.insert(username, user),
                None => self.users.remove(&username),
            };
        }
    }
}
