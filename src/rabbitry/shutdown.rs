//! Stopping: the first signal asks, the second ends at once.

use std::process::exit;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once, which is as safe as `kill -9`.
///
/// # Errors
/// If the process cannot listen for signals.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                info!("stopping: finishing what was delivered; a second signal ends at once");
                cancelled.cancel();
            } else {
                warn!("stopped at once; what is unfinished will be delivered again");
                exit(i32::from(crate::exit::INTERRUPTED));
            }
        }
    });
    Ok(token)
}
