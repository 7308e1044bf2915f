//! What the kernel counts: the CPU time of processes, and what was taken from this machine.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// The processes of one window.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    /// The worker or the echo that is measured.
    pub(crate) server: u32,
    pub(crate) broker: Option<u32>,
    /// The store's server, which has a process for each session.
    pub(crate) store: Option<u32>,
    /// The load generator, and the one that is idle meanwhile.
    pub(crate) beside: Vec<u32>,
}

/// Counters at one moment, in clock ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    steal: u64,
    busy: u64,
    server: u64,
    broker: u64,
    store: u64,
    ours: u64,
}

/// What one window took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Cost {
    pub(crate) server_us: f64,
    pub(crate) broker_us: f64,
    pub(crate) store_us: f64,
    /// CPU that the hypervisor gave to others, in parts of one core.
    pub(crate) steal: f64,
    /// CPU of processes that do not belong to the benchmark, in parts of one core.
    pub(crate) foreign: f64,
}

impl Processes {
    pub(crate) fn read(&self) -> Result<Reading> {
        let (steal, busy) = machine()?;
        let server = cpu_ticks(self.server)?;
        let broker = self.broker.map(cpu_ticks).transpose()?.unwrap_or(0);
        let store = self.store.map(family_ticks).transpose()?.unwrap_or(0);
        let beside = self.beside.iter().map(|pid| cpu_ticks(*pid)).sum::<Result<u64>>()?;
        Ok(Reading { steal, busy, server, broker, store, ours: server + broker + store + beside })
    }
}

impl Reading {
    pub(crate) fn until(self, end: Self, seconds: f64) -> Cost {
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        let taken = |from: u64, to: u64| to.saturating_sub(from) as f64 / per_second;
        let busy = taken(self.busy, end.busy) - taken(self.ours, end.ours);
        Cost {
            server_us: taken(self.server, end.server) * 1e6,
            broker_us: taken(self.broker, end.broker) * 1e6,
            store_us: taken(self.store, end.store) * 1e6,
            steal: taken(self.steal, end.steal) / seconds,
            foreign: busy.max(0.0) / seconds,
        }
    }
}

/// Steal, and what ran here, of all cores.
fn machine() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").context("no /proc/stat: the benchmark needs Linux")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|tick| tick.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
        anyhow::bail!("cannot read /proc/stat: {line}");
    };
    Ok((steal, user + nice + system + irq + softirq))
}

/// User and system time of all threads of a process.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let fields = stat(pid)?;
    Ok(fields[UTIME] + fields[UTIME + 1])
}

/// That of a process and its children, with those that have ended.
fn family_ticks(parent: u32) -> Result<u64> {
    let own: u64 = stat(parent)?[UTIME..UTIME + 4].iter().sum();
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // One that ends meanwhile counts next time with its parent.
    let children = pids.filter_map(|pid| stat(pid).ok()).filter(|fields| fields[PPID] == u64::from(parent));
    Ok(own + children.map(|fields| fields[UTIME] + fields[UTIME + 1]).sum::<u64>())
}

/// The process that started it.
pub(crate) fn parent(pid: u32) -> Result<u32> {
    Ok(u32::try_from(stat(pid)?[PPID])?)
}

/// Where the fourth and the fourteenth field of `/proc/PID/stat` stand among those behind the name.
const PPID: usize = 1;
const UTIME: usize = 11;

/// The fields behind the name, which is in brackets and may hold anything; those that are no number are 0.
fn stat(pid: u32) -> Result<Vec<u64>> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("process {pid} is gone"))?;
    let fields: Vec<u64> = text
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    anyhow::ensure!(fields.len() > UTIME + 4, "cannot read {path}");
    Ok(fields)
}

/// The most memory that a process has had at a time, in KiB.
pub(crate) fn peak_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
