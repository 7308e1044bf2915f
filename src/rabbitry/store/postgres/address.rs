//! Which server: the URL with its parameters, and how sessions to it are opened.

use std::{path::Path, time::Duration};

use percent_encoding::percent_decode_str;
use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Config, Error,
    config::{Host, SslMode, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{self, Trust};
use crate::{config::AMBIGUOUS_LOGIN, limits::CONNECT_TIMEOUT, store::OpenError};

/// Settings of every session; what the URL says in `options` comes after them. A worker that is frozen or cut off must
/// not hold locks for ever, so the server ends what takes too long. Every statement looks up keys: the planner must
/// not keep a plan that it made while the tables were empty, nor compile it.
const SETTINGS: &str = "-c synchronous_commit=on \
    -c statement_timeout=30s -c lock_timeout=5s -c idle_in_transaction_session_timeout=10s \
    -c client_min_messages=warning \
    -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off";

/// When a connection that carries nothing is asked for a sign of life, how often, and after how many it is dead.
const KEEPALIVES: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);
/// How long what was sent may stay without a sign that it has arrived.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// A server, or several of which one takes writes.
#[derive(Clone)]
pub(super) struct Address {
    config: Config,
    tls: MakeRustlsConnect,
    place: String,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// Refused, with what to mend; the password is not told.
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        let refused = |what: String| OpenError::Refused(format!("DATABASE_URL: {what}"));
        let (mut config, parameters) = read(url).map_err(refused)?;
        let place = place(&config);
        let (mode, trust) = parameters.mode_and_trust().map_err(refused)?;
        let tls = tls::connector(&trust).map_err(refused)?;
        let (idle, interval, retries) = KEEPALIVES;
        let options = format!("{SETTINGS} {}", config.get_options().unwrap_or_default());
        config
            .ssl_mode(mode)
            .options(options)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(idle)
            .keepalives_interval(interval)
            .keepalives_retries(retries)
            .tcp_user_timeout(UNACKNOWLEDGED_MAX);
        if config.get_application_name().is_none() {
            let host = gethostname::gethostname();
            config.application_name(format!("rabbitry {}:{}", host.to_string_lossy(), std::process::id()));
        }
        Ok(Self { config, tls, place })
    }

    /// The server and the database, for people.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The server alone.
    pub(super) fn hosts(&self) -> String {
        hosts(&self.config)
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Opens a session. It ends when the client is dropped.
    pub(super) async fn connect(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        // An error of the connection is also the error of whatever waits for an answer.
        Ok((client, tokio::spawn(async move { drop(connection.await) })))
    }
}

/// The URL without its password and its parameters; nothing of a URL that cannot be read.
pub(in crate::store) fn described(url: &str) -> String {
    read(url).map_or_else(|_| "postgresql://…".to_owned(), |(config, _)| place(&config))
}

fn place(config: &Config) -> String {
    let user = config.get_user().map(|user| format!("{user}@")).unwrap_or_default();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("postgresql://{user}{}/{database}", hosts(config))
}

fn hosts(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let host = |(index, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(index)),
        Host::Unix(folder) => format!("{}:{}", folder.display(), port(index)),
    };
    let hosts: Vec<_> = config.get_hosts().iter().enumerate().map(host).collect();
    hosts.join(",")
}

/// The parameters that the driver does not know, or knows less of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    mode: Option<String>,
    root_certificates: Option<String>,
}

fn read(url: &str) -> Result<(Config, Parameters), String> {
    // The driver takes whatever stands before the first @ for the login, but parameters are cut off before.
    if url.split_once('?').is_some_and(|(_, query)| query.contains('@')) {
        return Err(format!("{AMBIGUOUS_LOGIN}; {EXAMPLE}"));
    }
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut parameters = Parameters::default();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = || percent_decode_str(value).decode_utf8_lossy().into_owned();
        match name {
            "sslmode" => parameters.mode = Some(value()),
            "sslrootcert" => parameters.root_certificates = Some(value()),
            _ => rest.push(pair),
        }
    }
    let separator = if rest.is_empty() { "" } else { "?" };
    let config: Config = format!("{address}{separator}{}", rest.join("&"))
        .parse()
        .map_err(|error| format!("{}; {EXAMPLE}", super::fault::described(&error)))?;
    let hosts = config.get_hosts();
    if hosts.is_empty() {
        return Err(format!("no host; {EXAMPLE}"));
    }
    // What stands before the host would be part of a password.
    let odd =
        |host: &Host| matches!(host, Host::Tcp(name) if name.contains(['@', ':']) && !name.contains("::"));
    if hosts.iter().any(odd) {
        return Err(format!("an @ or : in the password is written as %40 or %3A; {EXAMPLE}"));
    }
    Ok((config, parameters))
}

