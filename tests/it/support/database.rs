//! A database of a test's own, gone when the test ends.

use std::sync::Arc;

use rabbitry::users::{
    UserService,
    store::{self, Options, Store},
};
use tempfile::TempDir;

pub(crate) struct Database {
    pub(crate) url: String,
    _dir: TempDir,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { url: format!("sqlite:{}", dir.path().join("users.db").display()), _dir: dir }
    }

    /// What one worker process has: each call makes another.
    pub(crate) async fn open(&self) -> Worker {
        self.open_with(Options::default()).await
    }

    pub(crate) async fn open_with(&self, options: Options) -> Worker {
        let store = store::open(&self.url, options).await.unwrap();
        Worker { service: UserService::new(Arc::clone(&store)), store }
    }
}

/// The store and the service of one worker.
pub(crate) struct Worker {
    pub(crate) service: UserService,
    pub(crate) store: Arc<dyn Store>,
}
