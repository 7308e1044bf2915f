//! Opening connections: names, time-outs, and errors that tell what to do.

use std::{fmt, str::FromStr};

use deadpool_lapin::{Manager, Object, Pool, PoolError, Runtime};
use lapin::{
    Connection, ConnectionProperties, DefaultConnectionBuilder, ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
    uri::AMQPUri,
};
use tokio::time::timeout;
use tracing::debug;
use url::{Host, Url};

use crate::config::{AMBIGUOUS_LOGIN, is_login_ambiguous};
use crate::limits::{CLOSE_TIMEOUT, CONNECT_TIMEOUT, HEARTBEAT_SECONDS, POOL_SIZE};

/// A broker's URL, which never shows its password.
#[derive(Clone)]
pub struct BrokerUrl(AMQPUri);

impl BrokerUrl {
    /// Host and port, for people.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.0.authority.host, self.0.authority.port)
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.0.vhost
    }

    /// Whether the broker runs on this machine, as far as its name tells.
    pub fn is_local(&self) -> bool {
        let host = self.0.authority.host.as_str();
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            || gethostname::gethostname().to_str() == Some(host)
    }

    /// The URL as lapin takes it.
    pub(crate) fn uri(&self) -> &AMQPUri {
        &self.0
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vhost = if self.0.vhost == "/" { "%2f" } else { &self.0.vhost };
        write!(f, "{}://{}/{vhost}", self.0.scheme, self.authority())
    }
}

impl FromStr for BrokerUrl {
    type Err = String;

    /// Reads `amqp://user:password@host:port/vhost?heartbeat=10`.
    fn from_str(text: &str) -> Result<Self, String> {
        // The text may hold a password, so no message repeats it.
        let example = "it looks like amqp://user:password@host:5672/%2f";
        if is_login_ambiguous(text) {
            return Err(format!("{AMBIGUOUS_LOGIN}; {example}"));
        }
        let url = Url::parse(text).map_err(|error| format!("not a URL ({error}); {example}"))?;
        // lapin takes the host of such a URL for "localhost" without a word.
        if matches!(url.host(), None | Some(Host::Ipv6(_))) {
            return Err(format!("no host name (IPv6 literals are not supported); {example}"));
        }
        let mut uri = AMQPUri::from_str(text).map_err(|error| format!("{error}; {example}"))?;
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(Self(uri))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers; it may come back.
    #[error("no RabbitMQ broker answers at {broker}: {reason}")]
    Unreachable {
        /// Which broker.
        broker: String,
        /// What happened.
        reason: String,
    },
    /// The login, the virtual host or what they are to do is refused; somebody has to change something.
    #[error("the broker at {broker} refuses the login, the virtual host or a right: {reason}")]
    NotPermitted {
        /// Which broker.
        broker: String,
        /// What the broker said.
        reason: String,
    },
}

/// The client property that tells where a worker keeps its state.
pub const STORE_PROPERTY: &str = "store";
/// The client property that is the same for workers of the same store, whatever they call it.
pub const STORE_ID_PROPERTY: &str = "store_id";

/// Opens a connection that shows its name in the management UI.
///
/// lapin's own recovery stays off: it can stop a consumer without a word. Whoever holds a connection drops it on any
/// error and opens another.
///
/// # Errors
/// [`ConnectError`]. Cancel safe.
pub async fn connect(url: &BrokerUrl, name: &str) -> Result<Connection, ConnectError> {
    connect_telling(url, name, &[]).await
}

/// Opens a connection like [`connect`] with more client properties than its name, which the broker shows.
///
/// # Errors
/// [`ConnectError`]. Cancel safe.
pub async fn connect_telling(
    url: &BrokerUrl,
    name: &str,
    told: &[(&'static str, &str)],
) -> Result<Connection, ConnectError> {
    let unreachable = |reason: String| ConnectError::Unreachable { broker: url.to_string(), reason };
    let mut properties = ConnectionProperties::default().with_connection_name(name.into());
    for &(key, value) in told {
        properties = properties.with_client_property(key.into(), value.into());
    }
    let builder = DefaultConnectionBuilder::new()
        .map_err(|error| unreachable(error.to_string()))?
        .with_uri(url.uri().clone())
        .with_properties(properties);
    match timeout(CONNECT_TIMEOUT, builder.connect()).await {
        Err(_) => Err(unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) if is_refusal(&error) => {
            Err(ConnectError::NotPermitted { broker: url.to_string(), reason: error.to_string() })
        }
        Ok(Err(error)) => Err(unreachable(error.to_string())),
    }
}

/// A pool of named connections for publishers; see [`super::client::Client`].
pub fn pool(url: &BrokerUrl, name: &str) -> Pool {
    let name = name.to_owned();
    let properties = move || ConnectionProperties::default().with_connection_name(name.clone().into());
    let runtime = lapin::runtime::default_runtime().expect("a pool is made within the runtime");
    // deadpool's own defaults have no time-outs, so that taking a connection could wait for ever.
    Pool::builder(Manager::new(url.uri().to_string(), properties, runtime))
        .max_size(POOL_SIZE)
        .wait_timeout(Some(CONNECT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(CONNECT_TIMEOUT))
        .runtime(Runtime::Tokio1)
        .build()
        .expect("time-outs have a runtime")
}

/// Takes a connection out of a pool.
///
/// # Errors
/// [`ConnectError`]. Cancel safe.
pub async fn take(pool: &Pool, url: &BrokerUrl) -> Result<Connection, ConnectError> {
    let broker = url.to_string();
    match pool.get().await {
        Ok(connection) => Ok(Object::take(connection)),
        Err(PoolError::Backend(error)) if is_refusal(&error) => {
            Err(ConnectError::NotPermitted { broker, reason: error.to_string() })
        }
        // The pool's own words would say no more than that there is no connection.
        Err(PoolError::Backend(error)) => {
            Err(ConnectError::Unreachable { broker, reason: error.to_string() })
        }
        Err(error) => Err(ConnectError::Unreachable { broker, reason: error.to_string() }),
    }
}

/// Closes a connection, or drops it if the broker does not answer.
///
/// Its channels have to be kept until then: lapin closes a channel that is dropped, and while it does, refuses to close
/// the connection. Dropped then without the broker's answer, the socket takes along what the broker has not read yet:
/// replies and acknowledgements (tried: in one of three rounds of 254 messages some were lost).
pub async fn close(connection: &Connection) {
    // A broker that is blocked or gone never answers a close; nothing more is lost by dropping the connection.
    match timeout(CLOSE_TIMEOUT, connection.close(200, "done".into())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection was dropped instead of closed"),
        Err(_) => debug!("connection was dropped instead of closed: the broker does not answer"),
    }
}

fn is_refusal(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => matches!(
            error.kind(),
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
        ),
        _ => false,
    }
}

/// Whether the broker said that a queue or an exchange does not exist.
pub fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error)
        if *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}

/// Whether the broker said that the login lacks a right.
pub fn is_access_refused(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error)
        if *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED))
}

