//! Waiting between tries: exponential, with full jitter, for ever.

use std::time::{Duration, Instant};

/// Time between tries. Full jitter spreads many workers that lost the same broker.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    tries: u32,
    tried_at: Instant,
}

impl Backoff {
    /// A back-off whose waits lie between zero and a ceiling that doubles from `first` to `last`.
    pub fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, tries: 0, tried_at: Instant::now() }
    }

    /// The back-off of connections: up to 5 seconds, so that work goes on soon after a broker is back.
    pub fn of_connections() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// The back-off of a store that does not answer: up to 5 seconds.
    pub fn of_store() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }

    /// How long to wait now. Begins anew if what was tried last has lasted longer than the longest wait.
    pub fn next_wait(&mut self) -> Duration {
        if self.tried_at.elapsed() > self.last {
            self.begin_anew();
        }
        let ceiling = self.last.min(self.first.saturating_mul(1 << self.tries.min(20)));
        self.tries = self.tries.saturating_add(1);
        let wait = ceiling.mul_f64(fastrand::f64());
        self.tried_at = Instant::now() + wait;
        wait
    }

    /// Lets the next wait be as short as the first.
    pub fn begin_anew(&mut self) {
        self.tries = 0;
    }

    /// Waits. Cancel safe.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_ceiling_and_not_beyond() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for ceiling in [100, 200, 400, 800, 1000, 1000] {
            assert!(backoff.next_wait() <= Duration::from_millis(ceiling));
        }
    }
}
