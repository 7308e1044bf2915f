//! The topology: exchanges, queues, bindings and policies, applied and read back.
//!
//! An import is blind: a queue of another type under the same name is accepted and left as it is, and a policy that is
//! shadowed by another is accepted as well. So what is there afterwards is compared with what is wanted.

mod compare;
mod definitions;

pub use compare::{Difference, Object, compare};
pub use definitions::{Binding, Definitions, Exchange, Policy, Queue};

use super::{Management, ManagementError};

/// What became of a topology.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What was there before.
    pub before: Vec<Object>,
    /// What is there now.
    pub after: Vec<Object>,
}

/// Reads back everything that is wanted of a virtual host, and compares it.
///
/// # Errors
/// [`ManagementError`]. Cancel safe.
pub async fn check(
    management: &Management,
    vhost: &str,
    wanted: &Definitions,
) -> Result<Vec<Object>, ManagementError> {
    // Only in this form the broker tells the policy in force from its records, not from statistics 5 seconds old.
    let current = [("disable_stats", "true"), ("enable_queue_totals", "true")];
    let there = Definitions {
        queues: management.get(&["queues", vhost], &current).await?,
        exchanges: management.get(&["exchanges", vhost], &[]).await?,
        bindings: management.get(&["bindings", vhost], &[]).await?,
        policies: management.get(&["policies", vhost], &[]).await?,
    };
    Ok(compare(wanted, &there))
}

/// Creates what is missing and updates policies; then reads back. Nothing is sent if everything is there already.
///
/// # Errors
/// [`ManagementError`]. Cancel safe in that it may be done again.
pub async fn apply(
    management: &Management,
    vhost: &str,
    wanted: &Definitions,
) -> Result<Applied, ManagementError> {
    let before = check(management, vhost, wanted).await?;
    if before.iter().all(|object| object.differences.is_empty()) {
        return Ok(Applied { after: before.clone(), before });
    }
    management.post(&["definitions", vhost], wanted).await?;
    Ok(Applied { before, after: check(management, vhost, wanted).await? })
}
