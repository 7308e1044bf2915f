//! How connections end: by command, by their peers, and before they begin.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    peers::{ORDERLY, RESET, Stage, assert_refused, pattern, take, take_all},
    proxy::{Direction, Proxy, Rule},
};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_ends_present_connections_and_no_later_one() {
    let stage = Stage::start().await;
    let mut pairs = [stage.connect().await, stage.connect().await];
    for pair in &mut pairs {
        pair.assert_passes().await;
    }
    stage.proxy.reset();
    for pair in &mut pairs {
        assert_eq!(take_all(&mut pair.client).await, (Vec::new(), RESET));
        assert_eq!(take_all(&mut pair.server).await, (Vec::new(), RESET));
    }
    let mut later = stage.connect().await;
    later.assert_passes().await;
    let counters = stage.proxy.counters();
    assert_eq!((counters.connections, counters.open, counters.resets, counters.cuts), (3, 1, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_is_orderly_even_while_bytes_are_held_back() {
    let stage = Stage::start().await;
    let mut pair = stage.connect().await;
    pair.assert_passes().await;
    stage.proxy.set(Direction::Both, &Rule::Blackhole);
    // More than sockets hold, so that it can only be sent if it is read to the end.
    let much = vec![7; 50_000_000];
    let (sent, from_proxy) = tokio::join!(pair.client.write_all(&much), async {
        stage.proxy.close();
        take_all(&mut pair.server).await
    });
    sent.unwrap();
    assert_eq!(from_proxy, (Vec::new(), ORDERLY));
    assert_eq!(take_all(&mut pair.client).await, (Vec::new(), ORDERLY));
    stage.proxy.heal();
    let mut later = stage.connect().await;
    later.assert_passes().await;
    let counters = stage.proxy.counters();
    assert_eq!((counters.connections, counters.open, counters.resets), (2, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_peers_do_is_passed_on() {
    let stage = Stage::start().await;
    let mut half = stage.connect().await;
    half.client.write_all(b"question").await.unwrap();
    half.client.shutdown().await.unwrap();
    assert_eq!(take_all(&mut half.server).await, (b"question".to_vec(), ORDERLY));
    half.server.write_all(b"answer").await.unwrap();
    drop(half.server);
    assert_eq!(take_all(&mut half.client).await, (b"answer".to_vec(), ORDERLY));

    // The beginning of a frame, of which there is no more.
    let mut torn = stage.connect().await;
    torn.client.write_all(b"AMQP\0").await.unwrap();
    drop(torn.client);
    assert_eq!(take_all(&mut torn.server).await, (b"AMQP\0".to_vec(), ORDERLY));
    drop(torn.server);

    let mut reset = stage.connect().await;
    reset.assert_passes().await;
    reset.server.set_zero_linger().unwrap();
    drop(reset.server);
    assert_eq!(take_all(&mut reset.client).await, (Vec::new(), RESET));
    eventually("all have ended", async || stage.proxy.counters().open == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_connections_are_reset_and_present_ones_go_on() {
    let stage = Stage::start().await;
    let mut present = stage.connect().await;
    stage.proxy.refuse(true);
    assert_refused(&stage.proxy).await;
    present.assert_passes().await;
    stage.proxy.refuse(false);
    let mut later = stage.connect().await;
    later.assert_passes().await;
    let counters = stage.proxy.counters();
    assert_eq!((counters.connections, counters.refused, counters.resets), (2, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_refuses() {
    let Stage { proxy, listener } = Stage::start().await;
    drop(listener);
    assert_refused(&proxy).await;
    assert_eq!((proxy.counters().connections, proxy.counters().refused), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_dropped_leaves_nothing_behind() {
    let stage = Stage::start().await;
    let mut pair = stage.connect().await;
    pair.assert_passes().await;
    let address = stage.proxy.address();
    drop::<Proxy>(stage.proxy);
    assert_eq!(take_all(&mut pair.client).await.0, b"");
    assert_eq!(take_all(&mut pair.server).await.0, b"");
    eventually("the port is free", async || TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn healing_ends_everything_at_once() {
    let stage = Stage::start().await;
    stage.proxy.set(Direction::Both, &Rule::Blackhole);
    stage.proxy.cut_after(Direction::Both, 1);
    stage.proxy.refuse(true);
    stage.proxy.heal();
    let mut pair = stage.connect().await;
    pair.assert_passes().await;
    let bytes = pattern(100_000);
    pair.client.write_all(&bytes).await.unwrap();
    assert_eq!(take(&mut pair.server, bytes.len()).await, bytes);
    assert_eq!(stage.proxy.counters().resets, 0);
}
