//! The store of a run: which kind it is, what it holds, and its server in hand.

use std::collections::BTreeMap;

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    check::{
        End,
        end::{InboxRow, UserRow},
    },
    script,
    support::database::Database,
};

pub use crate::support::database::is_postgres;

/// Users and inbox; the broker's part is left empty.
pub fn end(store: &Database) -> End {
    if !is_postgres() {
        return End::from_sqlite(store.path()).expect("the store can be read");
    }
    let users = store.rows("SELECT username, email, points, status FROM users");
    let inbox = store.rows(
        "SELECT command, convert_from(message_id, 'UTF8'), encode(fingerprint, 'hex'), status, \
         convert_from(reply, 'UTF8') FROM inbox",
    );
    let users: BTreeMap<_, _> = users
        .into_iter()
        .map(|row| {
            let [username, email, points, status] = <[String; 4]>::try_from(row).expect("four columns");
            (username, UserRow { email, points: points.parse().expect("a number"), status })
        })
        .collect();
    let inbox: BTreeMap<_, _> = inbox
        .into_iter()
        .map(|row| {
            let [command, id, fingerprint, status, body] =
                <[String; 5]>::try_from(row).expect("five columns");
            let status = status.parse().expect("a number");
            (
                (command, id),
                InboxRow { fingerprint: fingerprint.into_bytes(), status, body: body.into_bytes() },
            )
        })
        .collect();
    End { users, inbox, ..End::default() }
}

/// How often the server has had to break a deadlock.
pub fn deadlocks(store: &Database) -> i64 {
    match is_postgres() {
        true => store.number("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"),
        false => 0,
    }
}

const SCRIPT: &str = "bin/postgres.sh";

/// Signals the server: the one that `tests/with-broker.sh` started, never another one.
pub async fn signal_server(signal: Signal) {
    let status = script::run(SCRIPT, &["status"]).await;
    let pid = status.split_once("(pid ").and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok());
    let pid = pid.and_then(Pid::from_raw).unwrap_or_else(|| panic!("no pid in {status:?}"));
    kill_process(pid, signal).expect("the server can be signalled");
}

/// Starts it again, with its data.
pub async fn start_server() {
    script::run(SCRIPT, &["up"]).await;
}
