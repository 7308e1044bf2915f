//! The broker as an operator has it in hand: ended, frozen, started again, alarmed.

use rabbitry::home::Home;
use rustix::process::{Pid, Signal, kill_process};

use crate::script;

const SCRIPT: &str = "rabbitmq/broker.sh";

/// The broker's process: the one that `tests/with-broker.sh` started, never another one.
fn pid() -> Pid {
    let state = Home::find().ok().flatten().and_then(|home| home.state().ok()).unwrap_or_default();
    let pid = state.get("BROKER_PID").and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    pid.expect("the broker is a process of this home; run this by `make faults`")
}

pub fn signal(signal: Signal) {
    kill_process(pid(), signal).expect("the broker can be signalled");
}

/// `kill -9`.
pub fn kill() {
    signal(Signal::KILL);
}

/// Starts it again, with its data.
pub async fn start() {
    script::run(SCRIPT, &["up"]).await;
}

/// An operator's command.
pub async fn ctl(arguments: &[&str]) {
    script::run(SCRIPT, &[&["ctl"], arguments].concat()).await;
}
