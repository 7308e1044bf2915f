//! What producers get wrong: each mistake has its documented reply or dead letter, and its neighbours are unharmed.

mod cases;
mod headers;
mod properties;
mod reply_to;

use std::collections::{BTreeMap, BTreeSet};

use lapin::{BasicProperties, message::Delivery};
use serde_json::{Value, json};

use crate::support::{
    process::WorkerProcess,
    users::{ForeignWriter, Stage, body, correlation, new_user, status},
    vhost::header_text,
};

/// What becomes of a message.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// A success with this status.
    Done(i32),
    /// A problem with this code and status.
    Refused(&'static str, i32),
    /// A problem that names this field.
    Field(&'static str),
}
use Expect::{Done, Field, Refused};

/// One message to the queue of a command.
struct Case {
    name: String,
    command: &'static str,
    body: Vec<u8>,
    properties: BasicProperties,
    expect: Expect,
}

fn case(name: &str, command: &'static str, body: impl Into<Vec<u8>>, expect: Expect) -> Case {
    Case { name: name.to_owned(), command, body: body.into(), properties: BasicProperties::default(), expect }
}

impl Case {
    fn with(self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        Self { properties: change(self.properties), ..self }
    }
}

impl Stage {
    /// Sends the messages so that they share batches, and waits until one of many is done.
    async fn send_in_one_batch(&self, worker: &WorkerProcess, cases: &[Case]) {
        self.send_together(worker, cases).await;
        crate::support::eventually("a large batch is done", async || {
            numbers(&worker.log(), "batch is durable", "batch.size").iter().any(|size| *size >= 10)
        })
        .await;
    }

    /// Sends the messages so that they arrive together: the worker waits for a store that somebody else has locked until
    /// it has taken in all of them.
    async fn send_together(&self, worker: &WorkerProcess, cases: &[Case]) {
        let begun = || numbers(&worker.log(), "batch begins", "batch.size").len();
        let come = || numbers(&worker.log(), "deliveries have come", "deliveries").iter().sum::<usize>();
        let (begun_before, come_before) = (begun(), come());
        let foreign = ForeignWriter::begin(self.place.store());
        // This one occupies the worker until the lock is gone. That the broker has delivered it is not enough: what
        // comes before the worker has looked shares its batch.
        self.send("create", &new_user("plug", 0), BasicProperties::default()).await;
        crate::support::eventually("the worker is busy", async || begun() > begun_before).await;
        for case in cases {
            let properties = case.properties.clone().with_correlation_id(case.name.as_str().into());
            self.vhost.publish(&format!("users.{}", case.command), &case.body, properties).await;
        }
        let all = come_before + 1 + cases.len();
        crate::support::eventually("all has come", async || come() >= all).await;
        foreign.end();
    }

    /// A worker whose consumers are at full prefetch, so that whatever is published arrives together.
    async fn warm_worker(&mut self) -> WorkerProcess {
        let worker = self.worker().await;
        for (command, payload) in [
            ("create", new_user("ann", 100)),
            ("award", json!({"username": "ann", "points": 1})),
            ("promote", json!({"username": "ann"})),
        ] {
            assert!(self.ask(command, payload).await.0 < 300);
            worker.wait_for_log(&format!("\"queue\":\"users.{command}\"")).await;
        }
        worker
    }

    async fn replies_by_name(&mut self, count: usize) -> BTreeMap<String, Delivery> {
        let mut replies = BTreeMap::new();
        for _ in 0..count {
            let reply = self.replies.next().await;
            let again = replies.insert(correlation(&reply), reply);
            assert!(again.is_none(), "two replies to {again:?}");
        }
        replies
    }
}

/// What a worker's log gives for a field, in each line with this message.
fn numbers(log: &str, message: &str, field: &str) -> Vec<usize> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = lines.filter(|line| line["message"] == message);
    told.map(|line| usize::try_from(line[field].as_u64().unwrap()).unwrap()).collect()
}

