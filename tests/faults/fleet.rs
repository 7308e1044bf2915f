//! The workers of a cell: processes that are started again whenever they end, as a service manager would.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Before a worker that ended is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// Longer than a worker's own shutdown time.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

type Environment = BTreeMap<String, String>;

/// Set for workers of the bank, which this program itself is then.
pub const WORKER_OF_THE_BANK: &str = "RABBITRY_FAULTS_WORKER_OF_THE_BANK";

pub struct Fleet {
    slots: Vec<Slot>,
    shared: Arc<Shared>,
}

struct Shared {
    environment: Mutex<Environment>,
    logs: PathBuf,
    stopping: AtomicBool,
    /// Ends by a signal that nobody sent from here, or with a code that no worker should end with.
    odd_ends: Mutex<Vec<String>>,
    starts: AtomicU32,
}

struct Slot {
    /// 0 between two lives.
    pid: Arc<AtomicI32>,
    life: JoinHandle<()>,
}

impl Fleet {
    pub fn start(size: usize, environment: Environment, logs: PathBuf) -> Self {
        let shared = Arc::new(Shared {
            environment: Mutex::new(environment),
            logs,
            stopping: AtomicBool::new(false),
            odd_ends: Mutex::default(),
            starts: AtomicU32::new(0),
        });
        let slots = (0..size).map(|_| {
            let pid = Arc::new(AtomicI32::new(0));
            let life = tokio::spawn(live(Arc::clone(&shared), Arc::clone(&pid)));
            Slot { pid, life }
        });
        Self { slots: slots.collect(), shared }
    }

    /// Workers with the same environment and one more variable.
    pub fn like_it(&self, size: usize, variable: &str) -> Self {
        let mut environment = self.shared.environment.lock().unwrap().clone();
        environment.insert(variable.to_owned(), "1".to_owned());
        let logs = self.shared.logs.join(variable.to_lowercase());
        fs::create_dir_all(&logs).expect("a folder can be made");
        Self::start(size, environment, logs)
    }

    pub fn size(&self) -> usize {
        self.slots.len()
    }

    /// How often a worker was started.
    pub fn starts(&self) -> u32 {
        self.shared.starts.load(Ordering::Relaxed)
    }

    /// The worker's process, if it runs.
    pub fn pid(&self, worker: usize) -> Option<Pid> {
        Pid::from_raw(self.slots[worker].pid.load(Ordering::SeqCst))
    }

    /// Sends a signal; false if the worker is not running.
    pub fn signal(&self, worker: usize, signal: Signal) -> bool {
        self.pid(worker).is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    pub fn signal_all(&self, signal: Signal) {
        (0..self.size()).for_each(|worker| {
            self.signal(worker, signal);
        });
    }

    /// Sets a variable for the workers that are started from now on.
    pub fn set(&self, name: &str, value: &str) {
        self.shared.environment.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    pub fn unset(&self, name: &str) {
        self.shared.environment.lock().unwrap().remove(name);
    }

    /// Waits until a worker runs whose process is another than this.
    pub async fn wait_for_another(&self, worker: usize, than: Option<Pid>) {
        while self.pid(worker).is_none() || self.pid(worker) == than {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends every worker in an orderly way; what went wrong with that, and with their ends before.
    pub async fn stop(self) -> Vec<String> {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // A frozen one would not hear of it.
        self.signal_all(Signal::CONT);
        self.signal_all(Signal::TERM);
        let until = Instant::now() + STOP_TIMEOUT;
        let mut odd = Vec::new();
        for (index, slot) in self.slots.into_iter().enumerate() {
            if timeout(until - Instant::now(), slot.life).await.is_err() {
                odd.push(format!("worker {index} did not end within {STOP_TIMEOUT:?} of SIGTERM"));
                if let Some(pid) = Pid::from_raw(slot.pid.load(Ordering::SeqCst)) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
        odd.append(&mut self.shared.odd_ends.lock().unwrap());
        odd
    }
}

async fn live(shared: Arc<Shared>, pid: Arc<AtomicI32>) {
    while !shared.stopping.load(Ordering::SeqCst) {
        let mut child = spawn(&shared);
        pid.store(child.id().unwrap_or(0).cast_signed(), Ordering::SeqCst);
        // It may have been asked to stop between the two.
        if shared.stopping.load(Ordering::SeqCst) {
            let _ = child.start_kill();
        }
        let status = child.wait().await.expect("a child can be waited for");
        pid.store(0, Ordering::SeqCst);
        if let Some(odd) = odd(status) {
            shared.odd_ends.lock().unwrap().push(odd);
        }
        sleep(RESTART_PAUSE).await;
    }
}

fn spawn(shared: &Shared) -> Child {
    let start = shared.starts.fetch_add(1, Ordering::Relaxed);
    let log = fs::File::create(shared.logs.join(format!("worker-{start}.log"))).expect("a log can be made");
    let is_of_the_bank = shared.environment.lock().unwrap().contains_key(WORKER_OF_THE_BANK);
    let program = if is_of_the_bank {
        std::env::current_exe().expect("this program has a path")
    } else {
        env!("CARGO_BIN_EXE_users-worker").into()
    };
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(&*shared.environment.lock().unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    command.spawn().expect("the worker can be started")
}

/// An end that no fault of ours explains: we kill (9), and the limit of a file's size ends with 25.
fn odd(status: ExitStatus) -> Option<String> {
    let expected = status.success() || matches!(status.signal(), Some(9 | 25));
    (!expected).then(|| format!("a worker ended with {status}"))
}
