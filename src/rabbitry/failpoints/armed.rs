//! What was asked for when the process started, and doing it.

use std::{
    env,
    ffi::OsString,
    fs,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Signal, getpid, kill_process};

use super::{
    message::{Message, Planted},
    names::{MUTANTS, Moment, Mutant},
    spec::{Action, Spec, When, parse},
};
use crate::config::ConfigError;

const FAILPOINTS: &str = "RABBITRY_FAILPOINTS";
const MUTANT: &str = "RABBITRY_MUTANT";

static PLAN: OnceLock<Plan> = OnceLock::new();

struct Plan {
    points: Vec<Point>,
    mutant: Option<Mutant>,
}

/// Reads the variables, and warns if they ask for anything. Nothing happens in a process that does not call this.
///
/// # Errors
/// [`ConfigError`] if a variable cannot be read.
pub fn arm() -> Result<(), ConfigError> {
    let points = text(FAILPOINTS)?;
    let specs = parse(&points).map_err(|error| ConfigError::new(format!("{FAILPOINTS}: {error}")))?;
    if !specs.is_empty() {
        tracing::warn!(failpoints = points, "this worker fails on purpose");
    }
    let mutant = match text(MUTANT)?.as_str() {
        "" => None,
        name => Some(Mutant::named(name).ok_or_else(|| {
            ConfigError::new(format!("{MUTANT}: there is no mutant {name:?}, but {}", MUTANTS.join(", ")))
        })?),
    };
    if let Some(mutant) = mutant {
        tracing::warn!(mutant = mutant.name(), "this worker has a mistake planted into it");
    }
    // A second call changes nothing.
    PLAN.get_or_init(|| Plan { points: specs.into_iter().map(Point::new).collect(), mutant });
    Ok(())
}

fn text(variable: &str) -> Result<String, ConfigError> {
    let value = env::var_os(variable).map(OsString::into_string).transpose();
    value.map(Option::unwrap_or_default).map_err(|_| ConfigError::new(format!("{variable} is not UTF-8")))
}

/// Whether a mistake is planted.
pub fn is_active(mutant: Mutant) -> bool {
    PLAN.get().is_some_and(|plan| plan.mutant == Some(mutant))
}

/// Passes a moment at which no message is in hand.
pub fn reach(moment: Moment) -> Act {
    act(moment, |on| on.is_none())
}

/// Passes a moment with these messages in hand; without any it is no passing.
pub fn reach_with<'a, M: Message + 'a>(moment: Moment, messages: impl IntoIterator<Item = &'a M>) -> Act {
    let mut messages = messages.into_iter().peekable();
    if PLAN.get().is_none_or(|plan| plan.points.is_empty()) || messages.peek().is_none() {
        return Act { moment, action: None };
    }
    let messages: Vec<_> = messages.collect();
    act(moment, |on| on.is_none_or(|text| messages.iter().any(|message| message.tells(text))))
}

fn act(moment: Moment, concerns: impl Fn(Option<&str>) -> bool) -> Act {
    let points = PLAN.get().map(|plan| plan.points.as_slice()).unwrap_or_default();
    let own = points.iter().filter(|point| point.spec.moment == moment);
    // Each entry counts, whichever of them acts.
    let due: Vec<_> = own.filter(|point| concerns(point.spec.on.as_deref()) && point.is_due()).collect();
    Act { moment, action: due.first().map(|point| point.spec.action) }
}

struct Point {
    spec: Spec,
    passed: AtomicU64,
}

impl Point {
    fn new(spec: Spec) -> Self {
        Self { spec, passed: AtomicU64::new(0) }
    }

    fn is_due(&self) -> bool {
        let passed = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        match self.spec.when {
            When::Always => true,
            When::Nth(nth) => passed == nth,
            When::Chance(chance) => fastrand::f64() < chance,
        }
    }
}

