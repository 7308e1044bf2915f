//! Opening: which servers and databases are taken, and what is said of the others.

use rabbitry::store::{self, OpenError, Options, postgres::PostgresStore};
use users::commands::Users;

use super::{own_database, with};
use crate::support::{
    ask::{award, body, create, get, gists},
    database::Database,
    postgres::server,
};

async fn outcome(url: &str) -> Result<(), OpenError> {
    PostgresStore::<Users>::open(url, Options::default()).await.map(drop)
}

async fn refusal(url: &str) -> String {
    match outcome(url).await {
        Err(OpenError::Refused(sentence)) => sentence,
        other => panic!("not refused: {other:?}"),
    }
}

async fn unavailable(url: &str) -> String {
    match outcome(url).await {
        Err(OpenError::Unavailable(error)) => error.to_string(),
        other => panic!("not unavailable: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_start_at_once_make_one_schema() {
    let database = Database::postgres();
    let opened = futures::future::join_all((0..8).map(|_| outcome(&database.url))).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    for part in ["rabbitry", "users"] {
        assert_eq!(database.number(&format!("SELECT count(*) FROM {part}_migrations")), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_database_of_ours_is_refused_and_left_alone() {
    let database = Database::postgres();
    database.change("CREATE TABLE users (name text)");
    assert!(refusal(&database.url).await.contains("tables of another program"));
    assert_eq!(database.number("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_used_until_it_says_otherwise() {
    let database = Database::postgres();
    let old = database.open().await;
    database.change(
        "ALTER TABLE users ADD COLUMN note text;
         INSERT INTO users_migrations VALUES (2, 'newer', '2030-01-01T00:00:00Z', '1')",
    );
    // One that runs and one that starts, of the older program, beside those that have widened the schema.
    for worker in [old, database.open().await] {
        let replies = worker.answer(&[create("ann").id("a"), award("ann", 1), get("ann")]).await;
        assert_eq!(gists(&replies), ["201", "200", "200"]);
    }
    database.change("INSERT INTO compatibility VALUES ('users', 2)");
    let refused = refusal(&database.url).await;
    assert!(refused.contains("schema version 2") && refused.contains("use a newer program"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_history_is_refused() {
    let database = Database::postgres();
    drop(database.open().await);
    database.change("UPDATE users_migrations SET checksum = '1'");
    assert!(refusal(&database.url).await.contains("another content"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_change_the_schema_may_use_it() {
    let database = own_database("");
    drop(database.open().await);
    let user = url::Url::parse(&database.url).unwrap().path().trim_start_matches('/').to_owned();
    database.change(&format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'hush-hush';
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}"
    ));
    let mut url = url::Url::parse(&database.url).unwrap();
    url.set_username(&user).unwrap();
    url.set_password(Some("hush-hush")).unwrap();
    let opened = outcome(url.as_str()).await;
    url.set_password(Some("wr0ng-s3cret")).unwrap();
    let wrong = refusal(url.as_str()).await;
    database.change(&format!("DROP OWNED BY {user}; DROP ROLE {user}"));
    assert!(opened.is_ok(), "{opened:?}");
    assert!(wrong.contains("check the user and the password"), "{wrong}");
    assert!(!wrong.contains("s3cret"), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_refused_and_a_server_that_is_not_is_waited_for() {
    let mut url = server();
    url.set_path("no_such_database");
    assert!(refusal(url.as_str()).await.contains("create the database"));
    // Nobody listens on the port of a socket that was just closed.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = unavailable(&format!("postgresql://ann:s3cret@127.0.0.1:{port}/shop")).await;
    assert!(away.contains(&format!("postgresql://ann@127.0.0.1:{port}/shop")), "{away}");
    assert!(!away.contains("s3cret"), "{away}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_may_be_lost_are_refused() {
    let database = Database::postgres();
    let refused = refusal(&with(&database.url, "options", "-c synchronous_commit=off")).await;
    assert!(refused.contains("synchronous_commit is off"), "{refused}");
    outcome(&with(&database.url, "options", "-c synchronous_commit=remote_apply")).await.unwrap();
    let odd = refusal(&with(&database.url, "options", "-c no_such_setting=1")).await;
    assert!(odd.contains("check the options"), "{odd}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_durable_and_isolated_whatever_the_databases_defaults_are() {
    let database = own_database("");
    drop(database.open().await);
    let name = database.text("SELECT current_database()");
    database.change(&format!(
        "ALTER DATABASE {name} SET synchronous_commit = off;
         ALTER DATABASE {name} SET default_transaction_isolation = 'serializable';
         ALTER DATABASE {name} SET statement_timeout = 0"
    ));
    database.change(
        "CREATE TABLE seen (setting text, value text);
         CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen SELECT name, setting FROM pg_settings WHERE name IN ('synchronous_commit',
                 'transaction_isolation', 'statement_timeout', 'lock_timeout',
                 'idle_in_transaction_session_timeout');
             RETURN new;
         END $$;
         CREATE TRIGGER look BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION look()",
    );
    database.open().await.answer_one(&create("ann")).await;
    let seen = database.rows("SELECT setting, value FROM seen ORDER BY setting");
    let expected = [
        ["idle_in_transaction_session_timeout", "10000"],
        ["lock_timeout", "5000"],
        ["statement_timeout", "30000"],
        ["synchronous_commit", "on"],
        ["transaction_isolation", "read committed"],
    ];
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_is_waited_for() {
    let database = own_database("");
    drop(database.open().await);
    let name = database.text("SELECT current_database()");
    database.change(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    let told = unavailable(&database.url).await;
    assert!(told.contains("does not allow writes"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_that_cannot_hold_every_text_is_refused() {
    let database = own_database("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    assert!(refusal(&database.url).await.contains("encoded in LATIN1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_ordered_by_their_bytes_whatever_the_databases_locale_is() {
    let database = own_database("LOCALE_PROVIDER icu ICU_LOCALE 'en' TEMPLATE template0");
    let worker = database.open().await;
    let names = ["0", "A", "B-1", "B.1", "B1", "B_1", "a", "b"];
    worker.answer(&names.map(create)).await;
    let sorted_by_locale = database.rows("SELECT username FROM users ORDER BY username COLLATE \"default\"");
    assert_ne!(sorted_by_locale.concat(), names, "the locale has another order");
    let mut listed = Vec::new();
    for after in ["0", "B-1", "B_1"] {
        let payload = serde_json::json!({"after": after, "limit": 2});
        let page = body(&worker.answer_one(&crate::support::ask::ask("list", payload)).await);
        let users = page["users"].as_array().unwrap().iter();
        listed.extend(users.map(|user| user["username"].as_str().unwrap().to_owned()));
    }
    assert_eq!(listed, ["A", "B-1", "B.1", "B1", "a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_trusted_as_the_url_says() {
    let database = own_database("");
    // The server makes its own certificate, in its own folder.
    database.change(
        "COPY (SELECT 1) TO PROGRAM 'openssl req -new -x509 -nodes -days 2 -subj /CN=localhost \
         -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout server.key -out server.crt 2>&1 && \
         chmod 600 server.key'",
    );
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.crt");
    std::fs::write(&root, database.text("SELECT pg_read_file('server.crt')")).unwrap();
    database.change("ALTER SYSTEM SET ssl = on");
    database.change("SELECT pg_reload_conf()");
    crate::support::eventually("TLS is on", async || database.text("SHOW ssl") == "on").await;

    let is_encrypted = async |mode: &str| {
        let url = with(&with(&database.url, "sslmode", mode), "application_name", mode);
        let store = store::open::<Users>(&url, Options::default()).await?;
        store.ready().await.unwrap();
        let sql = format!(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = '{mode}'"
        );
        Ok::<_, OpenError>(database.text(&sql) == "t")
    };
    for (mode, expected) in [("disable", false), ("prefer", true), ("require", true)] {
        assert_eq!(is_encrypted(mode).await.unwrap(), expected, "{mode}");
    }
    let stranger = is_encrypted("verify-full").await.unwrap_err().to_string();
    let trusted = with(&database.url, "sslrootcert", root.to_str().unwrap());
    let trusted = with(&trusted, "sslmode", "verify-full");
    let known = outcome(&trusted).await;
    let other_name = outcome(&trusted.replace("127.0.0.1", "127.0.0.2")).await;
    database.change("ALTER SYSTEM RESET ssl");
    database.change("SELECT pg_reload_conf()");
    assert!(stranger.contains("certificate"), "{stranger}");
    assert!(known.is_ok(), "{known:?}");
    assert!(other_name.is_err(), "a certificate is for its name");
}
