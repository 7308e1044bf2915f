//! A TCP proxy that harms connections as it is told, while it runs: it delays, throttles, slices, holds, resets and
//! cuts them, and takes AMQP 0-9-1 frames out of them. All but the last works for any protocol without TLS.

mod connection;
pub mod counters;
pub mod filter;
pub mod frames;
mod pump;
pub mod rule;
mod trap;

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, lookup_host},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use connection::{Acceptor, Ending};
pub use counters::Counters;
use counters::Tally;
use rule::Side;
pub use rule::{Class, Direction, Rule};
use trap::{Place, Trap};

/// What holds for all connections, present and future.
#[derive(Debug)]
struct Settings {
    to_server: Rule,
    to_client: Rule,
    refuses: bool,
    trap: Option<Arc<Trap>>,
    /// How many endings were commanded, and which was the last. A connection ends when the number grows.
    ends: u64,
    ending: Ending,
}

impl Settings {
    fn rule(&self, side: Side) -> &Rule {
        match side {
            Side::ToServer => &self.to_server,
            Side::ToClient => &self.to_client,
        }
    }
}

/// The proxy. When it is dropped, its connections are too, without a word to the peers but a closed socket.
///
/// What a call sets holds for every byte that is read after it, and for bytes that a former rule holds back. Only the
/// bytes that are being written at that moment, at most 16 KiB for each connection, still go by the former rule.
pub struct Proxy {
    address: SocketAddr,
    settings: watch::Sender<Settings>,
    tally: Arc<Tally>,
    _acceptor: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own for a server, such as `127.0.0.1:5672`. The seed decides all that is random.
    ///
    /// # Panics
    /// If the server's name cannot be resolved, or there is no port.
    pub async fn start(server: &str, seed: u64) -> Self {
        let mut found =
            lookup_host(server).await.unwrap_or_else(|error| panic!("no address {server}: {error}"));
        let server = found.next().unwrap_or_else(|| panic!("no address {server}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the proxy can listen");
        let address = listener.local_addr().expect("a listener has an address");
        let (settings, seen) = watch::channel(Settings {
            to_server: Rule::Pass,
            to_client: Rule::Pass,
            refuses: false,
            trap: None,
            ends: 0,
            ending: Ending::Orderly,
        });
        let tally = Arc::new(Tally::default());
        let acceptor = Acceptor { listener, server, settings: seen, tally: Arc::clone(&tally), seed };
        let acceptor = AbortOnDropHandle::new(tokio::spawn(acceptor.run()));
        Self { address, settings, tally, _acceptor: acceptor }
    }

    /// Starts before the server that a URL leads to.
    ///
    /// # Panics
    /// Like [`Proxy::start`], and if the URL has no host, or neither a port nor a scheme whose port is known.
    pub async fn before(url: &str, seed: u64) -> Self {
        let url = parse(url);
        let usual = match url.scheme() {
            "amqp" => Some(5672),
            "postgres" | "postgresql" => Some(5432),
            _ => None,
        };
        let port = url.port().or(usual).unwrap_or_else(|| panic!("a {} URL needs a port", url.scheme()));
        let host = url.host_str().expect("a URL of a server has a host");
        Self::start(&format!("{host}:{port}"), seed).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same URL, through the proxy.
    ///
    /// # Panics
    /// If it is not a URL with a host.
    pub fn url(&self, url: &str) -> String {
        let mut url = parse(url);
        url.set_ip_host(self.address.ip()).expect("the URL has a host");
        url.set_port(Some(self.address.port())).expect("the URL has a host");
        url.into()
    }

    /// Sets what happens to the bytes of a direction.
    ///
    /// # Panics
    /// If the rule can have no effect there.
    pub fn set(&self, direction: Direction, rule: &Rule) {
        rule.assert_fits(direction);
        self.settings.send_modify(|settings| {
            if direction.covers(Side::ToServer) {
                settings.to_server = rule.clone();
            }
            if direction.covers(Side::ToClient) {
                settings.to_client = rule.clone();
            }
        });
    }

    /// Everything passes from now on: no rules, no trap, no refusing. Connections that have ended stay so.
    pub fn heal(&self) {
        self.settings.send_modify(|settings| {
            (settings.to_server, settings.to_client) = (Rule::Pass, Rule::Pass);
            (settings.trap, settings.refuses) = (None, false);
        });
    }

    /// Whether new connections are reset at once.
    pub fn refuse(&self, refuses: bool) {
        self.settings.send_modify(|settings| settings.refuses = refuses);
    }

    /// Ends all present connections with a RST to both peers. What is held back is lost.
    pub fn reset(&self) {
        self.end(Ending::Reset);
    }

    /// Ends all present connections with a FIN to both peers. What is held back is lost.
    pub fn close(&self) {
        self.end(Ending::Orderly);
    }

    /// Cuts the first connection that has passed so many more bytes in a direction: with a RST to both peers, most
    /// often in the middle of a frame. No byte more gets there; if they went in many small packets, some less may, as
    /// a RST overtakes what waits in the kernel. Takes the place of a trap that was set before.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.lay(Trap::new(direction, Place::After(bytes)));
    }

    /// Puts garbage into the first connection that has passed so many more bytes in a direction. Takes the place of a trap
    /// that was set before.
    pub fn garble_after(&self, direction: Direction, bytes: u64) {
        self.lay(Trap::new(direction, Place::GarbageAfter(bytes)));
    }

    /// Cuts the first connection that passes a needle in a direction: after it nothing that comes back is passed on,
    /// and when the answer is among it, there is a RST to both peers. So the one has done its work, and the other does
    /// not know. With an empty answer the first byte that comes back is taken for it.
    ///
    /// For a transaction of PostgreSQL whose outcome stays unknown: `COMMIT`, answered with `COMMIT\0`. Takes the place
    /// of a trap that was set before.
    pub fn cut_at(&self, direction: Direction, needle: &[u8], answer: &[u8]) {
        assert!(!needle.is_empty(), "no needle; cut_after counts bytes");
        self.lay(Trap::new(direction, Place::At { needle: needle.to_vec(), answer: answer.to_vec() }));
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.tally.snapshot()
    }

    fn lay(&self, trap: Arc<Trap>) {
        self.settings.send_modify(|settings| settings.trap = Some(trap));
    }

    fn end(&self, ending: Ending) {
        self.settings.send_modify(|settings| {
            settings.ends += 1;
            settings.ending = ending;
        });
    }
}

fn parse(url: &str) -> Url {
    // The text may hold a password, so the message does not repeat it.
    Url::parse(url).unwrap_or_else(|error| panic!("not a URL: {error}"))
}
