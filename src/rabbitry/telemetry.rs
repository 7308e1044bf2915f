//! Logs: to standard error, one line for each change of state, ids as fields, no payloads and no secrets.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write, stderr},
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::{ConfigError, LogArgs, LogFormat};

/// What lapin and the crates below it are called. At trace they log frames: the login, and bodies.
const AMQP_CRATES: [&str; 5] = ["lapin", "amq_protocol", "async_rs", "io_loop", "pinky_swear"];

/// Begins to log.
///
/// # Errors
/// [`ConfigError`] if the filter cannot be read.
pub fn init(args: &LogArgs) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&args.log_level)
        .map_err(|error| ConfigError::new(format!("RUST_LOG: {:?} is no filter: {error}", args.log_level)))?
        // It would log the values of statements, which are payloads.
        .add_directive("tokio_postgres=off".parse().expect("a directive"));
    let lines = fmt::layer::<Registry>().with_writer(|| StandardError).log_internal_errors(false);
    let lines = match args.log_format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let tells_no_frames = filter_fn(|metadata| {
        let is_amqp = AMQP_CRATES.iter().any(|name| metadata.target().starts_with(name));
        !is_amqp || *metadata.level() <= LevelFilter::DEBUG
    });
    tracing_subscriber::registry().with(lines.with_filter(tells_no_frames)).with(filter).init();
    // A panic in a command is contained; it is one more event, not a trace on the terminal.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic: {}", panic.payload_as_str().unwrap_or("of another type"));
    }));
    Ok(())
}

/// Writes a line to standard error. That it cannot be written changes nothing: who has closed standard error, or let
/// its disk run full, does not want to be told.
pub fn report(line: impl Display) {
    let _ = writeln!(StandardError, "{line}");
}

/// Standard error, whose failures are ignored: tracing would report them there, and panic when it cannot.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
