//! Connections: accepted, led through two pumps, ended.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    try_join,
};

use super::{
    Settings,
    counters::Tally,
    pump::{Break, Pump},
    rule::Side,
    trap::Withheld,
};

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a FIN, to both peers.
    Orderly,
    /// With a RST, to both peers.
    Reset,
    /// A reset too, by a trap.
    Cut,
}

/// Accepts connections until it is dropped; they are dropped with it.
pub struct Acceptor {
    pub listener: TcpListener,
    pub server: SocketAddr,
    pub settings: watch::Receiver<Settings>,
    pub tally: Arc<Tally>,
    pub seed: u64,
}

impl Acceptor {
    pub async fn run(self) {
        let mut connections = JoinSet::new();
        for number in 0.. {
            let (client, _) = self.listener.accept().await.expect("the proxy can accept connections");
            while connections.try_join_next().is_some() {}
            let settings = self.settings.clone();
            let ends = settings.borrow().ends;
            let link = Link {
                settings,
                ends,
                tally: Arc::clone(&self.tally),
                // Luck of its own, so that it does not depend on what other connections do.
                luck: fastrand::Rng::with_seed(self.seed.wrapping_add(number)),
            };
            connections.spawn(link.run(client, self.server));
        }
    }
}

/// One connection.
struct Link {
    settings: watch::Receiver<Settings>,
    /// How many endings had been commanded when it began.
    ends: u64,
    tally: Arc<Tally>,
    luck: fastrand::Rng,
}

impl Link {
    async fn run(mut self, client: TcpStream, server: SocketAddr) {
        let is_refused = self.settings.borrow().refuses;
        let server = if is_refused { None } else { TcpStream::connect(server).await.ok() };
        let Some(server) = server else {
            self.tally.count(|counters| counters.refused += 1);
            return reset(client);
        };
        self.tally.count(|counters| {
            counters.connections += 1;
            counters.open += 1;
        });
        self.lead(client, server).await;
    }

    async fn lead(&mut self, mut client: TcpStream, mut server: TcpStream) {
        for socket in [&client, &server] {
            let _ = socket.set_nodelay(true); // fails on a socket that is gone, as reading will
        }
        match self.pump(&mut client, &mut server).await {
            Ending::Orderly => {
                self.tally.count(|counters| counters.open -= 1);
                let _ = (client.shutdown().await, server.shutdown().await);
                // A socket that is closed while it holds unread bytes sends a RST after its FIN.
                tokio::join!(drain(client), drain(server));
            }
            ending => {
                self.tally.count(|counters| {
                    counters.open -= 1;
                    counters.resets += 1;
                    counters.cuts += u64::from(ending == Ending::Cut);
                });
                reset(client);
                reset(server);
            }
        }
    }

    async fn pump(&mut self, client: &mut TcpStream, server: &mut TcpStream) -> Ending {
        let withheld = Withheld::new();
        let pump =
            |side| Pump { side, settings: self.settings.clone(), tally: &self.tally, withheld: &withheld };
        let (to_server, to_client) = (pump(Side::ToServer), pump(Side::ToClient));
        let (from_client, client) = client.split();
        let (from_server, server) = server.split();
        let (luck, other_luck) = (self.luck.fork(), self.luck.fork());
        let both = async {
            try_join!(
                to_server.run(from_client, server, luck),
                to_client.run(from_server, client, other_luck)
            )
        };
        let ends = self.ends;
        tokio::select! {
            biased;
            ending = commanded(&mut self.settings, ends) => ending,
            result = both => match result {
                Ok(_) => Ending::Orderly,
                Err(Break::ByPeer) => Ending::Reset,
                Err(Break::ByTrap) => Ending::Cut,
            },
        }
    }
}

async fn commanded(settings: &mut watch::Receiver<Settings>, before: u64) -> Ending {
    let ending = settings.wait_for(|settings| settings.ends != before).await.map(|settings| settings.ending);
    match ending {
        Ok(ending) => ending,
        // The proxy is dropped, and the task of this connection is about to be.
        Err(_) => std::future::pending().await,
    }
}

fn reset(socket: TcpStream) {
    let _ = socket.set_zero_linger(); // fails on a socket that is gone
    drop(socket);
}

async fn drain(mut socket: TcpStream) {
    let mut bytes = [0; 1024];
    while socket.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}
