//! Flags, each also an environment variable, with defaults that work on a fresh machine.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum, ValueHint};
use url::Url;

use crate::{amqp::connection::BrokerUrl, exit, home::Home};

/// What is wrong with the configuration, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// What is wrong, and what to do.
    pub message: String,
    /// The exit code of a program that ends for it.
    pub exit: u8,
}

impl ConfigError {
    /// Something that has to be changed before the program is started again.
    pub fn new(message: String) -> Self {
        Self { message, exit: exit::CONFIG }
    }
}

const DEFAULT_BROKER: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";

/// Which broker.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Broker")]
pub struct BrokerArgs {
    /// The broker: amqp://user:password@host:5672/vhost (default: the one that `make up` started; where that never ran,
    /// amqp://guest:guest@127.0.0.1:5672/%2f)
    #[arg(long, env = "AMQP_URL", hide_env_values = true, global = true, value_name = "URL")]
    amqp_url: Option<String>,
    /// A file that holds the broker's URL, such as a mounted secret
    #[arg(long, env = "AMQP_URL_FILE", global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    amqp_url_file: Option<OsString>,
}

impl BrokerArgs {
    /// The broker's URL.
    ///
    /// # Errors
    /// [`ConfigError`] if what is named is no URL of a broker, or cannot be read.
    pub fn broker(&self) -> Result<BrokerUrl, ConfigError> {
        let setting = || setting("AMQP_URL", self.amqp_url_file.as_deref());
        self.text()?.parse().map_err(|error| ConfigError::new(format!("{}: {error}", setting())))
    }

    fn named(&self) -> Result<Option<String>, ConfigError> {
        named_or_in_file("AMQP_URL", self.amqp_url.as_deref(), self.amqp_url_file.as_deref())
    }

    fn text(&self) -> Result<String, ConfigError> {
        match self.named()? {
            Some(url) => Ok(url),
            None => match state("AMQP_URL")? {
                Some(url) => Ok(url),
                None => default_broker(Home::find()?),
            },
        }
    }
}

/// Whatever listens on the standard port may be anybody's: it is not taken in the place of a home's own broker that is
/// down.
fn default_broker(home: Option<Home>) -> Result<String, ConfigError> {
    match home.filter(Home::has_had_a_broker) {
        None => Ok(DEFAULT_BROKER.to_owned()),
        Some(home) => Err(ConfigError {
            message: format!(
                "the broker of {} is not running; `make up` starts it, or name another one with AMQP_URL",
                home.path().display()
            ),
            exit: exit::UNAVAILABLE,
        }),
    }
}

/// Where the broker's management API is.
#[derive(Debug, Clone, Args)]
pub struct ManagementArgs {
    /// The broker's management API: http://user:password@host:15672 (default: the one that `make up` started, else the
    /// broker's host and login with port 15672)
    #[arg(
        long,
        env = "AMQP_MANAGEMENT_URL",
        hide_env_values = true,
        global = true,
        value_name = "URL",
        help_heading = "Broker"
    )]
    management_url: Option<String>,
}

impl ManagementArgs {
    /// The management API's URL; it may hold a password.
    ///
    /// # Errors
    /// [`ConfigError`] if what is named is no URL.
    pub fn management(&self, broker: &BrokerArgs) -> Result<Url, ConfigError> {
        let invalid = |error| {
            let example = "it looks like http://user:password@host:15672";
            ConfigError::new(format!("AMQP_MANAGEMENT_URL: not a URL ({error}); {example}"))
        };
        if let Some(named) = self.management_url.as_deref().filter(|named| !named.is_empty()) {
            if is_login_ambiguous(named) {
                return Err(ConfigError::new(format!("AMQP_MANAGEMENT_URL: {AMBIGUOUS_LOGIN}")));
            }
            return Url::parse(named).map_err(invalid);
        }
        // A state file tells of its own broker only.
        if broker.named()?.is_none()
            && let Some(url) = state("AMQP_MANAGEMENT_URL")?
        {
            return Url::parse(&url).map_err(invalid);
        }
        derived(&broker.text()?).map_err(invalid)
    }
}

/// The standard ports of the management plugin, on the broker's host with the broker's login.
fn derived(broker: &str) -> Result<Url, url::ParseError> {
    let broker = Url::parse(broker)?;
    let (scheme, port) = if broker.scheme() == "amqps" { ("https", 15671) } else { ("http", 15672) };
    let login = match (broker.username(), broker.password()) {
        ("", _) => "guest:guest".to_owned(),
        (user, password) => format!("{user}:{}", password.unwrap_or_default()),
    };
    Url::parse(&format!("{scheme}://{login}@{}:{port}", broker.host_str().unwrap_or("localhost")))
}

