//! Where a cell plays: a virtual host, a store, workers, clients, and a proxy before each of the two.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

use crate::{
    fleet::Fleet,
    gauge::Gauge,
    proxy::Proxy,
    store,
    support::{
        process::Place,
        users::users_vhost,
        vhost::{Vhost, request},
    },
    workload::Workload,
};

/// What a cell wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub workers: usize,
    pub clients: usize,
    /// How long the fault lasts, or faults follow each other.
    pub window: Duration,
    /// A mistake that is planted in the workers.
    pub mutant: Option<String>,
    /// The store lies on a small file system of its own.
    pub small_disk: bool,
    /// The workers' clocks are not right, so that what is too late is not what it seems.
    pub clocks_jump: bool,
    pub seed: u64,
}

pub struct Stage {
    pub wanted: Wanted,
    pub rng: Rng,
    pub vhost: Vhost,
    pub place: Place,
    /// Between the workers and the broker.
    pub workers_line: Proxy,
    /// Between the clients and the broker.
    pub clients_line: Proxy,
    /// Between the workers and the server of PostgreSQL.
    store_line: Option<Proxy>,
    pub fleet: Fleet,
    pub workload: Workload,
    pub gauge: Gauge,
    /// As many as there were before; a cell that makes some itself counts them.
    pub deadlocks: i64,
    /// What the cell itself found.
    pub found: Vec<String>,
}

/// Heartbeats that notice a silent peer after some 4 s instead of 20.
const HEARTBEAT: &str = "heartbeat=2";

impl Stage {
    pub async fn set(wanted: Wanted) -> Self {
        let mut rng = Rng::with_seed(wanted.seed);
        let (vhost, place) = (users_vhost().await, Place::new());
        if wanted.small_disk {
            mount_small(&place);
        }
        let url = vhost.url_text();
        let workers_line = Proxy::before(&url, rng.u64(..)).await;
        let clients_line = Proxy::before(&url, rng.u64(..)).await;
        let store = &place.store().url;
        let store_line = match store::is_postgres() {
            true => Some(Proxy::before(store, rng.u64(..)).await),
            false => None,
        };
        let deadlocks = store::deadlocks(place.store());
        let through = |line: &Proxy| {
            let url = line.url(&url);
            format!("{url}{}{HEARTBEAT}", if url.contains('?') { "&" } else { "?" })
        };
        let mut environment = BTreeMap::from([
            ("AMQP_URL".to_owned(), through(&workers_line)),
            (
                "DATABASE_URL".to_owned(),
                store_line.as_ref().map_or_else(|| store.clone(), |line| line.url(store)),
            ),
            ("HOME".to_owned(), place.file("").display().to_string()),
            ("RABBITRY_HOME".to_owned(), place.file("").display().to_string()),
            ("RUST_LOG".to_owned(), "info,lapin=off,refinery_core=warn".to_owned()),
        ]);
        if let Some(mutant) = &wanted.mutant {
            environment.insert("RABBITRY_MUTANT".to_owned(), mutant.clone());
        }
        let fleet = Fleet::start(wanted.workers, environment, place.file(""));
        let workload = Workload::start(&through(&clients_line), wanted.clients, rng.fork()).await;
        let gauge = Gauge::of(&fleet);
        Self {
            wanted,
            rng,
            vhost,
            place,
            workers_line,
            clients_line,
            store_line,
            fleet,
            workload,
            gauge,
            deadlocks,
            found: Vec::new(),
        }
    }

    /// # Panics
    /// If the store is a file.
    pub fn store_line(&self) -> &Proxy {
        self.store_line.as_ref().expect("the store has a server")
    }

    /// Waits for so long, while the load goes on.
    pub async fn go_on(&self, share_of_the_window: f64) {
        sleep(self.wanted.window.mul_f64(share_of_the_window)).await;
    }

    /// Repeats something until the window is over, with a pause between.
    pub async fn until_over(&mut self, pause: Duration, mut what: impl AsyncFnMut(&mut Self)) {
        let end = Instant::now() + self.wanted.window;
        while Instant::now() < end {
            what(self).await;
            sleep(pause).await;
        }
    }

    /// Makes every worker anew with a failpoint.
    pub fn arm(&mut self, failpoints: &str) {
        self.fleet.set("RABBITRY_FAILPOINTS", failpoints);
        self.kill_all();
    }

    /// Makes every worker anew without one.
    pub fn disarm(&mut self) {
        self.fleet.unset("RABBITRY_FAILPOINTS");
        self.kill_all();
    }

    pub fn kill_all(&self) {
        self.fleet.signal_all(rustix::process::Signal::KILL);
    }

    pub fn random_worker(&mut self) -> usize {
        self.rng.usize(..self.fleet.size())
    }

    /// Sets a policy for the queues whose names are like this, or takes it back.
    pub fn set_policy(&self, name: &str, queues: &str, definition: Option<Value>) {
        let path = format!("/api/policies/{}/{name}", self.vhost.name());
        let body = definition
            .map(|definition| json!({"pattern": queues, "definition": definition, "apply-to": "queues"}));
        let method = if body.is_some() { "PUT" } else { "DELETE" };
        block_in_place(|| request(self.vhost.management_url(), method, &path, body.as_ref()));
    }

    /// A fault that did not happen proves nothing: a worker has to have logged this.
    pub fn expect_logged(&mut self, text: &str) {
        let logs = fs::read_dir(self.place.file("")).into_iter().flatten().flatten().map(|file| file.path());
        let mut logs = logs.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
        if !logs.any(|log| fs::read_to_string(log).is_ok_and(|log| log.contains(text))) {
            self.wrong(format!("the fault did not happen: no worker logged {text:?}"));
        }
    }

    /// Writes down something that must not be.
    pub fn wrong(&mut self, what: impl Into<String>) {
        self.found.push(what.into());
    }
}

/// Where the store lies, if it is a file.
pub fn folder(place: &Place) -> &Path {
    place.store().path().parent().expect("a file lies in a folder")
}

/// Room for the load, and little to fill.
fn mount_small(place: &Place) {
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"]).arg(folder(place)).status();
    assert!(mounted.is_ok_and(|status| status.success()), "a small file system can be mounted");
}
