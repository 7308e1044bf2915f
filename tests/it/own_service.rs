//! docs/your-own-service.md: its code is that of `tests/stock/`, which is built, run and killed here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    support::{
        process::{Place, Said, WorkerProcess, program, run, run_with_lines},
        vhost::Vhost,
    },
    tidy::root,
};

#[test]
fn the_page_shows_what_is_tested() {
    let page = fs::read_to_string(root("docs/your-own-service.md")).unwrap();
    let files = ["Cargo.toml", "src/lib.rs", "src/bin/stock-worker.rs", "src/bin/stock.rs", "tests/rule.rs"];
    let texts = files.map(|file| fs::read_to_string(root("tests/stock").join(file)).unwrap());
    for (file, text) in files.iter().zip(&texts) {
        // The reader's crate stands beside the checkout.
        let text = text.replace("../../src/rabbitry", "../rabbitry/src/rabbitry");
        assert!(page.contains(&format!("\n{}```", text)), "the page shows another {file}");
    }
    let lines: usize = texts[1..4].iter().map(|text| text.lines().count()).sum();
    assert!(lines <= 90, "the service has {lines} lines");
}

/// A virtual host with the service's topology, brought there by its own command line, and a store.
struct Stage {
    vhost: Vhost,
    place: Place,
}

/// A program of the crate; `tests/run.sh` builds them.
fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_users-worker")).with_file_name(name);
    assert!(path.exists(), "{} is not built: cargo build --workspace --bins", path.display());
    path
}

impl Stage {
    async fn set() -> Self {
        let stage = Self { vhost: Vhost::create().await, place: Place::new() };
        stage.stock(&["topology", "apply"]).await.with_code(0);
        stage
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = program(built("stock").to_str().unwrap(), &self.place);
        command
            .env("AMQP_URL", self.vhost.url_text())
            .env("DATABASE_URL", &self.place.store().url)
            .args(args);
        command.env("AMQP_MANAGEMENT_URL", self.vhost.management_url().as_str());
        command
    }

    async fn stock(&self, args: &[&str]) -> Said {
        run(self.command(args)).await
    }

    fn worker(&self) -> WorkerProcess {
        let mut command = program(built("stock-worker").to_str().unwrap(), &self.place);
        command.env("AMQP_URL", self.vhost.url_text()).env("DATABASE_URL", &self.place.store().url);
        WorkerProcess::spawn(command, &self.place)
    }

    async fn on_hand(&self, sku: &str) -> i64 {
        let item = self.stock(&["stock", "get", sku, "--timeout", "60"]).await.with_code(0).json();
        item["on_hand"].as_i64().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_the_page_works() {
    let stage = Stage::set().await;
    let worker = stage.worker();
    worker.wait_for_log("consuming").await;
    let item = stage.stock(&["stock", "put", "PEN-1", "100"]).await.with_code(0).json();
    assert_eq!(item, json!({"sku": "PEN-1", "on_hand": 100}));
    let order = ["stock", "reserve", "PEN-1", "3", "--message-id", "order-17", "--verbose"];
    for said in [stage.stock(&order).await, stage.stock(&order).await] {
        assert_eq!(said.with_code(0).json(), json!({"sku": "PEN-1", "on_hand": 97}));
    }
    let refused = stage.stock(&["stock", "reserve", "PEN-1", "98"]).await.with_code(1);
    assert!(refused.err.contains("sold_out (409): there are 97"), "{}", refused.err);
    let wrong = stage.stock(&["stock", "put", "not a sku", "1"]).await.with_code(2);
    assert!(wrong.err.contains("a SKU has 1 to 20"), "{}", wrong.err);

    fs::write(stage.place.file("items.csv"), "sku,on_hand\nPEN-2,50\nINK-1,7\nnot a sku,1\n").unwrap();
    for repeated in [0, 3] {
        let import = stage.stock(&["import", "stock.put", "items.csv"]).await.with_code(1).json();
        assert_eq!((&import["rows"], &import["done"]), (&json!(3), &json!(2)), "{import}");
        assert_eq!(import["repeated"], json!(repeated.min(2)));
        assert_eq!(import["refused"], json!({"invalid": 1}));
    }
    let refused = fs::read_to_string(stage.place.file("items.csv.refused.csv")).unwrap();
    assert!(refused.starts_with("line,sku,on_hand,code,detail\n4,not a sku,1,invalid,"), "{refused}");
    let export = stage.stock(&["export", "stock"]).await.with_code(0);
    assert_eq!(export.out, "sku,on_hand\nINK-1,7\nPEN-1,97\nPEN-2,50\n");
    let page = stage.stock(&["stock", "list", "--limit", "2"]).await.with_code(0).json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (2, &json!("PEN-1")));

    stage.stock(&["send", "stock.reserve", r#"{"sku":"PEN-1"}"#, "--no-wait"]).await.with_code(0);
    crate::support::eventually("it is dead-lettered", async || stage.vhost.ready("stock.dead").await == 1)
        .await;
    let letters = stage.stock(&["dead-letters", "list"]).await.with_code(0).json();
    assert_eq!(
        (&letters["letters"][0]["command"], &letters["letters"][0]["reason"]),
        (&json!("reserve"), &json!("invalid"))
    );
    let log = worker.stop().await;
    assert!(log.contains("nothing was left unfinished"), "{log}");
}

/// Workers are killed in the middle of their work again and again; what is not answered is sent again with its id.
#[tokio::test(flavor = "multi_thread")]
async fn its_workers_are_killed_and_every_order_counts_once() {
    const ORDERS: i64 = 2_000;
    let stage = Stage::set().await;
    let mut workers = [stage.worker(), stage.worker()];
    stage.stock(&["stock", "put", "PEN-1", "1000000", "--timeout", "60"]).await.with_code(0);
    stage.stock(&["stock", "put", "INK-1", "5", "--timeout", "60"]).await.with_code(0);
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let send =
                stage.command(&["send", "stock.reserve", "-", "--in-flight", "100", "--timeout", "120"]);
            let lines = (0..ORDERS / 2).map(|order| {
                let many: Vec<Value> =
                    (0..2).map(|_| json!({"sku": "PEN-1", "count": 1 + order % 3})).collect();
                Value::from(many).to_string() + "\n"
            });
            tokio::spawn(run_with_lines(send, lines))
        })
        .collect();
    let executed = || stage.place.store().number("SELECT count(*) FROM inbox");
    for kill in 0..4 {
        let (before, worker) = (executed(), &workers[kill % 2]);
        worker.wait_for_log("consuming").await;
        crate::support::eventually("it is in the middle of its work", async || executed() > before).await;
        let next = stage.worker();
        std::mem::replace(&mut workers[kill % 2], next).kill();
    }
    assert!(executed() < ORDERS, "the orders were done before the workers were killed");
    for sender in senders {
        let said = sender.await.unwrap().with_code(0);
        assert_eq!(said.out.lines().count() as i64, ORDERS / 2);
    }
    let taken: i64 = (0..ORDERS / 2).map(|order| 2 * 2 * (1 + order % 3)).sum();
    assert_eq!(stage.on_hand("PEN-1").await, 1_000_000 - taken);
    assert_eq!(stage.on_hand("INK-1").await, 5);
}
