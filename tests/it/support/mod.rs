//! What tests share: a virtual host of their own, toy services, workers, and waiting without sleeping.

pub mod ask;
pub mod database;
pub mod frames;
pub mod postgres;
pub mod process;
pub mod toys;
pub mod users;
pub mod vhost;

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// Longest time for something that must happen.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until a condition holds; asks again every few milliseconds, as the broker tells nobody.
///
/// # Panics
/// If it does not hold in time.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let until = Instant::now() + SOON;
    while !condition().await {
        assert!(Instant::now() < until, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a future that must end.
///
/// # Panics
/// If it does not end in time.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}
