//! stub
use super::{OpenError, Options, Store};
use crate::{
    service::{Reply, Request, Unavailable},
    users::commands::Command,
};
use futures::future::BoxFuture;
use std::{path::PathBuf, sync::Arc};
/// stub
pub struct SqliteStore;
impl SqliteStore {
    /// stub
    pub async fn open(_p: PathBuf, _o: Options) -> Result<Self, OpenError> {
        Ok(Self)
    }
}
impl Store for SqliteStore {
    fn apply(&self, _b: Arc<[Request<Command>]>) -> BoxFuture<'_, Result<Vec<Reply>, Unavailable>> {
        Box::pin(async { Ok(vec![]) })
    }
    fn ready(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        Box::pin(async { Ok(()) })
    }
}
