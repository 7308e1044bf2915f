//! Right histories: clients, a world that carries out their commands one by one, and replies that get lost.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use serde_json::{Value, json};

use super::{
    check::end::{Depth, End, InboxRow, UserRow},
    history::{Action, Answer, History, Moment, Operation},
};

/// Users by name, written without a look at the checkers' model.
#[derive(Debug, Clone, Default)]
pub(super) struct World(BTreeMap<String, (String, i64, &'static str)>);

impl World {
    /// Carries out a command: status and body of its reply.
    pub(super) fn carry_out(&mut self, action: &Action) -> (u16, Vec<u8>) {
        let name = action.username();
        let mut status = 200;
        if let Action::Create { username, email, points } = action {
            if self.0.contains_key(username) {
                return problem(409, "user_exists");
            }
            status = 201;
            self.0.insert(username.clone(), (email.clone(), *points, "Bronze"));
        }
        let Some((_, points, rank)) = self.0.get_mut(name) else { return problem(404, "user_not_found") };
        if let Action::Award { points: more, .. } = action {
            if *points + more < 0 {
                return problem(409, "insufficient_points");
            }
            *points += more;
        }
        if let Action::Promote { .. } = action {
            *rank = ["Bronze", "Silver", "Gold"][usize::from(*points > 50) + usize::from(*points > 100)];
        }
        let (email, points, rank) = &self.0[name];
        (status, to_body(&user(name, email, *points, rank)))
    }
}

/// A user, as replies tell it.
pub(super) fn user(name: &str, email: &str, points: i64, status: &str) -> Value {
    json!({"username": name, "email": email, "points": points, "status": status})
}

pub(super) fn problem(status: u16, code: &str) -> (u16, Vec<u8>) {
    (status, to_body(&json!({"code": code, "status": status, "detail": "for a person"})))
}

pub(super) fn to_body(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Where the inbox has an operation.
pub(super) fn key(action: &Action, id: &str) -> (String, String) {
    (action.command().to_owned(), id.to_owned())
}

/// What a run is like; shares are of 100 operations.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) users: usize,
    pub(super) clients: usize,
    pub(super) operations: usize,
    /// Whose outcome nobody was told.
    pub(super) forgotten: u8,
    /// That were sent several times, or turned away.
    pub(super) bumpy: u8,
    /// Few different amounts of points, so that users come to the same state again and again.
    pub(super) coarse: bool,
}

/// What a client is at.
enum Stage {
    Idle,
    Sent(usize),
    Done(usize, (u16, Vec<u8>)),
}

/// A run under way.
struct Run {
    random: Rng,
    shape: Shape,
    world: World,
    now: Moment,
    history: History,
    end: End,
    /// Operations that nobody waits for any more.
    forgotten: Vec<usize>,
}

/// A right history and its end. Each command is carried out at one moment between its sending and its reply.
pub(super) fn simulate(seed: u64, shape: &Shape) -> (History, End) {
    let mut run = Run {
        random: Rng::with_seed(seed),
        shape: shape.clone(),
        world: World::default(),
        now: Moment::ZERO,
        history: History::default(),
        end: End::default(),
        forgotten: Vec::new(),
    };
    let mut clients: Vec<Stage> = (0..shape.clients).map(|_| Stage::Idle).collect();
    let mut busy = shape.clients;
    while busy > 0 {
        // Some things happen at the same moment.
        run.now += Duration::from_micros(run.random.u64(0..3));
        let client = run.random.usize(..clients.len());
        let is_over = run.history.operations.len() == shape.operations;
        let stage = std::mem::replace(&mut clients[client], Stage::Idle);
        clients[client] = match stage {
            Stage::Idle if is_over => {
                clients.swap_remove(client);
                busy -= 1;
                continue;
            }
            Stage::Idle => run.send(client),
            Stage::Sent(operation) => Stage::Done(operation, run.carry_out(operation)),
            Stage::Done(operation, reply) => run.answer(operation, reply),
        };
        if run.random.u8(..10) == 0 {
            run.carry_out_forgotten();
        }
    }
    run.finish()
}

impl Run {
    fn send(&mut self, client: usize) -> Stage {
        let operations = &mut self.history.operations;
        let index = operations.len();
        let action = action(&mut self.random, &self.shape, index);
        let id = format!("id-{index}");
        operations.push(Operation {
            client,
            id,
            action,
            began: self.now,
            sends: 1,
            confirmed: false,
            replies: Vec::new(),
        });
        if self.random.u8(..100) < self.shape.forgotten {
            self.forgotten.push(index);
            Stage::Idle
        } else if self.random.u8(..100) < self.shape.bumpy {
            let late = problem(504, "deadline_exceeded");
            self.reply(index, &late, false);
            if self.random.bool() {
                return Stage::Idle;
            }
            self.history.operations[index].sends += 1;
            Stage::Sent(index)
        } else {
            Stage::Sent(index)
        }
    }

    fn carry_out(&mut self, index: usize) -> (u16, Vec<u8>) {
        let operation = &mut self.history.operations[index];
        operation.confirmed = true;
        let (status, body) = self.world.carry_out(&operation.action);
        if !operation.action.is_read() {
            let key = key(&operation.action, &operation.id);
            let row = InboxRow { fingerprint: vec![0; 16], status, body: body.clone() };
            self.end.inbox.insert(key, row);
        }
        (status, body)
    }

    fn answer(&mut self, index: usize, reply: (u16, Vec<u8>)) -> Stage {
        self.reply(index, &reply, false);
        if self.random.u8(..100) < self.shape.bumpy {
            self.now += Duration::from_micros(1);
            self.history.operations[index].sends += 1;
            let is_read = self.history.operations[index].action.is_read();
            let again = if is_read { self.carry_out(index) } else { reply };
            self.reply(index, &again, !is_read);
        }
        Stage::Idle
    }

    fn reply(&mut self, index: usize, (status, body): &(u16, Vec<u8>), replayed: bool) {
        let operation = &mut self.history.operations[index];
        let kind = format!("users.{}.reply", operation.action.command());
        operation.replies.push(Answer { at: self.now, status: *status, kind, body: body.clone(), replayed });
    }

    fn carry_out_forgotten(&mut self) {
        if !self.forgotten.is_empty() {
            let index = self.forgotten.swap_remove(self.random.usize(..self.forgotten.len()));
            self.carry_out(index);
        }
    }

    /// What is still forgotten was never carried out.
    fn finish(mut self) -> (History, End) {
        for (name, (email, points, status)) in self.world.0 {
            self.end.users.insert(name, UserRow { email, points, status: status.to_owned() });
        }
        for command in ["create", "get", "award", "promote"] {
            self.end.queues.insert(format!("users.{command}"), Depth::default());
        }
        (self.history, self.end)
    }
}

fn action(random: &mut Rng, shape: &Shape, index: usize) -> Action {
    let username = format!("user-{}", random.usize(..shape.users));
    // Without users at the beginning, small histories would hold little but "not found".
    let creates = if index < 2 * shape.users { 6 } else { 1 };
    match random.u8(..10) {
        kind if kind < creates => {
            let email = format!("{}@example.com", index % 3);
            let points = if shape.coarse { 50 * random.i64(0..3) } else { random.i64(0..120) };
            Action::Create { username, email, points }
        }
        ..=3 => Action::Get { username },
        4..=7 => {
            let points = if shape.coarse { 50 } else { random.i64(1..60) };
            let points = if random.bool() { points } else { -points };
            Action::Award { username, points }
        }
        _ => Action::Promote { username },
    }
}
