//! The wall clock, as messages and stores write it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    #[cfg(feature = "failpoints")]
    let now = now.saturating_add(crate::failpoints::clock_shift_ms());
    now
}

/// Seconds since the Unix epoch, as AMQP's timestamps are.
pub fn unix_seconds() -> u64 {
    u64::try_from(unix_ms() / 1000).unwrap_or(0)
}