fn judge(case: &Case, reply: &Delivery) {
    let (status, body) = (status(reply), body(reply));
    let name = &case.name;
    let content_type = reply.properties.content_type().as_ref().unwrap().to_string();
    assert_eq!(
        reply.properties.kind().as_ref().unwrap().to_string(),
        format!("users.{}.reply", case.command)
    );
    if let Done(expected) = case.expect {
        assert_eq!((status, content_type.as_str()), (expected, "application/json"), "{name}: {body}");
        return;
    }
    let (code, expected, field) = match case.expect {
        Refused(code, status) => (code, status, None),
        Field(field) => ("invalid", 422, Some(field)),
        Done(_) => unreachable!(),
    };
    assert_eq!((body["code"].as_str(), status), (Some(code), expected), "{name}: {body}");
    assert_eq!(content_type, "application/problem+json", "{name}");
    assert_eq!(body["status"], json!(expected), "{name}: {body}");
    assert_eq!(body["type"], json!(format!("urn:rabbitry:problem:{code}")), "{name}: {body}");
    assert!(body["title"].is_string() && body["retryable"].is_boolean(), "{name}: {body}");
    assert!(body["detail"].as_str().unwrap().len() < 1100, "{name}: {body}");
    if let Some(field) = field {
        let fields: Vec<_> = body["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
        assert_eq!(fields, [&Value::from(field)], "{name}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_its_reply_and_its_neighbours_are_unharmed() {
    let mut stage = Stage::set().await;
    let worker = stage.warm_worker().await;
    let mut cases = cases::bodies();
    cases.extend(properties::cases());
    let asking = |case: Case| case.with(|properties| properties.with_reply_to("reply.test".into()));
    let cases: Vec<_> = cases::among_good_neighbours(cases).into_iter().map(asking).collect();
    stage.send_in_one_batch(&worker, &cases).await;
    let replies = stage.replies_by_name(cases.len()).await;
    for case in &cases {
        judge(case, &replies[&case.name]);
    }
    assert_users(&mut stage, &cases, cases::GOOD_USERS).await;
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_or_too_deep_has_its_reply_and_its_neighbours_are_unharmed() {
    let mut stage = Stage::set().await;
    let worker = stage.warm_worker().await;
    let asking = |case: Case| case.with(|properties| properties.with_reply_to("reply.test".into()));
    let cases: Vec<_> = cases::among_good_neighbours(cases::large()).into_iter().map(asking).collect();
    stage.send_together(&worker, &cases).await;
    let replies = stage.replies_by_name(cases.len()).await;
    for case in &cases {
        judge(case, &replies[&case.name]);
    }
    assert_users(&mut stage, &cases, &["ann", "at-limit", "plug"]).await;
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_in_an_array_share_its_room() {
    let mut stage = Stage::set().await;
    let worker = stage.worker().await;
    stage.ask("create", new_user("ann", 0)).await;
    let array = json!([{"limit": 600}, {"limit": 600}, {"limit": 300}, {}, {"limit": 1}]);
    let (status, answers) = stage.ask("list", array).await;
    let refused: Vec<_> =
        answers.as_array().unwrap().iter().map(|answer| answer["code"] == "invalid").collect();
    assert_eq!((status, refused), (200, vec![false, true, false, false, true]), "{answers}");
    stage.end(worker, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_that_nobody_can_be_told_of_is_set_aside_with_its_reason() {
    let mut stage = Stage::set().await;
    let worker = stage.warm_worker().await;
    let mut cases = cases::bodies();
    cases.extend(properties::cases());
    let cases = cases::among_good_neighbours(cases);
    stage.send_in_one_batch(&worker, &cases).await;
    // What was executed (also if it was refused for the state) is done with; what was not is set aside.
    let executed = ["user_exists", "user_not_found", "points_limit", "insufficient_points"];
    let aside: BTreeMap<_, _> = cases
        .iter()
        .filter_map(|case| match case.expect {
            // An array of which a part was not executed.
            Done(200) => Some((case.name.clone(), (case, "invalid"))),
            Done(_) => None,
            Refused(code, _) => (!executed.contains(&code)).then_some((case.name.clone(), (case, code))),
            Field(_) => Some((case.name.clone(), (case, "invalid"))),
        })
        .collect();
    let mut seen = 0;
    while seen < aside.len() {
        let dead = stage.vhost.take("users.dead").await.delivery;
        let name = correlation(&dead);
        let (case, code) = aside.get(&name).unwrap_or_else(|| panic!("{name}: {dead:?}"));
        assert_eq!(header_text(&dead, "code"), *code, "{}", case.name);
        assert_eq!(header_text(&dead, "queue"), format!("users.{}", case.command));
        assert!(!header_text(&dead, "detail").is_empty());
        assert_eq!(dead.data, case.body, "{}", case.name);
        assert_eq!(dead.properties.message_id(), case.properties.message_id(), "{}", case.name);
        seen += 1;
    }
    assert_users(&mut stage, &cases, cases::GOOD_USERS).await;
    stage.end(worker, &[]).await;
}

/// Each good neighbour is there, and these, and nobody else.
async fn assert_users(stage: &mut Stage, cases: &[Case], others: &[&str]) {
    let good = cases.iter().filter(|case| case.name.starts_with("neighbour ")).count();
    let (_, page) = stage.ask("list", json!({"limit": 1000})).await;
    let names = page["users"].as_array().unwrap().iter().map(|user| user["username"].as_str().unwrap());
    let (neighbours, found): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("neighbour-"));
    assert_eq!(neighbours.len(), good);
    assert_eq!(BTreeSet::from_iter(found), others.iter().copied().collect());
}