/// What is to happen at a moment.
#[must_use = "nothing happens before it is done"]
#[derive(Debug)]
pub struct Act {
    moment: Moment,
    action: Option<Action>,
}

impl Act {
    /// Does it; a sleep blocks the thread.
    ///
    /// # Errors
    /// [`Planted`], if that is it.
    ///
    /// # Panics
    /// If that is it.
    pub fn now(self) -> Result<(), Planted> {
        match self.action {
            Some(Action::Sleep(duration)) => block(duration),
            _ => return self.other_than_sleep(),
        }
        Ok(())
    }

    /// Does it, in a task; a sleep lets other tasks go on.
    ///
    /// # Errors
    /// [`Planted`], if that is it.
    ///
    /// # Panics
    /// If that is it.
    pub async fn in_time(self) -> Result<(), Planted> {
        match self.action {
            Some(Action::Sleep(duration)) => tokio::time::sleep(duration).await,
            _ => return self.other_than_sleep(),
        }
        Ok(())
    }

    /// Like [`Act::now`], where no error can be returned.
    ///
    /// # Panics
    /// If that is it.
    pub fn now_for_sure(self) {
        self.now().expect("what was asked for was checked at the start");
    }

    /// Like [`Act::in_time`], where no error can be returned.
    ///
    /// # Panics
    /// If that is it.
    pub async fn in_time_for_sure(self) {
        self.in_time().await.expect("what was asked for was checked at the start");
    }

    fn other_than_sleep(self) -> Result<(), Planted> {
        let planted = Planted(self.moment.name());
        match self.action {
            Some(Action::Kill) => signal(Signal::KILL),
            Some(Action::Stop) => stop(),
            Some(Action::Panic) => panic!("{planted}"),
            Some(Action::Error) => return Err(planted),
            Some(Action::Sleep(_)) | None => {}
        }
        Ok(())
    }
}

fn signal(signal: Signal) {
    kill_process(getpid(), signal).expect("a process may send signals to itself");
}

/// Returns when the process was stopped and has been let go on. The kernel hands the signal to any thread, so that this
/// one may run on for a moment: until it is no longer pending, which is when all threads have been told to stop.
fn stop() {
    signal(Signal::STOP);
    while is_pending(Signal::STOP) {}
}

fn is_pending(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let bits = bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << (signal.as_raw() - 1)) != 0)
}

fn block(duration: Duration) {
    let until = Instant::now() + duration;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(entry: &str, passings: usize) -> Vec<usize> {
        let point = Point::new(parse(entry).unwrap().remove(0));
        (1..=passings).filter(|_| point.is_due()).collect()
    }

    #[test]
    fn an_entry_is_due_at_its_passing() {
        assert_eq!(due("before_ack=kill", 3), [1, 2, 3]);
        assert_eq!(due("before_ack=kill@2", 4), [2]);
        assert_eq!(due("before_ack=kill@100%", 3), [1, 2, 3]);
        assert_eq!(due("before_ack=kill@0%", 3), [0; 0]);
        let some = due("before_ack=kill@50%", 1000).len();
        assert!((300..700).contains(&some), "{some}");
    }

    #[test]
    fn nothing_happens_in_a_process_that_was_not_armed() {
        assert!(!is_active(Mutant::NoInbox));
        reach(Moment::InMigration).now().unwrap();
        assert!(PLAN.get().is_none());
    }

    #[test]
    fn an_error_is_returned_a_panic_is_one_and_a_sleep_takes_its_time() {
        let act = |action| Act { moment: Moment::BeforeAck, action: Some(action) };
        assert_eq!(act(Action::Error).now().unwrap_err().to_string(), "planted at before_ack");
        assert!(std::panic::catch_unwind(|| act(Action::Panic).now()).is_err());
        let began = Instant::now();
        act(Action::Sleep(Duration::from_millis(20))).now().unwrap();
        assert!(began.elapsed() >= Duration::from_millis(20));
    }
}
