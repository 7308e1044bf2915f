//! Running cells: one after another, or at random for a time.

use std::{
    env,
    os::unix::process::CommandExt,
    panic::AssertUnwindSafe,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use futures::FutureExt;
use tokio::time::{Instant, timeout};

use crate::{
    cells::{self, Cell},
    judge::{Verdict, judge},
    options::Options,
    report::Report,
    stage::{Stage, Wanted, folder},
    store,
    support::process::Place,
};

/// How long a cell may take beside its fault.
const CELL_MAX: Duration = Duration::from_secs(300);
/// Set for the process that has its own mounts.
const OWN_MOUNTS: &str = "RABBITRY_FAULTS_OWN_MOUNTS";

/// For root: starts this program anew with mounts of its own, so that small file systems of the cells are nobody
/// else's and end with it. Returns only if that is done already, or not possible.
pub fn in_own_mounts() -> Option<ExitCode> {
    if !is_root() || env::var_os(OWN_MOUNTS).is_some() {
        return None;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--"]);
        command
    };
    // A container may forbid it.
    if !unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return None;
    }
    let program = env::current_exe().expect("this program has a path");
    let error = unshare().arg(program).args(env::args_os().skip(1)).env(OWN_MOUNTS, "1").exec();
    eprintln!("cells that need a file system of their own will fail: unshare: {error}");
    None
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn can_mount() -> bool {
    is_root() && env::var_os(OWN_MOUNTS).is_some()
}

/// Each wanted cell once. Returns whether all were clean.
pub async fn matrix(options: &Options) -> bool {
    let seed = options.seed();
    let mut report = Report::begin();
    for cell in cells::all().iter().filter(|cell| options.wants(cell)) {
        run_and_tell(cell, options, seed, &mut report).await;
    }
    if options.quick {
        report.mutants_found(crate::mutants::quick(options, seed).await);
    }
    report.end(options, seed)
}

/// Random cells, each with another seed, until the time is over.
pub async fn soak(options: &Options, time: Duration) -> bool {
    let seed = options.seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let cells: Vec<_> = cells::all()
        .into_iter()
        .filter(|cell| options.wants(cell) && (!cell.needs_root || can_mount()))
        .collect();
    let mut report = Report::begin();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let cell = &cells[rng.usize(..cells.len())];
        run_and_tell(cell, options, rng.u64(..1_000_000_000), &mut report).await;
    }
    report.end(options, seed)
}

async fn run_and_tell(cell: &Cell, options: &Options, seed: u64, report: &mut Report) {
    let began = Instant::now();
    let verdict = run(cell, options, seed, options.mutant.as_deref()).await;
    report.add(cell, seed, began.elapsed(), &verdict, options);
}

/// Runs one cell.
pub async fn run(cell: &Cell, options: &Options, seed: u64, mutant: Option<&str>) -> Verdict {
    if cell.needs_root && !can_mount() {
        return Verdict::failed("this cell needs root, and `unshare`, for a small file system of its own");
    }
    let wanted = Wanted {
        workers: options.workers,
        clients: options.clients,
        window: options.window(),
        mutant: mutant.map(str::to_owned),
        small_disk: cell.needs_root,
        clocks_jump: cell.family == "clock",
        seed,
    };
    let played = async {
        let mut stage = Stage::set(wanted).await;
        (cell.fault)(&mut stage).await;
        judge(stage).await
    };
    let limit = options.window() * 2 + CELL_MAX;
    let (verdict, place) = match AssertUnwindSafe(timeout(limit, played)).catch_unwind().await {
        Ok(Ok(played)) => played,
        Ok(Err(_)) => return Verdict::failed(&format!("the cell did not end within {limit:?}")),
        Err(_) => return Verdict::failed("the cell panicked, see above"),
    };
    if !verdict.violations.is_empty() && mutant.is_none() {
        keep(cell, seed, &place);
    }
    if cell.needs_root {
        unmount(&place);
    }
    verdict
}

fn unmount(place: &Place) {
    let _ = Command::new("umount").arg("-l").arg(folder(place)).status();
}

/// Keeps the store and the workers' logs for whoever looks into it.
fn keep(cell: &Cell, seed: u64, place: &Place) {
    let kept = kept(cell, seed);
    let _ = std::fs::create_dir_all(&kept);
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(place.file("."));
    if !store::is_postgres() {
        copy.arg(folder(place).join("."));
    }
    let _ = copy.arg(&kept).status();
    eprintln!("  store and logs are kept in {}", kept.display());
}

fn kept(cell: &Cell, seed: u64) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    target.join("faults-failed").join(format!("{}-{seed}", cell.name.replace([' ', '\''], "-")))
}
