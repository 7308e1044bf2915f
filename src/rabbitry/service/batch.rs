//! How a batch is run: a pure function over what a store loaded.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use super::{
    Code, Payload, Problem, Reply, Request, Service,
    inbox::{Inbox, StoredReply, check_age},
    rows::Rows,
    to_json,
};
use crate::{
    failpoints::{failpoint, mutant},
    limits::ARRAY_PROBLEMS_BYTES_MAX,
};

/// Runs requests one after another. Nothing is durable before the store saves `rows` and `inbox` and commits.
///
/// `now` is the worker's clock in milliseconds since the Unix epoch, read inside the transaction.
pub fn run<S: Service>(
    requests: &[Request<S>],
    rows: &mut Rows<S::Entity>,
    inbox: &mut Inbox,
    now: i64,
    retention: Duration,
) -> Vec<Reply> {
    rows.set_now(now);
    requests.iter().map(|request| run_one(request, rows, inbox, now, retention)).collect()
}

fn run_one<S: Service>(
    request: &Request<S>,
    rows: &mut Rows<S::Entity>,
    inbox: &mut Inbox,
    now: i64,
    retention: Duration,
) -> Reply {
    if mutant!(DeadlineBeforeInbox)
        && let Some(reply) = overdue(request, now)
    {
        return reply;
    }
    let key = request.inbox_key();
    // The inbox comes before the deadline: a command that was executed in time gets its reply however late it is
    // asked for.
    if let Some((command, id)) = key {
        match inbox.find(command, id, request.fingerprint) {
            Ok(None) => {}
            Ok(Some(row)) => {
                // A worker may have died between the commit and setting the message aside, so it is judged again.
                let unexecuted = unexecuted_items(&request.payload);
                return Reply { status: row.status, body: row.body.clone(), replayed: true, unexecuted };
            }
            Err(conflict) => return Reply::unexecuted(conflict),
        }
        if let Err(expired) = check_age(id, now, retention) {
            return Reply::unexecuted(expired);
        }
    }
    if let Some(reply) = overdue(request, now) {
        return reply;
    }
    let reply = apply_contained(request, rows);
    // `internal` is not remembered: nothing happened, and once the fault is mended the same id may be sent again.
    if let Some((command, id)) = key.filter(|_| reply.status != Code::INTERNAL.status) {
        let row =
            StoredReply { fingerprint: request.fingerprint, status: reply.status, body: reply.body.clone() };
        inbox.remember(command, id, row);
    }
    reply
}

/// The reply to a command whose deadline has passed.
fn overdue<S>(request: &Request<S>, now: i64) -> Option<Reply> {
    let deadline = request.deadline.filter(|deadline| *deadline < now)?;
    let detail =
        format!("the deadline passed {} ms ago, the command was not executed", now.saturating_sub(deadline));
    Some(Reply::unexecuted(Problem::new(Code::DEADLINE_EXCEEDED, detail)))
}

/// Applies a payload so that a panic leaves no trace but its reply.
fn apply_contained<S: Service>(request: &Request<S>, rows: &mut Rows<S::Entity>) -> Reply {
    let mark = rows.mark();
    catch_unwind(AssertUnwindSafe(|| {
        let reply = apply(&request.payload, rows);
        failpoint!(MidBatch, [request]);
        reply
    }))
    .unwrap_or_else(|_| {
        rows.undo_after(mark);
        internal("the command panicked; nothing of it took effect, and the message was set aside")
    })
}

fn apply<S: Service>(payload: &Payload<S>, rows: &mut Rows<S::Entity>) -> Reply {
    match payload {
        Payload::One(command) => match command.apply(rows) {
            Ok((status, body)) => Reply { status, body, replayed: false, unexecuted: None },
            Err(refusal) => Reply::refusal(&refusal),
        },
        Payload::Many(items) => {
            let unexecuted = unexecuted_items(payload);
            Reply { status: 200, body: apply_many(items, rows), replayed: false, unexecuted }
        }
    }
}

