//! A client of RabbitMQ's management HTTP API.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use ureq::{
    Agent, Body,
    http::{Request, Response},
    tls::{RootCerts, TlsConfig},
};
use url::Url;

use crate::{
    config::ConfigError,
    limits::{CONNECT_TIMEOUT, MANAGEMENT_BYTES_MAX, MANAGEMENT_TIMEOUT},
};

/// What is encoded in a segment of a path: everything but RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why the management API did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// Nobody answers, or not in HTTP; it may come back.
    #[error("the broker's management API does not answer at {url}: {reason}")]
    Unreachable {
        /// Which API.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The login is refused or lacks a right.
    #[error("the broker's management API does not permit {request}: {reason}")]
    NotPermitted {
        /// What was asked for.
        request: String,
        /// What the broker said.
        reason: String,
    },
    /// What was asked for is not there; mostly this is the virtual host.
    #[error("the broker's management API does not know what {request} names: {reason}")]
    NotFound {
        /// What was asked for.
        request: String,
        /// What the broker said.
        reason: String,
    },
    /// The broker does not do it.
    #[error("the broker's management API refuses {request} with status {status}: {reason}")]
    Refused {
        /// What was asked for.
        request: String,
        /// The HTTP status.
        status: u16,
        /// What the broker said.
        reason: String,
    },
    /// The answer is not what this program expects.
    #[error("the broker's management API answers {request} with what cannot be read: {reason}")]
    Unreadable {
        /// What was asked for.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A client of one broker's management API, which never shows its password.
#[derive(Clone)]
pub struct Management {
    agent: Agent,
    /// Without the login.
    base: Url,
    authorization: String,
}

impl fmt::Debug for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Management({})", self.base)
    }
}

impl Management {
    /// A client of the API at `http://user:password@host:port`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ConfigError`] if it is no such URL.
    pub fn new(url: &Url) -> Result<Self, ConfigError> {
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            let example = "it looks like http://user:password@host:15672";
            return Err(ConfigError::new(format!(
                "AMQP_MANAGEMENT_URL: not an http URL with a host; {example}"
            )));
        }
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy();
        let login = format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
        let mut base = url.clone();
        // Both can fail only for a URL without a host.
        let _ = base.set_username("").and_then(|()| base.set_password(None));
        base.set_query(None);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The broker is reached as directly as over AMQP.
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(MANAGEMENT_TIMEOUT));
        let authorization = format!("Basic {}", STANDARD.encode(login));
        Ok(Self { agent: Agent::new_with_config(config.build()), base, authorization })
    }

    /// Reads what the path names below `/api`; the segments are encoded here.
    ///
    /// # Errors
    /// [`ManagementError`]. Cancel safe.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, ManagementError> {
        let body = self.call("GET", path, query, None).await?;
        serde_json::from_slice(&body).map_err(|error| ManagementError::Unreadable {
            request: self.named("GET", path),
            reason: error.to_string(),
        })
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// [`ManagementError`]. When cancelled, it may have happened or not.
    pub async fn post(&self, path: &[&str], body: &impl Serialize) -> Result<(), ManagementError> {
        self.call("POST", path, &[], Some(json(body))).await.map(drop)
    }

    async fn call(
        &self,
        method: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, ManagementError> {
        // The broker takes such a segment out of the path, however it is encoded, and answers for another path.
        if let Some(name) = path.iter().find(|segment| matches!(**segment, "" | "." | "..")) {
            let request = format!("{method} /api/{}", path.join("/"));
            return Err(ManagementError::NotFound {
                request,
                reason: format!("it cannot be asked for {name:?}"),
            });
        }
        let unreachable =
            |reason: String| ManagementError::Unreachable { url: self.base.to_string(), reason };
        let request = Request::builder()
            .method(method)
            .uri(self.address(path, query).as_str())
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .body(body.unwrap_or_default())
            .map_err(|error| unreachable(error.to_string()))?;
        let agent = self.agent.clone();
        let exchange = tokio::task::spawn_blocking(move || {
            let response = agent.run(request)?;
            read(response)
        });
        let answer = exchange.await.map_err(|error| unreachable(error.to_string()))?;
        let (status, body) = answer.map_err(|error| unreachable(error.to_string()))?;
        if (200..300).contains(&status) {
            Ok(body)
        } else {
            Err(refusal(self.named(method, path), status, &body))
        }
    }

    /// A request as it is told to people.
    fn named(&self, method: &str, path: &[&str]) -> String {
        format!("{method} {}", self.address(path, &[]).path())
    }

    fn address(&self, path: &[&str], query: &[(&str, &str)]) -> Url {
        let mut address = self.base.clone();
        // The URL's own way leaves out line breaks, tabs, and segments of dots: another path.
        let segments = path.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, SEGMENT)));
        let prefix = address.path().trim_end_matches('/').to_owned();
        address.set_path(&format!("{prefix}/api{}", segments.collect::<String>()));
        if !query.is_empty() {
            address.query_pairs_mut().extend_pairs(query);
        }
        address
    }
}

