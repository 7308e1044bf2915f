//! A virtual host, a store, and the programs on them.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};

use crate::support::{database::Database, vhost::Vhost};

/// Longest time for an import of many rows on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// What a user is: address, points, status.
pub type Users = BTreeMap<String, (String, i64, String)>;

pub struct Stage {
    pub vhost: Vhost,
    dir: TempDir,
    database: Database,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Stage {
    pub async fn set() -> Self {
        let commands = ["create", "get", "award", "promote", "list"];
        let vhost = Vhost::with_service("users", &commands).await;
        Self { vhost, dir: tempfile::tempdir().unwrap(), database: Database::new() }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A worker process, killed when dropped.
    pub fn worker(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.file("worker.log")).unwrap();
        let mut command = self.program(env!("CARGO_BIN_EXE_users-worker"));
        command.env("DATABASE_URL", &self.database.url);
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// The CLI, started; it is killed when dropped.
    pub fn start(&self, args: &[&str]) -> Child {
        let mut command = self.program(env!("CARGO_BIN_EXE_rabbitry"));
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Runs the CLI to its end.
    pub async fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, b"").await
    }

    /// Runs the CLI with something on its standard input.
    pub async fn run_with(&self, args: &[&str], input: &[u8]) -> Ended {
        let mut child = self.start(args);
        let mut stdin = child.stdin.take().unwrap();
        let feed = async {
            // A program that does not read all of it closes the pipe.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let (ended, ()) = tokio::join!(end(child), feed);
        ended
    }

    fn program(&self, path: &str) -> Command {
        let mut command = Command::new(path);
        command.env_clear().env("HOME", self.dir.path()).env("RABBITRY_HOME", self.dir.path());
        command.env("AMQP_URL", self.vhost.url_text()).current_dir(self.dir.path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    pub fn users(&self) -> Users {
        let rows = self.database.rows("SELECT username, email, points, status FROM users");
        let user = |row: Vec<String>| {
            let [username, email, points, status] = row.try_into().unwrap();
            (username, (email, points.parse().unwrap(), status))
        };
        rows.into_iter().map(user).collect()
    }

    /// How many users there are; none before a worker has made the store.
    pub fn count_users(&self) -> usize {
        if !self.database.has_users() {
            return 0;
        }
        usize::try_from(self.database.number("SELECT count(*) FROM users")).unwrap()
    }

    /// The executed messages with an id: each command and id once.
    pub fn executed(&self) -> Vec<(String, String)> {
        let rows = self.database.rows("SELECT command, message_id FROM inbox ORDER BY 1, 2");
        rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
    }
}

/// Waits for the end of a program.
pub async fn end(child: Child) -> Ended {
    let output = timeout(LONG, child.wait_with_output()).await.expect("the program ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// `kill -9`, at a moment at which it still ran.
pub async fn kill(mut child: Child) {
    assert!(child.try_wait().unwrap().is_none(), "it had ended before it was killed");
    child.kill().await.unwrap();
}

impl Ended {
    #[track_caller]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// The summary of an import, without the times.
    pub fn summary(&self) -> Value {
        let mut summary: Value = serde_json::from_str(&self.out).unwrap();
        for time in ["seconds", "rows_per_second"] {
            assert!(summary.as_object_mut().unwrap().remove(time).unwrap().is_f64());
        }
        summary
    }
}

/// The refused rows in a file: line, code, detail.
pub fn refused(path: &Path) -> Vec<(u64, String, String)> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    assert_eq!(reader.headers().unwrap(), &["line", "username", "email", "points", "code", "detail"][..]);
    let rows = reader.records().map(Result::unwrap);
    rows.map(|row| (row[0].parse().unwrap(), row[4].to_owned(), row[5].to_owned())).collect()
}
