//! Rules for any protocol: passing, delay, throttle, slices, holding.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use wildmatch::WildMatch;

use super::{
    peers::{ORDERLY, Pair, Stage, pattern, take, take_all},
    proxy::{Class, Direction, Proxy, Rule},
};
use crate::support::eventually;

/// So long nothing may come. It is no wait for something: a machine that is too slow cannot make a test fail by it.
const QUIET: Duration = Duration::from_millis(150);
const AN_HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn everything_passes_and_is_counted() {
    let stage = Stage::start().await;
    let mut pair = stage.connect().await;
    let (there, back) = (pattern(100_000), pattern(70_000));
    let (sent, got) = tokio::join!(pair.client.write_all(&there), take(&mut pair.server, there.len()));
    sent.unwrap();
    assert_eq!(got, there);
    let (sent, got) = tokio::join!(pair.server.write_all(&back), take(&mut pair.client, back.len()));
    sent.unwrap();
    assert_eq!(got, back);
    let counters = stage.proxy.counters();
    assert_eq!((counters.bytes_to_server, counters.bytes_to_client), (100_000, 70_000));
    assert_eq!((counters.connections, counters.open, counters.refused), (1, 1, 0));
    assert_eq!((counters.resets, counters.frames_dropped), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_leads_through_the_proxy() {
    let proxy = Proxy::before("amqp://ann:secret@localhost/shop", 1).await;
    let port = proxy.address().port();
    let through = proxy.url("amqp://ann:secret@localhost/shop?heartbeat=1");
    assert_eq!(through, format!("amqp://ann:secret@127.0.0.1:{port}/shop?heartbeat=1"));
    let through = proxy.url("postgres://ann@db.example:6000/shop");
    assert_eq!(through, format!("postgres://ann@127.0.0.1:{port}/shop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_byte_comes_later_and_in_order_and_none_waits_for_another() {
    let stage = Stage::start().await;
    let mut pair = stage.connect().await;
    let (by, jitter) = (Duration::from_millis(200), Duration::from_millis(20));
    stage.proxy.set(Direction::Both, &Rule::Delay { by, jitter });
    let (begun, bytes) = (Instant::now(), pattern(1_000_000));
    let Pair { client, server } = &mut pair;
    let (sent, got) = tokio::join!(client.write_all(&bytes), take(server, bytes.len()));
    sent.unwrap();
    assert_eq!(got, bytes);
    // One after another, the at least 61 pieces of 16 KiB would take 12 seconds.
    assert!(begun.elapsed() >= by && begun.elapsed() < by * 30, "{:?}", begun.elapsed());
    pair.server.write_all(b"back").await.unwrap();
    assert_eq!(take(&mut pair.client, 4).await, b"back");
    assert!(begun.elapsed() >= by * 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_delay_holds_back_comes_at_once_when_it_ends() {
    let stage = Stage::start().await;
    let mut pair = stage.connect().await;
    stage.proxy.set(Direction::ToServer, &Rule::Delay { by: AN_HOUR, jitter: Duration::ZERO });
    pair.client.write_all(b"late").await.unwrap();
    assert!(timeout(QUIET, pair.server.read_u8()).await.is_err());
    stage.proxy.heal();
    assert_eq!(take(&mut pair.server, 4).await, b"late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_connection_takes_its_time() {
    let stage = Stage::start().await;
    let mut pair = stage.connect().await;
    stage.proxy.set(Direction::ToServer, &Rule::Throttle { bytes_per_second: 10_000 });
    let (begun, bytes) = (Instant::now(), pattern(3_000));
    pair.client.write_all(&bytes).await.unwrap();
    assert_eq!(take(&mut pair.server, bytes.len()).await, bytes);
    // The last piece is not waited for.
    assert!(begun.elapsed() >= Duration::from_millis(280), "{:?}", begun.elapsed());
    stage.proxy.set(Direction::ToServer, &Rule::Throttle { bytes_per_second: 1 });
    pair.client.write_all(&bytes).await.unwrap();
    assert_eq!(take(&mut pair.server, 1).await, bytes[..1]);
    stage.proxy.heal();
    assert_eq!(take(&mut pair.server, bytes.len() - 1).await, bytes[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_are_as_small_as_they_are_told() {
    let stage = Stage::start().await;
    let mut pair = stage.connect().await;
    let bytes = pattern(3_000);
    for (slice, packets) in [(1, 3_000), (7, 429)] {
        let before = stage.proxy.counters();
        stage.proxy.set(Direction::ToClient, &Rule::Slices { bytes: slice });
        pair.server.write_all(&bytes).await.unwrap();
        assert_eq!(take(&mut pair.client, bytes.len()).await, bytes);
        let counters = stage.proxy.counters();
        // More, if the proxy itself read the bytes in several pieces.
        assert!(counters.packets_to_client - before.packets_to_client >= packets, "{counters:?}");
        assert_eq!(counters.bytes_to_client - before.bytes_to_client, 3_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_takes_one_direction_and_gives_it_back() {
    let stage = Stage::start().await;
    let mut pair = stage.connect().await;
    pair.assert_passes().await;
    stage.proxy.set(Direction::ToClient, &Rule::Blackhole);
    pair.client.write_all(b"ask").await.unwrap();
    assert_eq!(take(&mut pair.server, 3).await, b"ask");
    pair.server.write_all(b"answer").await.unwrap();
    assert!(timeout(QUIET, pair.client.read_u8()).await.is_err());
    assert_eq!(stage.proxy.counters().bytes_to_client, 4);
    stage.proxy.heal();
    assert_eq!(take(&mut pair.client, 6).await, b"answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_tells_nobody_that_the_other_has_gone() {
    let stage = Stage::start().await;
    let Pair { mut client, mut server } = stage.connect().await;
    let mut silent = stage.connect().await;
    stage.proxy.set(Direction::Both, &Rule::Blackhole);
    client.write_all(b"last words").await.unwrap();
    drop((client, silent.client));
    assert!(timeout(QUIET, server.read_u8()).await.is_err());
    assert!(timeout(QUIET, silent.server.read_u8()).await.is_err());
    stage.proxy.heal();
    assert_eq!(take_all(&mut silent.server).await, (Vec::new(), ORDERLY));
    assert_eq!(take_all(&mut server).await, (b"last words".to_vec(), ORDERLY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_swallows_new_connections_too_and_stops_whoever_sends_much() {
    let stage = Stage::start().await;
    stage.proxy.set(Direction::Both, &Rule::Blackhole);
    let mut pair = stage.connect().await;
    let much = vec![7; 50_000_000];
    assert!(timeout(QUIET, pair.client.write_all(&much)).await.is_err());
    assert_eq!(stage.proxy.counters().bytes_to_server, 0);
    stage.proxy.reset();
    eventually("the connection has ended", async || stage.proxy.counters().open == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_could_do_nothing_are_refused() {
    let proxy = Proxy::start("127.0.0.1:1", 1).await;
    let refused = |direction, rule: Rule| {
        let set = std::panic::AssertUnwindSafe(|| proxy.set(direction, &rule));
        std::panic::catch_unwind(set).is_err()
    };
    assert!(refused(Direction::ToClient, Rule::Drop(Class::Acks)));
    assert!(refused(Direction::ToClient, Rule::Drop(Class::PublishesTo(WildMatch::new("*")))));
    assert!(refused(Direction::ToServer, Rule::Drop(Class::Confirms)));
    assert!(refused(Direction::ToServer, Rule::Drop(Class::Deliveries)));
    assert!(refused(Direction::Both, Rule::Throttle { bytes_per_second: 0 }));
    assert!(refused(Direction::Both, Rule::Slices { bytes: 0 }));
    assert!(!refused(Direction::Both, Rule::Drop(Class::Publishes)));
}
