//! How often a batch goes to the server and back, which is what it costs where the server is far away.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

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

/// What the way back from the server takes here: long enough for all to be sent that waits for no answer.
const DISTANCE: Duration = Duration::from_millis(60);

/// A line to the server: passes everything on, at once there and late back.
struct FarAway {
    address: SocketAddr,
    /// How often something was sent after an answer.
    trips: Arc<AtomicU64>,
}

impl FarAway {
    async fn from(server: (String, u16)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let trips = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&trips);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&server).await.unwrap();
                connect(near, far, Arc::clone(&counted));
            }
        });
        Self { address, trips }
    }
}

fn connect(near: TcpStream, far: TcpStream, trips: Arc<AtomicU64>) {
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
    let answered = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&answered);
    tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_near.read(&mut bytes).await {
            trips.fetch_add(u64::from(answered.swap(false, Ordering::SeqCst)), Ordering::SeqCst);
            to_far.write_all(&bytes[..count]).await.unwrap();
        }
    });
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
            answers.store(true, Ordering::SeqCst);
            if to_near.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}

/// The fewest of several tries, as a pause in the middle of sending adds some. The first prepares the statements.
async fn round_trips(line: &FarAway, worker: &Worker, batch: impl Fn(usize) -> Vec<Ask>) -> u64 {
    worker.answer(&batch(0)).await;
    let mut fewest = u64::MAX;
    for n in 1..6 {
        let before = line.trips.load(Ordering::SeqCst);
        worker.answer(&batch(n)).await;
        fewest = fewest.min(line.trips.load(Ordering::SeqCst) - before);
    }
    fewest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_three_round_trips_and_one_of_reads_takes_one() {
    let server = server();
    let near = Database::postgres();
    drop(near.open().await);
    let server = (server.host_str().unwrap().to_owned(), server.port().unwrap());
    let line = FarAway::from(server.clone()).await;
    let far = near.url.replace(&format!("{}:{}", server.0, server.1), &line.address.to_string());
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
    assert_eq!(round_trips(&line, &worker, everything).await, 3);
    let reads = |_| vec![get("user-0-0"), get("nobody"), ask("list", "{}".parse().unwrap())];
    assert_eq!(round_trips(&line, &worker, reads).await, 1);
}
