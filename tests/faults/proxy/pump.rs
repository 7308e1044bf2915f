//! One direction of a connection: from a socket, by the rules, to the other.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::{mpsc, watch},
    task::yield_now,
    time::{Instant, sleep_until},
    try_join,
};

use super::{
    Settings,
    counters::Tally,
    filter::Filter,
    rule::{Rule, Side},
    trap::{Verdict, Watch, Withheld},
};

/// Bytes that are no frame of AMQP: none begins with this octet.
const GARBAGE: [u8; 16] = [0xA5; 16];

const CHUNK_BYTES: usize = 16 * 1024;
/// What may wait under a rule that holds bytes back; with more the sender has to wait, as with a full socket.
const CHUNKS_WAITING: usize = 64;

/// Why a connection is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// A peer has reset it, so that the other has to be told.
    ByPeer,
    ByTrap,
}

/// What came, and when.
struct Arrival {
    what: What,
    at: Instant,
    /// Between 0 and 1: its part of the jitter.
    luck: f64,
}

enum What {
    Bytes(Vec<u8>),
    End,
    Reset,
}

pub struct Pump<'a> {
    pub side: Side,
    pub settings: watch::Receiver<Settings>,
    pub tally: &'a Tally,
    pub withheld: &'a Withheld,
}

impl Pump<'_> {
    /// Ends when the direction was ended orderly.
    ///
    /// Reading goes on while bytes are held back, so that a delay costs no throughput.
    pub async fn run(self, from: ReadHalf<'_>, to: WriteHalf<'_>, luck: fastrand::Rng) -> Result<(), Break> {
        let (arrivals, queue) = mpsc::channel(CHUNKS_WAITING);
        let writer = Writer {
            filter: Filter::new(self.side),
            watch: Watch::new(self.side),
            pump: self,
            to,
            free_at: Instant::now(),
        };
        let reader = async {
            read(from, arrivals, luck).await;
            Ok(())
        };
        try_join!(reader, writer.run(queue)).map(|_| ())
    }
}

async fn read(mut from: ReadHalf<'_>, arrivals: mpsc::Sender<Arrival>, mut luck: fastrand::Rng) {
    loop {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES);
        let what = match from.read_buf(&mut bytes).await {
            Ok(0) => What::End,
            Ok(_) => What::Bytes(bytes),
            Err(_) => What::Reset,
        };
        let is_last = !matches!(what, What::Bytes(_));
        let arrival = Arrival { what, at: Instant::now(), luck: luck.f64() };
        if arrivals.send(arrival).await.is_err() || is_last {
            return;
        }
    }
}

struct Writer<'a> {
    pump: Pump<'a>,
    to: WriteHalf<'a>,
    filter: Filter,
    watch: Watch,
    /// When a throttled line is free for the next bytes.
    free_at: Instant,
}

impl Writer<'_> {
    async fn run(mut self, mut queue: mpsc::Receiver<Arrival>) -> Result<(), Break> {
        while let Some(arrival) = queue.recv().await {
            self.wait_until_due(&arrival).await;
            match arrival.what {
                What::Bytes(bytes) => {
                    let rule = self.rule();
                    let passed = self.filter.pass(&bytes, &rule, self.pump.tally);
                    self.send(&passed).await?;
                }
                What::End => {
                    let rest = self.filter.finish();
                    self.send(&rest).await?;
                    let _ = self.to.shutdown().await;
                }
                What::Reset => return Err(Break::ByPeer),
            }
        }
        Ok(())
    }

    fn rule(&self) -> Rule {
        self.pump.settings.borrow().rule(self.pump.side).clone()
    }

    /// Waits for other settings. The proxy ends its connections before its settings go.
    async fn change(&mut self) {
        if self.pump.settings.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until a moment, or for other settings; returns whether the moment has come.
    async fn is_time(&mut self, moment: Instant) -> bool {
        tokio::select! {
            () = sleep_until(moment) => true,
            () = self.change() => false,
        }
    }

    async fn wait_until_due(&mut self, arrival: &Arrival) {
        loop {
            match self.rule() {
                Rule::Blackhole => self.change().await,
                Rule::Delay { by, jitter } => {
                    if self.is_time(arrival.at + by + jitter.mul_f64(arrival.luck)).await {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Waits until something may be written; returns how many of the bytes.
    async fn turn(&mut self, waiting: usize) -> usize {
        loop {
            match self.rule() {
                Rule::Blackhole => self.change().await,
                Rule::Throttle { bytes_per_second } => {
                    if !self.is_time(self.free_at).await {
                        continue;
                    }
                    // A hundred times a second, as timers are not much finer than that.
                    let bytes =
                        usize::try_from(bytes_per_second / 100).unwrap_or(usize::MAX).clamp(1, waiting);
                    let took = Duration::from_secs(1).mul_f64(bytes as f64 / bytes_per_second as f64);
                    self.free_at = self.free_at.max(Instant::now()) + took;
                    return bytes;
                }
                Rule::Slices { bytes } => {
                    // Sockets are written to without Nagle's delay, so that each write is a packet.
                    yield_now().await;
                    return bytes.min(waiting);
                }
                Rule::Pass | Rule::Delay { .. } | Rule::Drop(_) => return waiting,
            }
        }
    }

    async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Break> {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(self.turn(bytes.len()).await);
            let trap: Option<Arc<_>> = self.pump.settings.borrow().trap.clone();
            match self.watch.judge(piece, trap.as_ref(), self.pump.withheld) {
                Verdict::Pass => self.write(piece).await,
                Verdict::Withhold => {}
                Verdict::CutAfter(count) => {
                    self.write(&piece[..count]).await;
                    return Err(Break::ByTrap);
                }
                Verdict::GarbageAfter(count) => {
                    self.write(&[&piece[..count], &GARBAGE, &piece[count..]].concat()).await;
                }
            }
            bytes = rest;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.pump.tally.packet(self.pump.side, bytes.len());
        // That a peer has gone is told in the other direction, by the rules of that one; until then, bytes are taken.
        let _ = self.to.write_all(bytes).await;
    }
}
