//! The checkers over a real store: what workers do that race with each other is right, and is read as it is stored.

use std::{path::Path, sync::Arc, time::Instant};

use futures::future::join_all;
use rabbitry::service::Reply;
use serde_json::json;
use uuid::Uuid;

use super::{
    check::{self, End},
    history::{Action, Answer, History, Operation},
    world::{Shape, simulate},
};
use crate::support::{
    ask::{Ask, ask},
    database::{Database, Worker},
};

/// The command, as a client writes it.
fn to_ask(action: &Action) -> Ask {
    let username = action.username();
    let payload = match action {
        Action::Create { email, points, .. } => {
            json!({"username": username, "email": email, "points": points})
        }
        Action::Award { points, .. } => json!({"username": username, "points": points}),
        Action::Get { .. } | Action::Promote { .. } => json!({"username": username}),
    };
    ask(action.command(), payload)
}

/// One client: its commands one after another, each asked of two workers at once if it was bumpy in the simulation,
/// and not waited for if it was forgotten.
async fn client(workers: Arc<[Worker; 2]>, mut operations: Vec<Operation>, start: Instant) -> Vec<Operation> {
    for (number, operation) in operations.iter_mut().enumerate() {
        (operation.began, operation.confirmed) = (start.elapsed(), false);
        let question = to_ask(&operation.action).id(&operation.id);
        if operation.replies.is_empty() {
            let mut answered = Box::pin(workers[0].answer_one(&question));
            // Either its reply gets lost, or it is dropped on its way, so that it may be carried out or not.
            if number % 2 == 0 {
                answered.await;
            } else {
                let _ = futures::poll!(&mut answered);
            }
            continue;
        }
        let sends = operation.replies.len().min(2);
        let replies = (0..sends).map(|nth| workers[(number + nth) % 2].answer_one(&question));
        let timed = replies.map(|reply| async { (reply.await, start.elapsed()) });
        let mut replies = join_all(timed).await;
        replies.sort_by_key(|(_, at)| *at);
        let kind = format!("users.{}.reply", operation.action.command());
        let answer = |(Reply { status, body, replayed, .. }, at)| Answer {
            at,
            status,
            kind: kind.clone(),
            body,
            replayed,
        };
        operation.replies = replies.into_iter().map(answer).collect();
        (operation.sends, operation.confirmed) = (sends as u32, true);
    }
    operations
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_racing_workers_do_passes_every_check() {
    let shape = Shape { users: 3, clients: 6, operations: 600, forgotten: 8, bumpy: 15, coarse: true };
    let (simulated, _) = simulate(fastrand::u64(..), &shape);
    let database = Database::sqlite();
    let workers = Arc::new([database.open().await, database.open().await]);
    let start = Instant::now();
    let mut by_client = vec![Vec::new(); shape.clients];
    for (number, mut operation) in simulated.operations.into_iter().enumerate() {
        // Both forms in which ids are stored.
        if number % 2 == 0 {
            operation.id = Uuid::now_v7().to_string();
        }
        by_client[operation.client].push(operation);
    }
    let clients = by_client.into_iter().map(|operations| client(Arc::clone(&workers), operations, start));
    let tasks = join_all(clients.map(tokio::spawn)).await;
    let operations = tasks.into_iter().flat_map(Result::unwrap).collect();
    let history = History { operations, strays: Vec::new() };
    // Behind everything that was dropped but is still under way.
    workers[0].answer_one(&to_ask(&Action::Promote { username: "nobody".to_owned() })).await;
    drop(workers);

    let path = database.url.strip_prefix("sqlite:").unwrap();
    let end = End::from_sqlite(Path::new(path)).unwrap();
    assert!(
        end.users.len() > 1 && end.inbox.len() > 200,
        "{} users, {} rows",
        end.users.len(),
        end.inbox.len()
    );
    assert_eq!(check::all(&history, &end), []);
    let without_inbox = End { inbox: Default::default(), ..end };
    assert!(check::all(&history, &without_inbox).iter().any(|violation| violation.check == "inbox"));
}
