//! How often a batch goes to the server and back, which is what it costs where the server is far away.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Instant,
};

use crate::support::{
    ask::{Ask, ask, award, create, get},
    database::{Database, Worker},
    postgres::server,
};

/// What the way back from the server takes here.
const DISTANCE: Duration = Duration::from_millis(60);

/// A listener that passes everything on, to the server at once and back from it late.
async fn far_away(server: (String, u16)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&server).await.unwrap();
            let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
                (near.into_split(), far.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_near, &mut to_far).await });
            let (arrived, mut under_way) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                let mut bytes = vec![0; 1 << 16];
                while let Ok(count @ 1..) = from_far.read(&mut bytes).await {
                    if arrived.send((Instant::now() + DISTANCE, bytes[..count].to_vec())).is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move {
                while let Some((due, bytes)) = under_way.recv().await {
                    tokio::time::sleep_until(due).await;
                    if to_near.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// The fewest of several tries, as a busy machine adds some. The first prepares the statements.
async fn round_trips(worker: &Worker, batch: impl Fn(usize) -> Vec<Ask>) -> u128 {
    worker.answer(&batch(0)).await;
    let mut fewest = u128::MAX;
    for n in 1..6 {
        let begun = Instant::now();
        worker.answer(&batch(n)).await;
        fewest = fewest.min(begun.elapsed().as_millis() / DISTANCE.as_millis());
    }
    fewest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_three_round_trips_and_one_of_reads_takes_one() {
    let server = server();
    let near = Database::postgres();
    drop(near.open().await);
    let server = (server.host_str().unwrap().to_owned(), server.port().unwrap());
    let address = far_away(server.clone()).await;
    let far = near.url.replace(&format!("{}:{}", server.0, server.1), &address.to_string());
    assert_ne!(far, near.url);
    let worker = near.open_at(&far).await;
    let everything = |n: usize| {
        let writes = (0..50).map(|user| create(&format!("user-{n}-{user}")).id(&format!("{n}-{user}")));
        let more = [
            award("user-0-0", 1).id(&format!("award-{n}")),
            get("user-0-1"),
            ask("list", "{}".parse().unwrap()),
        ];
        writes.chain(more).collect()
    };
    assert_eq!(round_trips(&worker, everything).await, 3);
    let reads = |_| vec![get("user-0-0"), get("nobody"), ask("list", "{}".parse().unwrap())];
    assert_eq!(round_trips(&worker, reads).await, 1);
}
