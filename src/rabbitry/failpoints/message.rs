//! What moments need of the places where they stand: messages to choose by, and errors to return.

use std::io;

use lapin::message::Delivery;
use rusqlite::ffi;
use serde::Serialize;

use crate::service::{Payload, Request, to_json};

/// A message in hand.
pub trait Message {
    /// Whether its id or its body holds this text.
    fn tells(&self, text: &str) -> bool;
}

impl Message for Delivery {
    fn tells(&self, text: &str) -> bool {
        let id = self.properties.message_id().as_ref();
        id.is_some_and(|id| id.as_str().contains(text)) || holds(&self.data, text)
    }
}

impl<C: Serialize> Message for Request<C> {
    fn tells(&self, text: &str) -> bool {
        let content = |command: &C| holds(&to_json(command), text);
        self.id.as_ref().is_some_and(|id| id.contains(text))
            || match &self.payload {
                Payload::One(command) => content(command),
                Payload::Many(items) => items.iter().flatten().any(content),
            }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
}

/// An error on purpose.
#[derive(Debug, thiserror::Error)]
#[error("planted at {0}")]
pub struct Planted(pub(super) &'static str);

/// A failure of the disk, which says nothing of what has happened before it.
impl From<Planted> for rusqlite::Error {
    fn from(planted: Planted) -> Self {
        Self::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR), Some(planted.to_string()))
    }
}

/// A failure of the network.
impl From<Planted> for lapin::Error {
    fn from(planted: Planted) -> Self {
        io::Error::other(planted).into()
    }
}