/// Which store.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// The store: sqlite:/path/to/SERVICE.db or postgresql://user:password@host:5432/database (default: what `make up`
    /// chose, else SERVICE.db in its folder or in the user's data folder)
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// A file that holds the store's URL, such as a mounted secret
    #[arg(long, env = "DATABASE_URL_FILE", global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    database_url_file: Option<OsString>,
}

impl StoreArgs {
    /// The URL of a service's store.
    ///
    /// # Errors
    /// [`ConfigError`] if what is named cannot be read.
    pub fn store(&self, service: &str) -> Result<String, ConfigError> {
        let named = named_or_in_file(
            "DATABASE_URL",
            self.database_url.as_deref(),
            self.database_url_file.as_deref(),
        )?;
        match named {
            Some(url) => Ok(url),
            None => Ok(state("DATABASE_URL")?.unwrap_or(default_store(service)?)),
        }
    }

    /// What holds the store's URL, for people.
    pub fn setting(&self) -> String {
        setting("DATABASE_URL", self.database_url_file.as_deref())
    }
}

/// An absolute path, so that every worker of this machine finds the same file whatever its working directory is.
fn default_store(service: &str) -> Result<String, ConfigError> {
    let folder = match Home::find()? {
        Some(home) => {
            std::path::absolute(home.path()).map_err(|error| ConfigError::new(error.to_string()))?
        }
        None => {
            let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            set("XDG_DATA_HOME")
                .or_else(|| Some(set("HOME")?.join(".local/share")))
                .ok_or_else(|| {
                    ConfigError::new(format!(
                        "neither HOME nor DATABASE_URL is set; set DATABASE_URL=sqlite:/path/to/{service}.db"
                    ))
                })?
                .join("rabbitry")
        }
    };
    Ok(format!("sqlite:{}", folder.join(format!("{service}.db")).display()))
}

/// How to log.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// One line of text or one JSON object for each event
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What to log: a level, or filters as tracing has them (info, or rabbitry=debug,lapin=warn)
    #[arg(
        long,
        env = "RUST_LOG",
        default_value = "info,lapin=off,refinery_core=warn",
        value_name = "FILTER"
    )]
    pub log_level: String,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A URL that is named, or stands in a file that is named. An empty variable is as one that is not set, so clap, which
/// takes it for a value, cannot tell whether both are named.
fn named_or_in_file(
    name: &str,
    value: Option<&str>,
    file: Option<&OsStr>,
) -> Result<Option<String>, ConfigError> {
    let value = value.filter(|value| !value.is_empty());
    let Some(file) = named_file(file) else {
        return Ok(value.map(ToOwned::to_owned));
    };
    // The URL may hold a password.
    if file.to_string_lossy().contains("://") {
        return Err(ConfigError::new(format!(
            "{name}_FILE holds a URL, and is to name a file; {name} takes a URL"
        )));
    }
    if value.is_some() {
        return Err(ConfigError::new(format!("{name} and {name}_FILE are both set; leave one of them out")));
    }
    match fs::read_to_string(file).map(|text| text.trim().to_owned()) {
        Ok(text) if text.is_empty() => {
            Err(ConfigError::new(format!("{name}_FILE ({}) is empty", file.display())))
        }
        Ok(text) => Ok(Some(text)),
        Err(error) => Err(ConfigError::new(format!("{name}_FILE: cannot read {}: {error}", file.display()))),
    }
}

/// Whether an `@` stands behind the first `/`, `?` or `#` of a URL: mostly that one belongs to a password, which would be
/// taken for a port, a path or parameters, and printed.
pub fn is_login_ambiguous(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@'))
}

/// What is wrong with such a URL.
pub const AMBIGUOUS_LOGIN: &str =
    "a / ? # or @ in the login, or an @ behind the host, is written as %2F %3F %23 or %40";

fn named_file(file: Option<&OsStr>) -> Option<&Path> {
    file.filter(|file| !file.is_empty()).map(Path::new)
}

fn setting(name: &str, file: Option<&OsStr>) -> String {
    match named_file(file) {
        Some(file) => format!("{name}_FILE ({})", file.display()),
        None => name.to_owned(),
    }
}

fn state(key: &str) -> Result<Option<String>, ConfigError> {
    let Some(home) = Home::find()? else { return Ok(None) };
    home.state().map(|mut state| state.remove(key)).map_err(|error| {
        ConfigError::new(format!("cannot read the state file in {}: {error}", home.path().display()))
    })
}
