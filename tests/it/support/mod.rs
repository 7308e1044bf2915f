//! What the tests share.

pub(crate) mod ask;
pub(crate) mod database;
