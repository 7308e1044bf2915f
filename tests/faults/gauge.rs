//! What a process takes: threads, open files, memory.

use std::fs;

use rustix::process::Pid;

use crate::fleet::Fleet;

/// How much more a worker may hold at the end than at the beginning.
const MORE_THREADS: usize = 4;
const MORE_FILES: usize = 8;
const MORE_KIB: usize = 96 * 1024;

#[derive(Debug, Clone, Copy)]
struct Reading {
    threads: usize,
    files: usize,
    kib: usize,
}

/// The readings of the workers that ran when it was made.
pub struct Gauge(Vec<(Pid, Reading)>);

impl Gauge {
    pub fn of(fleet: &Fleet) -> Self {
        let pids = (0..fleet.size()).filter_map(|worker| fleet.pid(worker));
        Self(pids.filter_map(|pid| Some((pid, read(pid)?))).collect())
    }

    /// What the workers that still run hold that they did not hold before.
    pub fn growth(&self) -> Vec<String> {
        let grown = self.0.iter().filter_map(|&(pid, before)| {
            let now = read(pid)?;
            let grown = now.threads > before.threads + MORE_THREADS
                || now.files > before.files + MORE_FILES
                || now.kib > before.kib + MORE_KIB;
            grown.then(|| format!("a worker grew from {before:?} to {now:?}"))
        });
        grown.collect()
    }
}

/// Nothing if the process is gone.
fn read(pid: Pid) -> Option<Reading> {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let status = fs::read_to_string(format!("{folder}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let files = fs::read_dir(format!("{folder}/fd")).ok()?.count();
    Some(Reading { threads: field("Threads:")?, files, kib: field("VmRSS:")? })
}