/// The items are refused one by one; a fault in one of them (a panic) takes back the whole array, so that what was
/// set aside can be sent again.
fn apply_many<S: Service>(items: &[Result<S, Problem>], rows: &mut Rows<S::Entity>) -> Vec<u8> {
    let mut body = vec![b'['];
    let mut room = ARRAY_PROBLEMS_BYTES_MAX;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        match item.as_ref().map_err(Clone::clone).and_then(|command| command.apply(rows)) {
            Ok((_, result)) => body.extend(result),
            Err(problem) => body.extend(told_within(&mut room, &problem)),
        }
    }
    body.push(b']');
    body
}

/// A problem in full, or in short once there is no room: it may quote what the sender wrote several times.
fn told_within(room: &mut usize, problem: &Problem) -> Vec<u8> {
    let full = to_json(problem);
    match room.checked_sub(full.len()) {
        Some(left) => {
            *room = left;
            full
        }
        None => {
            *room = 0;
            to_json(&Problem::new(
                problem.code,
                "send this item in a smaller array to be told what is wrong with it",
            ))
        }
    }
}

/// What of an array is not valid, and so is never executed.
fn unexecuted_items<S>(payload: &Payload<S>) -> Option<Problem> {
    let Payload::Many(items) = payload else { return None };
    let mut invalid =
        items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_ref().err()?)));
    let (index, problem) = invalid.next()?;
    let detail = format!(
        "{} of {} items were not executed; the first is item {index}: {}",
        1 + invalid.count(),
        items.len(),
        problem.detail
    );
    Some(Problem { detail, ..problem.clone() })
}

