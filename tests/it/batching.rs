//! How commands are cut into batches is invisible: any cut gives the answers and the users that one by one gives, and
//! both are those of a plain model that knows neither batches nor databases.

use std::collections::{BTreeMap, HashMap};

use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestRunner};
use rabbitry::{service::Reply, store::Options};
use serde_json::{Value, json};

use crate::support::{
    ask::{Ask, ask, body},
    database::Database,
};

const NOW: i64 = 1_800_000_000_000;
const POINTS_MAX: i64 = (1 << 53) - 1;

/// What can be told of an answer without repeating the program's sentences.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    body: Value,
    replayed: bool,
}

/// A problem's sentence is for people; its code is what counts.
fn comparable(body: Value) -> Value {
    match body {
        Value::Array(items) => items.into_iter().map(comparable).collect(),
        Value::Object(ref members) if members.contains_key("code") => json!({"code": members["code"]}),
        user => user,
    }
}

impl From<&Reply> for Answer {
    fn from(reply: &Reply) -> Self {
        Self { status: reply.status, body: comparable(body(reply)), replayed: reply.replayed }
    }
}

/// The service as its description reads, written without looking at the program.
#[derive(Default)]
struct Model {
    users: BTreeMap<String, (String, i64, &'static str)>,
    inbox: HashMap<(&'static str, String), (Value, u16, Value)>,
}

impl Model {
    fn answer(&mut self, ask: &Ask) -> Answer {
        let remembers = !matches!(ask.command, "get" | "list");
        let key = ask.id.clone().filter(|_| remembers).map(|id| (ask.command, id));
        let content = normal(ask.command, &ask.body);
        if let Some((known, status, body)) = key.as_ref().and_then(|key| self.inbox.get(key)) {
            return if *known == content {
                Answer { status: *status, body: body.clone(), replayed: true }
            } else {
                problem(422, "idempotency_conflict")
            };
        }
        if ask.deadline.is_some_and(|deadline| deadline < NOW) {
            return problem(504, "deadline_exceeded");
        }
        let answer = match &ask.body {
            Value::Array(items) => {
                let items = items.iter().map(|item| self.execute(ask.command, item).body).collect();
                Answer { status: 200, body: items, replayed: false }
            }
            payload => self.execute(ask.command, payload),
        };
        if let Some(key) = key {
            self.inbox.insert(key, (content, answer.status, answer.body.clone()));
        }
        answer
    }

    fn execute(&mut self, command: &str, payload: &Value) -> Answer {
        let name = payload["username"].as_str().unwrap_or_default().to_owned();
        if name.starts_with('-') {
            return problem(422, "invalid");
        }
        match (command, self.users.get_mut(&name)) {
            ("create", Some(_)) => problem(409, "user_exists"),
            ("create", None) => {
                let email = payload["email"].as_str().unwrap().to_owned();
                let points = payload["points"].as_i64().unwrap_or(0);
                self.users.insert(name.clone(), (email, points, "Bronze"));
                self.user(201, &name)
            }
            ("list", _) => self.list(payload),
            (_, None) => problem(404, "user_not_found"),
            ("get", Some(_)) => self.user(200, &name),
            ("award", Some((_, points, _))) => match *points + payload["points"].as_i64().unwrap() {
                ..0 => problem(409, "insufficient_points"),
                sum if sum > POINTS_MAX => problem(409, "points_limit"),
                sum => {
                    *points = sum;
                    self.user(200, &name)
                }
            },
            ("promote", Some((_, points, status))) => {
                *status = match *points {
                    ..=50 => "Bronze",
                    51..=100 => "Silver",
                    _ => "Gold",
                };
                self.user(200, &name)
            }
            (other, _) => panic!("no command {other}"),
        }
    }

    fn user(&self, status: u16, name: &str) -> Answer {
        let (email, points, rank) = &self.users[name];
        let body = json!({"username": name, "email": email, "points": points, "status": rank});
        Answer { status, body, replayed: false }
    }

    fn list(&self, payload: &Value) -> Answer {
        let limit = usize::try_from(payload["limit"].as_u64().unwrap_or(100)).unwrap();
        let after = payload["after"].as_str().unwrap_or_default();
        let names: Vec<&String> = self.users.keys().filter(|name| name.as_str() > after).collect();
        let users: Vec<Value> = names.iter().take(limit).map(|name| self.user(200, name).body).collect();
        let mut page = json!({"users": users});
        if names.len() > limit {
            page["next"] = json!(names[limit - 1]);
        }
        Answer { status: 200, body: page, replayed: false }
    }
}

/// A payload with its defaults written out.
fn normal(command: &str, payload: &Value) -> Value {
    match payload {
        Value::Array(items) => items.iter().map(|item| normal(command, item)).collect(),
        payload if command == "create" && !payload["username"].as_str().unwrap().starts_with('-') => {
            let mut payload = payload.clone();
            if payload["points"].is_null() {
                payload["points"] = json!(0);
            }
            payload
        }
        payload => payload.clone(),
    }
}

fn problem(status: u16, code: &str) -> Answer {
    Answer { status, body: json!({"code": code}), replayed: false }
}

fn username() -> impl Strategy<Value = &'static str> {
    select(vec!["ann", "Bob", "b-1", "b.1", "z9"])
}

fn payload(command: &'static str) -> BoxedStrategy<Value> {
    let points = || select(vec![-60, -1, 1, 40, 51, 101, POINTS_MAX]);
    match command {
        "create" => (username(), select(vec!["a@b.c", "x@y.z"]), option::of(select(vec![0, 7, 101])))
            .prop_map(|(username, email, points)| match points {
                Some(points) => json!({"username": username, "email": email, "points": points}),
                None => json!({"email": email, "username": username}),
            })
            .boxed(),
        "award" => (username(), points())
            .prop_map(|(username, points)| json!({"username": username, "points": points}))
            .boxed(),
        "list" => (option::of(username()), option::of(1..4_u16))
            .prop_map(|(after, limit)| {
                let mut payload = json!({});
                if let Some(after) = after {
                    payload["after"] = json!(after);
                }
                if let Some(limit) = limit {
                    payload["limit"] = json!(limit);
                }
                payload
            })
            .boxed(),
        _ => username().prop_map(|username| json!({"username": username})).boxed(),
    }
}

fn body_of(command: &'static str) -> impl Strategy<Value = Value> {
    let item = prop_oneof![
        9 => payload(command),
        1 => Just(json!({"username": "-", "email": "not valid", "limit": 0})),
    ];
    prop_oneof![
        5 => payload(command),
        1 => vec(item, 1..5).prop_map(Value::from),
    ]
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let commands = vec!["create", "create", "get", "award", "award", "promote", "list"];
    let one = select(commands).prop_flat_map(|command| {
        let id = option::of(select(vec!["1", "2", "3", "017f22e2-79b0-4cc3-98c4-dc0c0c07398f"]));
        let deadline = prop_oneof![8 => Just(None), 1 => Just(Some(NOW - 1)), 1 => Just(Some(NOW))];
        (body_of(command), id, deadline).prop_map(move |(body, id, deadline)| Ask {
            id: id.map(str::to_owned),
            deadline,
            ..ask(command, body)
        })
    });
    vec(one, 1..40)
}

/// Answers in batches of the given sizes, the rest in one; a size of 0 is a batch of nothing.
async fn answers(asks: &[Ask], cuts: &[usize]) -> (Vec<Reply>, Value) {
    let database = Database::new();
    // The clock stands still, as a reply may tell how much too late it was.
    let worker = database.open_with(Options { clock: || NOW, ..Options::default() }).await;
    let (mut replies, mut rest) = (Vec::new(), asks);
    for &cut in cuts {
        let (batch, left) = rest.split_at(cut.min(rest.len()));
        replies.extend(worker.answer(batch).await);
        rest = left;
    }
    replies.extend(worker.answer(rest).await);
    // What is stored, and not what a worker may remember.
    drop(worker);
    let everyone = database.open().await.answer_one(&ask("list", json!({}))).await;
    (replies, body(&everyone))
}

#[test]
fn cuts_into_batches_are_invisible() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() });
    let outcome = runner.run(&(asks(), vec(0..8_usize, 0..8)), |(asks, cuts)| {
        let mut model = Model::default();
        let expected: Vec<Answer> = asks.iter().map(|ask| model.answer(ask)).collect();
        let users = model.list(&json!({})).body;
        let singles = vec![1; asks.len()];
        let (one_by_one, stored_one_by_one) = runtime.block_on(answers(&asks, &singles));
        prop_assert_eq!(&one_by_one.iter().map(Answer::from).collect::<Vec<_>>(), &expected);
        prop_assert_eq!(&stored_one_by_one, &users);
        let (in_batches, stored_in_batches) = runtime.block_on(answers(&asks, &cuts));
        prop_assert_eq!(in_batches, one_by_one);
        prop_assert_eq!(stored_in_batches, stored_one_by_one);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
