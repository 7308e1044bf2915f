//! What has happened, so that a test can assert that its fault did.

use std::sync::{Mutex, PoisonError};

use super::rule::Side;

/// What a proxy has done since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were accepted and reached the server.
    pub connections: u64,
    /// Those of them that are open now.
    pub open: u64,
    /// Connections that were reset at once, as they were refused or the server could not be reached.
    pub refused: u64,
    /// Connections that were reset, by command or by a trap.
    pub resets: u64,
    /// Those of them that were reset by a trap.
    pub cuts: u64,
    /// Bytes that were passed on.
    pub bytes_to_server: u64,
    pub bytes_to_client: u64,
    /// Packets in which they were passed on.
    pub packets_to_server: u64,
    pub packets_to_client: u64,
    /// Frames of every kind that were dropped; below, the methods.
    pub frames_dropped: u64,
    pub acks_dropped: u64,
    pub confirms_dropped: u64,
    pub deliveries_dropped: u64,
    pub publishes_dropped: u64,
}

/// Counts for all connections of a proxy. Each thing is counted before its peers can see it.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counters>);

impl Tally {
    pub fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn packet(&self, side: Side, bytes: usize) {
        self.count(|counters| {
            let (total, packets) = match side {
                Side::ToServer => (&mut counters.bytes_to_server, &mut counters.packets_to_server),
                Side::ToClient => (&mut counters.bytes_to_client, &mut counters.packets_to_client),
            };
            *total += bytes as u64;
            *packets += 1;
        });
    }

    pub fn snapshot(&self) -> Counters {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