fn json(body: &impl Serialize) -> Vec<u8> {
    crate::service::to_json(body)
}

fn read(response: Response<Body>) -> Result<(u16, Vec<u8>), ureq::Error> {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    Ok((status, body.with_config().limit(MANAGEMENT_BYTES_MAX).read_to_vec()?))
}

fn refusal(request: String, status: u16, body: &[u8]) -> ManagementError {
    let text = String::from_utf8_lossy(body);
    let reason = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|answer| answer.get("reason")?.as_str().map(ToOwned::to_owned))
        .unwrap_or_else(|| text.chars().take(200).collect());
    match status {
        401 | 403 => ManagementError::NotPermitted { request, reason },
        404 => ManagementError::NotFound { request, reason },
        _ => ManagementError::Refused { request, status, reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn management(url: &str) -> Management {
        Management::new(&Url::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn the_password_is_never_shown() {
        let management = management("http://ann:s%40cret@broker.example:15672");
        assert_eq!(management.authorization, format!("Basic {}", STANDARD.encode("ann:s@cret")));
        assert_eq!(format!("{management:?}"), "Management(http://broker.example:15672/)");
        let refused =
            Management::new(&Url::parse("amqp://ann:s%40cret@broker.example").unwrap()).unwrap_err();
        assert!(!refused.to_string().contains("cret"), "{refused}");
    }

    #[test]
    fn names_are_encoded_and_a_path_prefix_is_kept() {
        for base in ["http://h:1", "http://h:1/"] {
            let address = management(base).address(&["queues", "/", "a b%/c"], &[("disable_stats", "true")]);
            assert_eq!(address.as_str(), "http://h:1/api/queues/%2F/a%20b%25%2Fc?disable_stats=true");
        }
        let address = management("http://h").address(&["queues", "a\r\n\tb", ".a..~é?#", "..."], &[]);
        assert_eq!(address.path(), "/api/queues/a%0D%0A%09b/.a..~%C3%A9%3F%23/...");
        let address = management("https://h/rabbit/").address(&["overview"], &[]);
        assert_eq!(address.as_str(), "https://h/rabbit/api/overview");
    }

    #[tokio::test]
    async fn a_name_that_no_path_can_hold_is_not_asked_for() {
        // Nobody listens there: a request would be another error.
        let management = management("http://127.0.0.1:1");
        for name in ["", ".", ".."] {
            let asked = management.get::<Value>(&["queues", name], &[]).await;
            assert!(matches!(asked, Err(ManagementError::NotFound { .. })), "{name:?}: {asked:?}");
        }
    }

    #[test]
    fn statuses_become_errors_that_carry_the_brokers_reason() {
        let body = br#"{"error":"not_authorised","reason":"Not administrator user"}"#;
        let refused = refusal("POST /api/definitions/%2F".to_owned(), 401, body);
        assert!(matches!(refused, ManagementError::NotPermitted { .. }));
        assert!(refused.to_string().ends_with("Not administrator user"), "{refused}");
        assert!(matches!(refusal(String::new(), 404, b"{}"), ManagementError::NotFound { .. }));
        assert!(matches!(refusal(String::new(), 503, b"oops"), ManagementError::Refused { status: 503, .. }));
    }
}
