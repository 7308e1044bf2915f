//! Cuts at a place in the stream.

use tokio::io::AsyncWriteExt;

use super::{
    peers::{RESET, Stage, pattern, take, take_all},
    proxy::{Direction, Rule},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_cut_after_exactly_so_many_bytes_and_only_once() {
    let stage = Stage::start().await;
    let (mut first, bytes) = (stage.connect().await, pattern(40_000));
    first.assert_passes().await;
    for (rule, count) in [(Rule::Pass, 33_333), (Rule::Slices { bytes: 1_000 }, 5_050), (Rule::Pass, 0)] {
        let mut pair = stage.connect().await;
        stage.proxy.set(Direction::Both, &rule);
        stage.proxy.cut_after(Direction::ToServer, count);
        // In the other direction nothing is counted.
        pair.server.write_all(&bytes).await.unwrap();
        assert_eq!(take(&mut pair.client, bytes.len()).await, bytes);
        let (_, got) = tokio::join!(pair.client.write_all(&bytes), take_all(&mut pair.server));
        assert_eq!(got, (bytes[..usize::try_from(count).unwrap()].to_vec(), RESET), "{rule:?}");
        assert_eq!(take_all(&mut pair.client).await, (Vec::new(), RESET));
    }
    first.client.write_all(&bytes).await.unwrap();
    assert_eq!(take(&mut first.server, bytes.len()).await, bytes);
    let counters = stage.proxy.counters();
    assert_eq!((counters.cuts, counters.resets, counters.open), (3, 3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_lets_no_byte_more_pass_however_small_the_packets_are() {
    let stage = Stage::start().await;
    let (mut pair, bytes) = (stage.connect().await, pattern(40_000));
    stage.proxy.set(Direction::ToServer, &Rule::Slices { bytes: 7 });
    stage.proxy.cut_after(Direction::ToServer, 5_050);
    let (_, (got, end)) = tokio::join!(pair.client.write_all(&bytes), take_all(&mut pair.server));
    assert_eq!(end, RESET);
    assert!(bytes[..5_050].starts_with(&got), "{} bytes", got.len());
    assert_eq!(stage.proxy.counters().bytes_to_server, 5_050);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_put_in_after_exactly_so_many_bytes_and_only_once() {
    let stage = Stage::start().await;
    let (mut pair, bytes) = (stage.connect().await, pattern(40_000));
    stage.proxy.garble_after(Direction::ToServer, 33_333);
    let (_, got) = tokio::join!(pair.client.write_all(&bytes), take(&mut pair.server, bytes.len() + 16));
    assert_eq!(got, [&bytes[..33_333], &[0xA5; 16], &bytes[33_333..]].concat());
    pair.assert_passes().await;
    assert_eq!(stage.proxy.counters().cuts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_is_counted_for_itself() {
    let stage = Stage::start().await;
    let (mut quiet, mut busy) = (stage.connect().await, stage.connect().await);
    stage.proxy.cut_after(Direction::Both, 10);
    quiet.client.write_all(b"123456789").await.unwrap();
    assert_eq!(take(&mut quiet.server, 9).await, b"123456789");
    busy.server.write_all(b"1234567890").await.unwrap();
    assert_eq!(take_all(&mut busy.client).await, (b"1234567890".to_vec(), RESET));
    quiet.assert_passes().await;
    assert_eq!(stage.proxy.counters().cuts, 1);
}

/// As a database would: the work is done, and the client does not learn of it.
#[tokio::test(flavor = "multi_thread")]
async fn after_the_needle_the_answer_is_withheld_and_the_connection_cut() {
    let stage = Stage::start().await;
    let (mut pair, mut other) = (stage.connect().await, stage.connect().await);
    stage.proxy.cut_at(Direction::ToServer, b"COMMIT", b"COMMIT\0");
    pair.client.write_all(b"Q UPDATE").await.unwrap();
    assert_eq!(take(&mut pair.server, 8).await, b"Q UPDATE");
    pair.server.write_all(b"C UPDATE 1").await.unwrap();
    assert_eq!(take(&mut pair.client, 10).await, b"C UPDATE 1");
    // The needle in two pieces, and bytes after it, which the server needs to act.
    pair.client.write_all(b"Q COM").await.unwrap();
    assert_eq!(take(&mut pair.server, 5).await, b"Q COM");
    pair.client.write_all(b"MIT\0").await.unwrap();
    assert_eq!(take(&mut pair.server, 4).await, b"MIT\0");
    pair.client.write_all(b"S").await.unwrap();
    assert_eq!(take(&mut pair.server, 1).await, b"S");
    assert_eq!(stage.proxy.counters().cuts, 0);
    // A late answer to something before is withheld, and is not the answer.
    pair.server.write_all(b"N notice C COM").await.unwrap();
    pair.server.write_all(b"MIT\0Z").await.unwrap();
    assert_eq!(take_all(&mut pair.client).await, (Vec::new(), RESET));
    assert_eq!(take_all(&mut pair.server).await, (Vec::new(), RESET));
    assert_eq!(stage.proxy.counters().cuts, 1);
    other.client.write_all(b"COMMIT").await.unwrap();
    assert_eq!(take(&mut other.server, 6).await, b"COMMIT");
    other.assert_passes().await;
    assert_eq!(stage.proxy.counters().cuts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_to_look_for_any_byte_is_it() {
    let stage = Stage::start().await;
    let mut pair = stage.connect().await;
    stage.proxy.cut_at(Direction::ToServer, b"COMMIT", b"");
    pair.client.write_all(b"COMMIT").await.unwrap();
    assert_eq!(take(&mut pair.server, 6).await, b"COMMIT");
    pair.server.write_all(b"C").await.unwrap();
    assert_eq!(take_all(&mut pair.client).await, (Vec::new(), RESET));
}
