//! Clients and servers that speak no protocol.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::proxy::Proxy;
use crate::support::soon;

/// A server whose connections the test accepts, with a proxy before it.
pub struct Stage {
    pub proxy: Proxy,
    pub listener: TcpListener,
}

/// Both ends of a connection through the proxy.
pub struct Pair {
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Stage {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(&listener.local_addr().unwrap().to_string(), 1).await;
        Self { proxy, listener }
    }

    pub async fn connect(&self) -> Pair {
        let client = TcpStream::connect(self.proxy.address()).await.unwrap();
        let (server, _) = soon("a connection", self.listener.accept()).await.unwrap();
        Pair { client, server }
    }
}

impl Pair {
    /// Asserts that bytes pass both ways.
    pub async fn assert_passes(&mut self) {
        self.client.write_all(b"there").await.unwrap();
        assert_eq!(take(&mut self.server, 5).await, b"there");
        self.server.write_all(b"back").await.unwrap();
        assert_eq!(take(&mut self.client, 4).await, b"back");
    }
}

/// Asserts that a new connection is reset before anything passes. The reset may come while it is being opened.
pub async fn assert_refused(proxy: &Proxy) {
    match TcpStream::connect(proxy.address()).await {
        Ok(mut client) => assert_eq!(take_all(&mut client).await, (Vec::new(), RESET)),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

/// Bytes of which any two neighbours differ, so that none can be swapped, doubled or missing unseen.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at + at / 251) % 251).unwrap()).collect()
}

/// So many bytes.
pub async fn take(socket: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    soon("bytes", socket.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// Everything until the end, and how it ended.
pub async fn take_all(socket: &mut TcpStream) -> (Vec<u8>, Result<(), io::ErrorKind>) {
    let mut bytes = Vec::new();
    let end = soon("the end of a connection", socket.read_to_end(&mut bytes)).await;
    (bytes, end.map(|_| ()).map_err(|error| error.kind()))
}

pub const ORDERLY: Result<(), io::ErrorKind> = Ok(());
pub const RESET: Result<(), io::ErrorKind> = Err(io::ErrorKind::ConnectionReset);