/// The reply to a command that failed for a reason of ours.
pub fn internal(detail: &str) -> Reply {
    Reply::unexecuted(Problem::new(Code::INTERNAL, detail))
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;
    use crate::service::command::Entry;
    use crate::{
        limits::{ARRAY_BYTES_MAX, ARRAY_ITEMS_MAX},
        service::{
            Fingerprint, Spec,
            entity::{Entity, Table},
            inbox::RETENTION,
            rows::Needs,
        },
    };

    const NOW: i64 = 1_000_000;

    /// A list of numbers; each success replies with the list so far.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Numbers {
        name: String,
        all: String,
    }

    impl Entity for Numbers {
        type Key = String;
        const TABLE: Table = Table { name: "numbers", sqlite: &[], postgres: &[] };
        crate::columns!(name, all);
    }

    #[derive(Debug, Clone, Copy, Serialize)]
    enum Do {
        Push(u32),
        Refuse,
        Panic,
        PushAndPanic(u32),
    }

    fn pushed(rows: &Rows<Numbers>) -> Vec<u32> {
        let all = rows.get(&String::new()).map_or("[]", |numbers| &numbers.all);
        serde_json::from_str(all).unwrap()
    }

    fn push(rows: &mut Rows<Numbers>, number: u32) {
        let all = serde_json::to_string(&[pushed(rows), vec![number]].concat()).unwrap();
        rows.put(Numbers { name: String::new(), all });
    }

    impl Service for Do {
        type Entity = Numbers;
        const NAME: &'static str = "numbers";
        const COMMANDS: &'static [Spec] = &[Spec::write("do").created()];

        // No test of this module reads a payload.
        const ENTRIES: &'static [Entry<Self>] = &[];

        fn needs(&self) -> Needs<'_, Numbers> {
            Needs::None
        }

        fn apply(&self, rows: &mut Rows<Numbers>) -> Result<(u16, Vec<u8>), Problem> {
            match *self {
                Do::Push(number) => push(rows, number),
                Do::Refuse => return Err(Problem::new(Code::fatal("refused", 409, "Refused"), "no")),
                Do::Panic => panic!("planted"),
                Do::PushAndPanic(number) => {
                    push(rows, number);
                    panic!("planted")
                }
            }
            Ok((201, to_json(&pushed(rows))))
        }
    }

    fn request(id: Option<&str>, payload: Payload<Do>) -> Request<Do> {
        let fingerprint = match &payload {
            Payload::One(content) => Fingerprint::of("do", content),
            Payload::Many(items) => {
                Fingerprint::of_many("do", items.iter().map(|item| (item.as_ref().ok(), "")))
            }
        };
        let command = Spec::write("do");
        Request { command, id: id.map(str::to_owned), deadline: None, fingerprint, payload }
    }

    fn one(id: Option<&str>, content: Do) -> Request<Do> {
        request(id, Payload::One(content))
    }

    #[derive(Default)]
    struct Bench {
        rows: Rows<Numbers>,
        inbox: Inbox,
    }

    impl Bench {
        fn run(&mut self, requests: &[Request<Do>]) -> Vec<Reply> {
            run(requests, &mut self.rows, &mut self.inbox, NOW, RETENTION)
        }

        fn remembered(&self) -> Vec<&str> {
            self.inbox.fresh().map(|((_, id), _)| id.as_str()).collect()
        }
    }

    fn statuses(replies: &[Reply]) -> Vec<u16> {
        replies.iter().map(|reply| reply.status).collect()
    }

    #[test]
    fn requests_act_one_after_another() {
        let replies =
            Bench::default().run(&[one(None, Do::Push(1)), one(None, Do::Refuse), one(None, Do::Push(2))]);
        assert_eq!(statuses(&replies), [201, 409, 201]);
        assert_eq!(replies[2].body, b"[1,2]");
        assert!(replies.iter().all(|reply| reply.unexecuted.is_none()), "a refusal counts as executed");
    }

    #[test]
    fn a_repetition_is_answered_from_the_inbox() {
        let mut bench = Bench::default();
        let requests = [
            one(Some("a"), Do::Push(1)),
            one(Some("r"), Do::Refuse),
            one(Some("a"), Do::Push(1)),
            one(Some("r"), Do::Refuse),
            one(Some("a"), Do::Push(2)),
        ];
        let replies = bench.run(&requests);
        assert_eq!(statuses(&replies), [201, 409, 201, 409, 422]);
        assert_eq!(
            replies.iter().map(|reply| reply.replayed).collect::<Vec<_>>(),
            [false, false, true, true, false]
        );
        assert_eq!((&replies[2].body, &replies[3].body), (&replies[0].body, &replies[1].body));
        assert_eq!(replies[4].unexecuted.as_ref().unwrap().code, Code::IDEMPOTENCY_CONFLICT);
        assert_eq!(pushed(&bench.rows), [1]);
        assert_eq!(bench.remembered(), ["a", "r"]);
    }

    #[test]
    fn a_read_is_neither_remembered_nor_answered_from_the_inbox() {
        let mut bench = Bench::default();
        let read = || Request { command: Spec::read("do"), ..one(Some("a"), Do::Push(1)) };
        let replies = bench.run(&[read(), read()]);
        assert!(replies.iter().all(|reply| !reply.replayed));
        assert!(bench.remembered().is_empty());
    }

    #[test]
    fn the_inbox_comes_before_the_deadline_and_the_deadline_before_the_effect() {
        let mut bench = Bench::default();
        let at = |deadline, id| Request { deadline: Some(deadline), ..one(Some(id), Do::Push(1)) };
        let replies = bench.run(&[at(NOW, "a"), at(NOW - 1, "a"), at(NOW - 1, "b")]);
        assert_eq!(statuses(&replies), [201, 201, 504]);
        assert!(replies[1].replayed);
        assert_eq!(replies[2].unexecuted.as_ref().unwrap().code, Code::DEADLINE_EXCEEDED);
        assert_eq!(bench.remembered(), ["a"]);
    }

    #[test]
    fn a_panic_leaves_no_trace_but_its_reply() {
        let mut bench = Bench::default();
        let requests = [
            one(None, Do::Push(1)),
            one(Some("p"), Do::Panic),
            one(Some("q"), Do::PushAndPanic(2)),
            one(Some("a"), Do::Push(3)),
        ];
        let replies = bench.run(&requests);
        assert_eq!(statuses(&replies), [201, 500, 500, 201]);
        assert!(replies[1..3].iter().all(|reply| reply.unexecuted.as_ref().unwrap().code == Code::INTERNAL));
        assert_eq!(pushed(&bench.rows), [1, 3]);
        assert_eq!(bench.remembered(), ["a"], "once the fault is mended the same id may be sent again");
    }

    #[test]
    fn a_panic_takes_back_its_whole_array() {
        let mut bench = Bench::default();
        let array = |items: &[Do]| Payload::Many(items.iter().copied().map(Ok).collect());
        let requests = [
            request(Some("a"), array(&[Do::Push(1), Do::Refuse, Do::Push(2)])),
            request(Some("b"), array(&[Do::Push(3), Do::PushAndPanic(4), Do::Push(5)])),
            request(Some("c"), array(&[Do::Push(6)])),
        ];
        let replies = bench.run(&requests);
        assert_eq!(statuses(&replies), [200, 500, 200]);
        let items: serde_json::Value = serde_json::from_slice(&replies[0].body).unwrap();
        assert_eq!((&items[0], &items[2]), (&json!([1]), &json!([1, 2])));
        assert_eq!(items[1]["code"], "refused");
        assert_eq!(pushed(&bench.rows), [1, 2, 6]);
        assert_eq!(bench.remembered(), ["a", "c"]);
    }

    #[test]
    fn the_largest_array_of_problems_is_answered_within_bounds() {
        // Each character is two in JSON, and it is told three times.
        let quoted = "\"".repeat(ARRAY_BYTES_MAX / ARRAY_ITEMS_MAX / 2);
        let invalid = || Err(Problem::invalid_field(quoted.as_str(), format!("unknown field {quoted}")));
        let all = (0..ARRAY_ITEMS_MAX).map(|_| invalid()).collect();
        let reply = Bench::default().run(&[request(None, Payload::Many(all))]).remove(0);
        assert!(reply.body.len() < ARRAY_PROBLEMS_BYTES_MAX + ARRAY_ITEMS_MAX * 300, "{}", reply.body.len());
        let told: Vec<serde_json::Value> = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(told.len(), ARRAY_ITEMS_MAX);
        assert!(told.iter().all(|problem| problem["code"] == "invalid"));
        assert!(told[0]["errors"][0]["field"].as_str().unwrap().starts_with("\"\""));
        assert!(told[ARRAY_ITEMS_MAX - 1].get("errors").is_none());
    }

    #[test]
    fn a_deadline_however_long_ago_is_only_a_deadline() {
        let late = Request { deadline: Some(i64::MIN), ..one(Some("a"), Do::Push(1)) };
        assert_eq!(statuses(&Bench::default().run(&[late])), [504]);
    }

    #[test]
    fn invalid_items_are_reported_as_unexecuted_also_when_the_reply_is_repeated() {
        let mut bench = Bench::default();
        let invalid = || Err(Problem::invalid_field("item", "odd"));
        let array = || request(Some("a"), Payload::Many(vec![Ok(Do::Push(1)), invalid(), invalid()]));
        let replies = bench.run(&[array(), array()]);
        assert_eq!(statuses(&replies), [200, 200]);
        assert_eq!(replies.iter().map(|reply| reply.replayed).collect::<Vec<_>>(), [false, true]);
        for reply in &replies {
            let unexecuted = reply.unexecuted.as_ref().unwrap();
            assert_eq!(unexecuted.code, Code::INVALID);
            assert!(unexecuted.detail.starts_with("2 of 3 items were not executed; the first is item 1"));
        }
        assert_eq!(pushed(&bench.rows), [1]);
    }
}
