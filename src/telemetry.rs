//! Logs: to standard error, one line for each change of state, ids as fields, no payloads and no secrets.

use std::io::stderr;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{ConfigError, LogArgs, LogFormat};

/// Begins to log.
///
/// # Errors
/// [`ConfigError`] if the filter cannot be read.
pub fn init(args: &LogArgs) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&args.log_level)
        .map_err(|error| ConfigError(format!("RUST_LOG: {:?} is no filter: {error}", args.log_level)))?
        // It would log the values of statements, which are payloads.
        .add_directive("tokio_postgres=off".parse().expect("a directive"));
    let subscriber = fmt().with_env_filter(filter).with_writer(stderr);
    match args.log_format {
        LogFormat::Text => subscriber.with_ansi(std::io::IsTerminal::is_terminal(&stderr())).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    // A panic in a command is contained; it is one more event, not a trace on the terminal.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic: {}", panic.payload_as_str().unwrap_or("of another type"));
    }));
    Ok(())
}