/// Whether the broker refuses what was asked of one queue, rather than the whole connection: it is not there, another
/// consumer has it for itself, or the queue fails.
pub fn is_about_a_queue(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error)
        if matches!(error.kind(), AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR)))
}

/// This process, as a person recognises it: host name and process id.
pub fn process_name() -> String {
    format!("{}:{}", gethostname::gethostname().to_string_lossy(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_never_shows_its_password() {
        let url: BrokerUrl = "amqp://ann:secret@broker.example:5673/shop".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), ["amqp://broker.example:5673/shop"; 2].join(" "));
        let refused = "amqp://ann:secret@[::1]:5672/".parse::<BrokerUrl>().unwrap_err();
        assert!(!refused.contains("secret"), "{refused}");
    }

    #[test]
    fn no_part_of_a_password_is_ever_printed() {
        // Pieces that no message holds by itself.
        for password in [
            "zq7wxj",
            "1234/zq7wxj",
            "zq7w?xjzq",
            "zq7w#xjzq",
            "zq7w@xjzq",
            "zq7w:xjzq",
            "5672/zq7w@xjzq",
            "%zq7wxj",
        ] {
            for rest in
                ["host:5673/shop", "host", "host/", "host:port", "[::1]/", ":5672", "host/?heartbeat=many"]
            {
                let text = format!("amqp://ann:{password}@{rest}");
                let told = match text.parse::<BrokerUrl>() {
                    Ok(url) => format!("{url} {url:?} {}", url.authority()),
                    Err(error) => error,
                };
                assert!(!told.contains("zq7w") && !told.contains("xjzq"), "{text}: {told}");
            }
        }
    }

    #[test]
    fn the_default_virtual_host_may_be_written_in_every_usual_way() {
        for text in
            ["amqp://127.0.0.1", "amqp://127.0.0.1/", "amqp://127.0.0.1/%2f", "amqp://127.0.0.1:5672/%2F"]
        {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!((url.vhost(), url.authority().as_str()), ("/", "127.0.0.1:5672"), "{text}");
        }
    }

    #[test]
    fn what_lapin_would_take_for_localhost_is_refused() {
        for text in ["amqp://[::1]:5672/", "amqp:///", "localhost:5672", "http://localhost", ""] {
            assert!(text.parse::<BrokerUrl>().is_err(), "{text}");
        }
    }
}