const EXAMPLE: &str = "it looks like postgresql://user:password@host:5432/database";

impl Parameters {
    fn mode_and_trust(&self) -> Result<(SslMode, Trust<'_>), String> {
        let mode = self.mode.as_deref().unwrap_or("prefer");
        let verifies = mode == "verify-full";
        if self.root_certificates.is_some() && !verifies {
            return Err("sslrootcert is looked at with sslmode=verify-full only".to_owned());
        }
        let trust = match self.root_certificates.as_deref() {
            _ if !verifies => Trust::Anybody,
            None | Some("system") => Trust::System,
            Some(path) => Trust::File(Path::new(path)),
        };
        let mode = match mode {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            "require" | "verify-full" => SslMode::Require,
            other => {
                return Err(format!("sslmode is disable, prefer, require or verify-full, not {other:?}"));
            }
        };
        Ok((mode, trust))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        match Address::parse(url) {
            Err(OpenError::Refused(sentence)) => sentence,
            other => panic!("{url} is not refused: {:?}", other.err()),
        }
    }

    #[test]
    fn no_part_of_a_password_is_ever_printed() {
        for password in
            ["zq7wxj", "1234/zq7wxj", "12?zq7wxj", "zq7w#xjzq", "zq7w@xjzq", "zq7w:xjzq", "%zq7wxj"]
        {
            for rest in ["host:5433/shop", "host", "host:port/shop", ":5432", "host/shop?sslmode=odd"] {
                let text = format!("postgresql://ann:{password}@{rest}");
                let told = match Address::parse(&text) {
                    Ok(address) => format!("{} {}", address.place(), described(&text)),
                    Err(error) => format!("{error} {}", described(&text)),
                };
                assert!(!told.contains("zq7w") && !told.contains("xjzq"), "{text}: {told}");
            }
        }
    }

    #[test]
    fn a_place_tells_everything_but_the_password() {
        let described = |url: &str| {
            let place = Address::parse(url).unwrap().place().to_owned();
            assert_eq!(super::described(url), place);
            place
        };
        assert_eq!(described("postgres://ann:s3cret@db:5433/shop"), "postgresql://ann@db:5433/shop");
        assert_eq!(
            described("postgresql://ann:s%40c@db/shop?sslmode=disable"),
            "postgresql://ann@db:5432/shop"
        );
        assert_eq!(
            described("postgresql://ann:s3cret@a:1,b:2/shop?sslmode=require&connect_timeout=3"),
            "postgresql://ann@a:1,b:2/shop"
        );
        assert_eq!(described("postgresql://ann@%2Frun%2Fpg/shop"), "postgresql://ann@/run/pg:5432/shop");
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_its_password() {
        for url in [
            "postgres://ann:s3cret@db/shop?sslmode=verify-ca",
            "postgres://ann:s3cret@db/shop?sslmode=require&sslrootcert=/ca.pem",
            "postgres://ann:s3cret@db/shop?sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
            "postgres://ann:s3cret@db:port/shop",
            "postgres://ann:s3cret@db/shop?sslcert=x",
            "postgres:///shop",
            "postgres://ann:p@s3cret@db/shop",
            "postgres://ann:s3cret",
        ] {
            let sentence = refusal(url);
            assert!(!sentence.contains("s3cret"), "{sentence}");
            assert!(!described(url).contains("s3cret"));
        }
    }

    #[test]
    fn parameters_choose_whom_to_trust() {
        let trust = |query: &str| {
            let (_, parameters) = read(&format!("postgres://ann@db/shop?{query}")).unwrap();
            let (mode, trust) = parameters.mode_and_trust().unwrap();
            (mode, format!("{trust:?}"))
        };
        assert_eq!(trust(""), (SslMode::Prefer, "Anybody".to_owned()));
        assert_eq!(trust("sslmode=require"), (SslMode::Require, "Anybody".to_owned()));
        assert_eq!(trust("sslmode=verify-full"), (SslMode::Require, "System".to_owned()));
        assert_eq!(trust("sslmode=verify-full&sslrootcert=system"), (SslMode::Require, "System".to_owned()));
        let file = "sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem";
        assert_eq!(trust(file), (SslMode::Require, "File(\"/etc/ca.pem\")".to_owned()));
    }

    #[test]
    fn options_of_the_url_come_after_our_own() {
        let address = Address::parse("postgres://ann@db/shop?options=-c%20lock_timeout%3D1s").unwrap();
        let options = address.config().get_options().unwrap();
        assert!(options.contains("synchronous_commit=on"), "{options}");
        assert!(options.ends_with(" -c lock_timeout=1s"), "{options}");
    }
}
