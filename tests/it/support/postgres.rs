//! Sessions of PostgreSQL beside the store's, and databases of a test's own on the server of `make test STORE=postgres`.

use std::{
    env, fs,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

type Rows = Result<Vec<Vec<String>>, String>;

/// A session on a thread of its own, so that tests can use it like a file. It ends when it is dropped.
pub struct Session {
    asked: Sender<String>,
    answers: Receiver<Rows>,
}

impl Session {
    /// # Panics
    /// If the server does not let it in.
    pub fn open(url: &str) -> Self {
        let (asked, questions) = mpsc::channel::<String>();
        let (answer, answers) = mpsc::channel();
        let url = url.to_owned();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
                tokio::spawn(connection);
                for sql in questions {
                    if answer.send(rows(&client, &sql).await).is_err() {
                        return;
                    }
                }
            });
        });
        Self { asked, answers }
    }

    /// The rows of a statement, or of several; each value as text.
    ///
    /// # Errors
    /// What the server says.
    pub fn rows(&self, sql: &str) -> Rows {
        self.asked.send(sql.to_owned()).map_err(|error| error.to_string())?;
        self.answers.recv().map_err(|error| error.to_string())?
    }
}

async fn rows(client: &Client, sql: &str) -> Rows {
    let messages = client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
        Some(error) => error.to_string(),
        None => error.to_string(),
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|n| row.get(n).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// The URL of the server that tests may make databases on.
pub fn server() -> url::Url {
    let in_home = || {
        let state = fs::read_to_string(format!("{}/store.env", env::var("RABBITRY_HOME").ok()?)).ok()?;
        Some(state.trim().strip_prefix("DATABASE_URL=")?.to_owned())
    };
    let url = env::var("RABBITRY_TEST_DATABASE_URL").ok().or_else(in_home);
    url::Url::parse(&url.expect("no PostgreSQL for the tests; run them with `make test STORE=postgres`"))
        .unwrap()
}

fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Something of a test's own on the server, with its URL; it is gone when dropped.
pub struct Own {
    pub url: String,
    drop: String,
}

impl Own {
    /// A schema, which is to the store what a database is, and is made in a fraction of the time.
    pub fn schema() -> Self {
        let name = fresh_name();
        let mut url = server();
        Session::open(url.as_str()).rows(&format!("CREATE SCHEMA {name}")).unwrap();
        let options = format!("-csearch_path={name}");
        url.query_pairs_mut().append_pair("options", &options).append_pair("application_name", &name);
        // A worker that was killed may still hold locks; whatever stays goes with the server.
        let drop = format!("SET lock_timeout = '2s'; DROP SCHEMA {name} CASCADE");
        Self { url: url.to_string(), drop }
    }

    /// A database, with what stands after its name in `CREATE DATABASE`.
    pub fn database(properties: &str) -> Self {
        let name = fresh_name();
        let mut url = server();
        Session::open(url.as_str()).rows(&format!("CREATE DATABASE {name} {properties}")).unwrap();
        url.set_path(&name);
        Self { url: url.to_string(), drop: format!("DROP DATABASE {name} WITH (FORCE)") }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // A second panic would hide the first.
        let _ = std::panic::catch_unwind(|| Session::open(server().as_str()).rows(&self.drop));
    }
}
