//! Clients of other libraries, which know nothing of this project.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{
    process::{program, run},
    users::{Stage, new_user, user},
};

/// The Python that `tests/clients/prepare.sh` makes.
fn python() -> PathBuf {
    let named = std::env::var_os("RABBITRY_TEST_PYTHON").map(PathBuf::from);
    let python =
        named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python"));
    assert!(
        python.exists(),
        "{} is missing: run the tests by `make test`, or once `tests/clients/prepare.sh target/python`",
        python.display()
    );
    python
}

#[tokio::test(flavor = "multi_thread")]
async fn pika_with_the_client_of_its_tutorial_is_answered() {
    let stage = Stage::set().await;
    let worker = stage.worker().await;
    let call = async |queue: &str, bodies: &[String]| {
        let mut command = program(python().to_str().unwrap(), &stage.place);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/pika_rpc.py"));
        command.arg(stage.vhost.url_text()).arg(queue).args(bodies);
        let said = run(command).await.with_code(0);
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let users =
        [new_user("ann", 120), new_user("ann", 0), json!({"username": "bob"})].map(|user| user.to_string());
    let replies = call("users.create", &users).await;
    assert_eq!(replies[0], user("ann", 120, "Bronze"));
    assert_eq!(replies[1]["code"], "user_exists");
    assert_eq!(replies[2]["errors"][0]["field"], "email");
    assert_eq!(replies.len(), 3);
    let ann = [json!({"username": "ann"}).to_string()];
    assert_eq!(call("users.promote", &ann).await, [user("ann", 120, "Gold")]);
    assert_eq!(call("users.get", &ann).await, [user("ann", 120, "Gold")]);
    stage.end(worker, &[]).await;
}
