//! The programs themselves, as processes.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use super::{SOON, database::Database, vhost::Vhost};

/// A store, and a folder for the logs of the processes that use it.
pub struct Place {
    dir: TempDir,
    store: Database,
}

impl Place {
    pub fn new() -> Self {
        Self::with(Database::new())
    }

    pub fn with(store: Database) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), store }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> &Database {
        &self.store
    }
}

/// A program without the environment of whoever runs the tests.
pub fn program(path: &str, place: &Place) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
        .env("HOME", place.dir.path())
        .env("RABBITRY_HOME", place.dir.path())
        .current_dir(place.dir.path());
    command
}

/// The worker, not started yet.
pub fn worker(vhost: &Vhost, place: &Place) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_users-worker"), place);
    command.env("AMQP_URL", vhost.url_text()).env("DATABASE_URL", &place.store.url);
    command.env("LOG_FORMAT", "json").env("RUST_LOG", "debug,rabbitry=trace,lapin=off");
    command
}

/// The CLI, not started yet.
pub fn cli(vhost: &Vhost, place: &Place, args: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_rabbitry"), place);
    command
        .env("AMQP_URL", vhost.url_text())
        .env("AMQP_MANAGEMENT_URL", vhost.management_url().as_str())
        .args(args);
    command
}

/// What a program said and how it ended.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let code = output.status.code().unwrap_or_else(|| panic!("ended by a signal: {:?}", output.status));
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// # Panics
    /// If the program did not end with this code.
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {:?}", self.out))
    }
}

/// Runs a program to its end, off the threads of the runtime.
pub async fn run(mut command: Command) -> Said {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let process = Process(command.spawn().unwrap());
    process.end().await
}

/// Runs a program that is fed for as long as there is something; what a program that has ended does not read is lost.
pub async fn run_with_lines(
    mut command: Command,
    lines: impl Iterator<Item = String> + Send + 'static,
) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = move || lines.map(|line| stdin.write_all(line.as_bytes())).find(Result::is_err);
    std::thread::spawn(feed);
    // What is lost on the way is sent again only after seconds.
    Process(child).end_within(4 * SOON).await
}

/// A running program, killed if it still runs when dropped.
pub struct Process(Child);

impl Process {
    /// Starts a program whose output is read at its end.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Starts a program as it is.
    pub fn of(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
        assert!(sent.success(), "cannot send {name} to {pid}");
    }

    /// Waits for its end.
    pub async fn end(self) -> Said {
        self.end_within(SOON).await
    }

    async fn end_within(mut self, limit: Duration) -> Said {
        let (out, err) = (self.0.stdout.take(), self.0.stderr.take());
        let (out, err) = (read_all(out), read_all(err));
        let status = self.wait(limit).await;
        Said::of(&Output { status, stdout: out.join().unwrap(), stderr: err.join().unwrap() })
    }

    async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let until = tokio::time::Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(tokio::time::Instant::now() < until, "the program does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Reads while the program runs, as it stops when a pipe is full.
fn read_all(pipe: Option<impl std::io::Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A worker process that writes its log to a file.
pub struct WorkerProcess {
    process: Process,
    log: PathBuf,
}

impl WorkerProcess {
    pub fn start(vhost: &Vhost, place: &Place) -> Self {
        Self::spawn(worker(vhost, place), place)
    }

    /// Starts with a standard error that is no log to read.
    pub fn spawn_with_errors_to(errors: Stdio, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        Self { process: Process(command.spawn().unwrap()), log: "/dev/null".into() }
    }

    pub fn spawn(mut command: Command, place: &Place) -> Self {
        let log = place.file(&format!("worker-{}.log", uuid::Uuid::now_v7()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        Self { process: Process(command.spawn().unwrap()), log }
    }

    /// Starts and waits until it consumes.
    pub async fn consuming(vhost: &Vhost, place: &Place) -> Self {
        let worker = Self::start(vhost, place);
        worker.wait_for_log("consuming").await;
        worker
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub async fn wait_for_log(&self, text: &str) {
        self.wait_for_logs(&[text]).await;
    }

    /// Waits until its log has one of the texts.
    pub async fn wait_for_logs(&self, texts: &[&str]) {
        let until = Instant::now() + SOON;
        while !texts.iter().any(|text| self.log().contains(text)) {
            assert!(
                Instant::now() < until,
                "not within {SOON:?}: {texts:?} in the worker's log:\n{}",
                self.log()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    pub fn is_running(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_none()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// Waits for its end: the exit code, and the log.
    pub async fn end(mut self) -> (Option<i32>, String) {
        let status = self.process.wait(SOON).await;
        (status.code(), self.log())
    }

    /// SIGTERM: it must end with 0.
    pub async fn stop(self) -> String {
        self.stop_with_code(0).await
    }

    /// SIGTERM: it must end with this code.
    pub async fn stop_with_code(self, expected: i32) -> String {
        self.signal("TERM");
        let (code, log) = self.end().await;
        assert_eq!(code, Some(expected), "{log}");
        log
    }
}
