//! The CLI producer as a process.

mod exit_codes;
mod lost;
mod outputs;

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    database::Database,
    process::{Said, cli, program, run, run_with_lines},
    users::{Stage, new_user, points, user, wait_for_points},
};

impl Stage {
    /// Runs the CLI with its output piped.
    async fn rabbitry(&self, args: &[&str]) -> Said {
        run(cli(&self.vhost, &self.place, args)).await
    }

    /// Runs the CLI on a terminal; errors and results come together there.
    async fn rabbitry_on_a_terminal(&self, arguments: &str) -> String {
        let mut command = program("script", &self.place);
        let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_rabbitry"));
        command.env("AMQP_URL", self.vhost.url_text()).args(["-qec", &line, "/dev/null"]);
        command.env("AMQP_MANAGEMENT_URL", self.vhost.management_url().as_str());
        run(command).await.with_code(0).out.replace('\r', "")
    }

    async fn rabbitry_fed(&self, args: &[&str], input: String) -> Said {
        run_with_lines(cli(&self.vhost, &self.place, args), std::iter::once(input)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_answers_in_json_when_piped() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let tour: [(&[&str], Value); 8] = [
        (
            &["users", "create", "ann", "--email", "ann@example.com", "--points", "120"],
            user("ann", 120, "Bronze"),
        ),
        (&["users", "create", "bob", "--email", "bob@example.com"], user("bob", 0, "Bronze")),
        (&["users", "get", "ann"], user("ann", 120, "Bronze")),
        (&["users", "promote", "ann"], user("ann", 120, "Gold")),
        (&["users", "award", "ann", "-25"], user("ann", 95, "Gold")),
        (&["--json", "users", "promote", "ann"], user("ann", 95, "Silver")),
        (&["users", "list", "--limit", "1"], json!({"users": [user("ann", 95, "Silver")], "next": "ann"})),
        (&["users", "list", "--after", "ann"], json!({"users": [user("bob", 0, "Bronze")]})),
    ];
    for (args, expected) in tour {
        let said = stage.rabbitry(args).await.with_code(0);
        assert_eq!((said.json(), said.err.as_str()), (expected, ""), "{args:?}");
        assert_eq!(said.out.lines().count(), 1);
    }
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_a_terminal_sees_a_table() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let table = stage.rabbitry_on_a_terminal("users create ann --email ann@example.com --points 7").await;
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = table.lines().map(words).filter(|words| !words.is_empty()).collect();
    assert_eq!(
        lines,
        [
            ["USERNAME", "EMAIL", "POINTS", "STATUS"].map(str::to_owned).to_vec(),
            ["ann", "ann@example.com", "7", "Bronze"].map(str::to_owned).to_vec(),
        ]
    );
    stage.rabbitry(&["users", "create", "bob", "--email", "bob@example.com"]).await.with_code(0);
    let page = stage.rabbitry_on_a_terminal("users list --limit 1").await;
    assert!(page.contains("USERNAME") && page.contains("rabbitry users list --after ann"), "{page}");
    let json = stage.rabbitry_on_a_terminal("users get ann --json").await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), user("ann", 7, "Bronze"));
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_id_is_executed_once_and_told_so() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.rabbitry(&["users", "create", "ann", "--email", "ann@example.com"]).await.with_code(0);
    let award = ["users", "award", "ann", "5", "--message-id", "pay-day", "-v"];
    let first = stage.rabbitry(&award).await.with_code(0);
    assert_eq!(first.err, "message_id: pay-day\n");
    let second = stage.rabbitry(&award).await.with_code(0);
    assert_eq!(second.out, first.out);
    assert!(second.err.contains("given before"), "{}", second.err);
    let other = stage.rabbitry(&["users", "award", "ann", "6", "--message-id", "pay-day"]).await.with_code(1);
    assert!(other.err.contains("idempotency_conflict (422)"), "{}", other.err);
    assert_eq!(points(stage.place.store(), "ann"), 5);
    // Without one each call has an id of its own, which -v tells.
    let fresh = stage.rabbitry(&["users", "award", "ann", "1", "--verbose"]).await.with_code(0);
    let id = fresh.err.trim().strip_prefix("message_id: ").unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_wait_returns_when_the_broker_has_the_command() {
    let stage = Stage::set().await;
    let create = ["users", "create", "ann", "--email", "ann@example.com", "--no-wait", "--message-id", "m1"];
    let said = stage.rabbitry(&create).await.with_code(0);
    assert_eq!(said.json(), json!({"message_id": "m1", "confirmed": true}));
    assert_eq!(stage.vhost.ready("users.create").await, 1);
    let worker = stage.worker().await;
    crate::support::eventually("it is done", async || stage.vhost.ready("users.create").await == 0).await;
    let award = stage.rabbitry(&["users", "award", "ann", "5", "--no-wait"]).await.with_code(0);
    assert_eq!(award.json()["confirmed"], true);
    wait_for_points(stage.place.store(), "ann", 5).await;
    // Without a reply, what cannot be executed is set aside.
    let nothing = r#"{"username":"ann","points":0}"#;
    stage.rabbitry(&["send", "users.award", nothing, "--no-wait"]).await.with_code(0);
    crate::support::eventually("it is set aside", async || stage.vhost.ready("users.dead").await == 1).await;
    stage.end(worker, &[("users.dead", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_sent_as_json_alone_or_as_an_array() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let one = stage.rabbitry(&["send", "users.create", &new_user("ann", 1).to_string()]).await.with_code(0);
    assert_eq!(one.json(), user("ann", 1, "Bronze"));
    let array = json!([new_user("bob", 2), new_user("ann", 3)]).to_string();
    let many = stage.rabbitry(&["send", "users.create", &array]).await.with_code(0).json();
    assert_eq!((&many[0], &many[1]["code"]), (&user("bob", 2, "Bronze"), &json!("user_exists")));
    let bad = stage.rabbitry(&["send", "users.create", "{"]).await.with_code(1);
    assert!(bad.err.contains("malformed (400)"), "{}", bad.err);
    let page = stage.rabbitry(&["send", "users.list", "{}"]).await.with_code(0).json();
    assert_eq!(page["users"].as_array().unwrap().len(), 2);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_from_standard_input_are_answered_in_their_order() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let lines: String = (0..500).map(|n| format!("{}\n", new_user(&format!("user{n}"), n))).collect();
    let said =
        stage.rabbitry_fed(&["send", "users.create", "-", "--in-flight", "100"], lines).await.with_code(0);
    for (n, line) in said.out.lines().enumerate() {
        let expected = user(&format!("user{n}"), i64::try_from(n).unwrap(), "Bronze");
        assert_eq!(serde_json::from_str::<Value>(line).unwrap(), expected);
    }
    assert_eq!(said.out.lines().count(), 500);
    // Some refused, an empty line, and no newline at the end.
    let mixed = format!("{}\n\n{}\n{{\n{}", new_user("new1", 0), new_user("user7", 0), new_user("new2", 0));
    let said = stage.rabbitry_fed(&["send", "users.create", "-"], mixed).await.with_code(1);
    let codes: Vec<_> = said
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|reply| reply["code"].as_str().unwrap_or("done").to_owned())
        .collect();
    assert_eq!(codes, ["done", "user_exists", "malformed", "done"]);
    assert!(said.err.contains("2 commands were refused"), "{}", said.err);
    let nothing = stage.rabbitry_fed(&["send", "users.create", "-"], String::new()).await.with_code(0);
    assert_eq!(nothing.out, "");
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_not_text_is_told_alone_and_an_input_that_cannot_be_read_ends_it() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let fed_by_a_shell = async |line: &str| {
        let mut command = program("sh", &stage.place);
        command.env("AMQP_URL", stage.vhost.url_text()).env("RABBITRY", env!("CARGO_BIN_EXE_rabbitry"));
        command.args(["-c", line]);
        run(command).await
    };
    let line = r#"printf '{"username":"bob"}\n\377\n{"username":"ann"}\n' | "$RABBITRY" send users.get -"#;
    let said = fed_by_a_shell(line).await.with_code(1);
    assert!(said.err.contains("3 commands were refused"), "{}", said.err);
    let codes = said.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["code"].clone());
    assert_eq!(codes.collect::<Vec<_>>(), ["user_not_found", "malformed", "user_not_found"]);
    let said = fed_by_a_shell(r#"exec "$RABBITRY" send users.get - < ."#).await.with_code(2);
    assert!(said.err.contains("directory"), "{}", said.err);
    assert_eq!(said.out.lines().count(), 1, "{}", said.out);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn help_version_and_completions_need_no_broker() {
    let stage = Stage::set().await;
    let alone = async |args: &[&str]| {
        let mut command = cli(&stage.vhost, &stage.place, args);
        command.env("AMQP_URL", "amqp://127.0.0.1:1");
        run(command).await.with_code(0)
    };
    assert_eq!(alone(&["--version"]).await.out.trim(), format!("rabbitry {}", env!("CARGO_PKG_VERSION")));
    let help = alone(&["--help"]).await.out;
    for verb in ["users", "import", "status", "send", "completions", "AMQP_URL"] {
        assert!(help.contains(verb), "{help}");
    }
    let help = alone(&["users", "--help"]).await.out;
    for command in ["create", "get", "award", "promote", "list"] {
        assert!(help.contains(command), "{help}");
    }
    assert!(
        !alone(&["users", "create", "--help"]).await.out.contains("127.0.0.1:1"),
        "values of secrets are not shown"
    );
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(alone(&["completions", shell]).await.out.contains("promote"), "{shell}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_help_of_a_command_says_what_is_so() {
    let stage = Stage::set().await;
    let help = async |words: &[&str]| {
        let text = stage.rabbitry(&[words, &["--help"]].concat()).await.with_code(0).out;
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for words in [&["users", "create"][..], &["users", "get"], &["users", "list"], &["send"]] {
        let text = help(words).await;
        assert!(text.contains("commands without an effect are read afresh"), "{text}");
    }
    let create = help(&["users", "create"]).await;
    assert!(
        create.contains("Store a new user") && create.contains("Opening balance [default: 0]"),
        "{create}"
    );
    let list = help(&["users", "list"]).await;
    assert!(list.contains("How many at most, 1 to 1000 [default: 100]"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn that_no_dead_letter_matches_is_said() {
    let stage = Stage::set().await;
    for line in ["requeue --all", "requeue --all --dry-run", "drop --all --yes", "drop --all --dry-run"] {
        let told = stage.rabbitry_on_a_terminal(&format!("dead-letters {line}")).await;
        assert_eq!(told.trim(), "no dead letter matches", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_too_small_is_not_taken() {
    let stage = Stage::set().await;
    for size in ["1000", "0", "much", "-1"] {
        let mut command = cli(&stage.vhost, &stage.place, &["--version"]);
        command.env("RUST_MIN_STACK", size);
        let said = run(command).await.with_code(0);
        assert_eq!(said.err.matches("RUST_MIN_STACK").count(), 1, "{}", said.err);
        assert!(said.err.contains(size) && said.out.starts_with("rabbitry "), "{}", said.err);
    }
    for size in ["", "8388608"] {
        let mut command = cli(&stage.vhost, &stage.place, &["--version"]);
        command.env("RUST_MIN_STACK", size);
        assert_eq!(run(command).await.with_code(0).err, "", "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_url_may_stand_in_a_file() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let file = stage.place.file("amqp-url");
    std::fs::write(&file, format!("{}\n", stage.vhost.url_text())).unwrap();
    let mut command =
        cli(&stage.vhost, &stage.place, &["users", "create", "ann", "--email", "ann@example.com"]);
    command.env_remove("AMQP_URL").env("AMQP_URL_FILE", file);
    run(command).await.with_code(0);
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_empty_is_as_one_that_is_not_set() {
    let stage = Stage::set().await;
    let database = Database::sqlite();
    drop(database.open().await);
    let cases = [
        ("AMQP_URL", stage.vhost.url_text(), ["dead-letters", "list"]),
        ("DATABASE_URL", database.url.clone(), ["store", "check"]),
    ];
    for (name, url, args) in cases {
        let (file_name, file) = (format!("{name}_FILE"), stage.place.file(name));
        std::fs::write(&file, &url).unwrap();
        let run_with = async |value: &str, file: &Path| {
            let mut command = cli(&stage.vhost, &stage.place, &args);
            command.env(name, value).env(&file_name, file);
            run(command).await
        };
        run_with("", &file).await.with_code(0);
        run_with(&url, Path::new("")).await.with_code(0);
        let both = run_with(&url, &file).await.with_code(78);
        assert!(both.err.contains(&file_name), "{}", both.err);
    }
}
