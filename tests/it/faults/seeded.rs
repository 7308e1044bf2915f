//! Small stories with one mistake each: the check for it tells it, and no other that it does not concern.

use std::{collections::BTreeSet, time::Duration};

use super::{
    ann::{award, create, get, promote},
    check::{
        self, Violation,
        end::{DeadLetter, Depth, End, InboxRow, UserRow},
    },
    history::{Action, Answer, History, Operation},
    world::{World, key, problem, to_body, user},
};

/// A history of single steps, one a millisecond.
#[derive(Default)]
struct Story {
    world: World,
    history: History,
    end: End,
}

fn ms(milliseconds: usize) -> Duration {
    Duration::from_millis(milliseconds as u64)
}

impl Story {
    /// Ann with 100 points.
    fn of_ann() -> Self {
        let mut story = Self::default();
        story.right("c", create(100));
        story
    }

    /// A command that is carried out and answered.
    fn right(&mut self, id: &str, action: Action) -> &mut Operation {
        let (status, body) = self.world.carry_out(&action);
        if !action.is_read() {
            let row = InboxRow { fingerprint: vec![7; 16], status, body: body.clone() };
            self.end.inbox.insert(key(&action, id), row);
        }
        let now = self.history.operations.len() * 10;
        let operation = self.sent(id, action);
        let kind = format!("users.{}.reply", operation.action.command());
        operation.replies.push(Answer { at: ms(now + 5), status, kind, body, replayed: false });
        operation
    }

    /// A command that is sent, and no more.
    fn sent(&mut self, id: &str, action: Action) -> &mut Operation {
        let operations = &mut self.history.operations;
        let began = ms(operations.len() * 10);
        let (id, replies) = (id.to_owned(), Vec::new());
        operations.push(Operation { client: 1, id, action, began, sends: 1, confirmed: true, replies });
        operations.last_mut().unwrap()
    }

    /// Ann, as the store has her.
    fn stored(&mut self, points: i64, status: &str) -> &mut Self {
        let row = UserRow { email: "ann@example.com".to_owned(), points, status: status.to_owned() };
        self.end.users.insert("ann".to_owned(), row);
        self
    }

    fn violations(&self) -> Vec<Violation> {
        check::all(&self.history, &self.end)
    }

    /// Asserts which checks complain, and that one of them says this.
    fn is_told(&self, checks: &[&str], text: &str) {
        let violations = self.violations();
        let told: BTreeSet<_> = violations.iter().map(|violation| violation.check).collect();
        assert_eq!(told, checks.iter().copied().collect(), "{violations:#?}");
        assert!(violations.iter().any(|violation| violation.detail.contains(text)), "{violations:#?}");
    }
}

/// Ann's user, as replies tell it.
fn ann(points: i64, status: &str) -> Vec<u8> {
    to_body(&user("ann", "ann@example.com", points, status))
}

#[test]
fn a_right_story_passes() {
    let mut story = Story::of_ann();
    story.right("a", award(20));
    story.right("p", promote());
    story.right("g", get());
    story.right("n", award(-500));
    assert_eq!(story.stored(120, "Gold").violations(), []);
}

#[test]
fn a_stale_read_is_not_linearizable() {
    let mut story = Story::of_ann();
    story.right("a", award(20));
    story.right("g", get()).replies[0].body = ann(100, "Bronze");
    story.stored(120, "Bronze").is_told(
        &["linearizable"],
        "get ann, id g: 200 ann ann@example.com 100 Bronze, would be 200 with ann@example.com 120 Bronze",
    );
}

#[test]
fn an_update_that_is_lost_is_told_by_the_order_and_by_the_balance() {
    let mut story = Story::of_ann();
    story.right("a", award(20));
    let second = story.right("b", award(30));
    second.replies[0].body = ann(130, "Bronze");
    story.end.inbox.get_mut(&key(&award(0), "b")).unwrap().body = ann(130, "Bronze");
    story.stored(130, "Bronze").is_told(&["linearizable", "lost"], "not at all: a");
}

#[test]
fn an_award_that_counts_twice_is_told_with_its_id() {
    let mut story = Story::of_ann();
    story.right("a", award(20));
    story.right("b", award(-7));
    story.stored(133, "Bronze").is_told(&["doubled", "linearizable"], "twice: a");
    story.stored(106, "Bronze").is_told(&["doubled", "linearizable"], "twice: b");
    story.stored(120, "Bronze").is_told(&["lost", "linearizable"], "not at all: b");
}

#[test]
fn an_award_that_was_turned_away_has_no_effect() {
    let mut story = Story::of_ann();
    let (status, body) = problem(504, "deadline_exceeded");
    let kind = "users.award.reply".to_owned();
    let late = Answer { at: ms(19), status, kind, body, replayed: false };
    story.sent("late", award(20)).replies.push(late);
    assert_eq!(story.stored(100, "Bronze").violations(), []);
    story.stored(120, "Bronze").is_told(&["doubled", "linearizable"], "although it did not succeed: late");
}

#[test]
fn a_user_that_is_created_twice_is_told_with_both_ids() {
    let mut story = Story::of_ann();
    let again = story.right("d", create(100));
    (again.replies[0].status, again.replies[0].body) = (201, ann(100, "Bronze"));
    let row = story.end.inbox.get_mut(&key(&create(0), "d")).unwrap();
    (row.status, row.body) = (201, ann(100, "Bronze"));
    story.stored(100, "Bronze").is_told(&["doubled", "linearizable"], "with ids c, d");
}

#[test]
fn a_user_that_vanished_or_came_from_nowhere_is_told() {
    Story::of_ann().is_told(&["lost", "linearizable"], "user ann was created with id c and does not exist");
    let mut story = Story::default();
    story.stored(1, "Bronze").is_told(&["doubled"], "user ann exists, though no create succeeded");
}

#[test]
fn a_reply_that_differs_when_repeated_is_told() {
    let mut story = Story::of_ann();
    let operation = story.right("a", award(20));
    let other =
        Answer { at: ms(17), body: ann(140, "Bronze"), replayed: true, ..operation.replies[0].clone() };
    operation.replies.push(other);
    story.stored(120, "Bronze").is_told(&["same_replies"], "award ann +20 with id a: answered with 200 ann");
    let operation = story.history.operations.last_mut().unwrap();
    operation.replies[1] = Answer { at: ms(18), replayed: true, ..operation.replies[0].clone() };
    assert_eq!(story.violations(), []);
    story.history.operations.last_mut().unwrap().replies[1].replayed = false;
    story.is_told(&["doubled"], "2 replies that are no repetition");
}

#[test]
fn a_reply_of_another_kind_is_told() {
    let mut story = Story::of_ann();
    story.right("g", get()).replies[0].kind = "users.create.reply".to_owned();
    story.stored(100, "Bronze").is_told(&["same_replies"], "is of kind \"users.create.reply\"");
}

#[test]
fn a_confirmed_command_that_is_nowhere_is_told() {
    let mut story = Story::of_ann();
    story.sent("a", award(20));
    story.stored(100, "Bronze").is_told(&["conservation"], "confirmed award with id a is nowhere");

    let dead = |command: &str| DeadLetter {
        id: "a".to_owned(),
        command: Some(command.to_owned()),
        reason: Some("internal".to_owned()),
    };
    story.end.dead = vec![dead("promote")];
    story.is_told(&["conservation"], "id a");
    story.end.dead = vec![dead("award")];
    assert_eq!(story.violations(), []);

    story.end.dead.clear();
    story.end.queues.insert("users.award".to_owned(), Depth { ready: 1, unacked: 0 });
    story.is_told(&["drained"], "users.award still has 1 messages ready");
    story.sent("b", award(20));
    story.is_told(&["drained", "conservation"], "(1 messages are still in users.award)");

    story.end.queues.clear();
    story.history.operations.iter_mut().for_each(|operation| operation.confirmed = false);
    assert_eq!(story.violations(), []);
}

#[test]
fn a_stray_reply_is_told() {
    let mut story = Story::of_ann();
    story.history.strays.push("nobody".to_owned());
    story.stored(100, "Bronze").is_told(&["strays"], "correlation id nobody");
}

#[test]
fn an_answer_that_the_inbox_does_not_hold_is_told() {
    let mut story = Story::of_ann();
    story.right("a", award(20));
    story.right("r", award(-500));
    story.stored(120, "Bronze");
    assert_eq!(story.violations(), []);
    for id in ["a", "r"] {
        let row = story.end.inbox.remove(&key(&award(0), id)).unwrap();
        story.is_told(&["inbox"], &format!("with id {id} was answered"));
        let other = InboxRow { body: ann(1, "Bronze"), ..row.clone() };
        story.end.inbox.insert(key(&award(0), id), other);
        story.is_told(&["inbox"], "but the inbox holds");
        story.end.inbox.insert(key(&award(0), id), row);
    }
}

#[test]
fn the_inbox_has_to_hold_what_is_remembered_and_no_more() {
    let mut story = Story::default();
    story.right("n", promote());
    assert_eq!(story.violations(), []);
    story.end.inbox.clear();
    story.is_told(
        &["inbox"],
        "promote ann with id n was answered 404 user_not_found, but is not in the inbox",
    );
    let (status, body) = problem(409, "id_expired");
    let answer = &mut story.history.operations[0].replies[0];
    (answer.status, answer.body) = (status, body);
    // No worker should say so of a fresh id, but it needs no row.
    story.is_told(&["linearizable"], "409 id_expired, would be 404 user_not_found");
}

#[test]
fn what_nobody_was_told_counts_by_the_inbox() {
    let mut story = Story::of_ann();
    story.right("a", award(20)).replies.clear();
    assert_eq!(story.stored(120, "Bronze").violations(), []);
    story.stored(100, "Bronze").is_told(&["lost", "linearizable"], "not at all: a");
    let row = story.end.inbox.remove(&key(&award(0), "a")).unwrap();
    story.end.dead.push(DeadLetter { id: "a".to_owned(), command: Some("award".to_owned()), reason: None });
    assert_eq!(story.violations(), []);
    story.stored(120, "Bronze").is_told(&["doubled", "linearizable"], "although it did not succeed: a");
    story.end.inbox.insert(key(&award(0), "a"), InboxRow { body: ann(121, "Bronze"), ..row });
    story.is_told(&["linearizable"], "121 Bronze, would be 200 with ann@example.com 120 Bronze");
}

#[test]
fn a_history_that_cannot_be_is_told_first() {
    let mut story = Story::of_ann();
    story.right("c", create(1));
    story.is_told(&["recording"], "create ann ann@example.com 1 with id c stands in the history twice");
    story.history.operations.pop();
    story.history.operations[0].replies[0].at = Duration::ZERO;
    story.history.operations[0].began = ms(1);
    story.is_told(&["recording"], "answered before it was sent");
}

#[test]
fn of_many_violations_the_first_are_told_and_the_rest_is_counted() {
    let mut story = Story::default();
    story.history.strays = (0..20).map(|number| number.to_string()).collect();
    let violations = story.violations();
    assert_eq!(violations.len(), 9);
    assert_eq!(violations[8].detail, "and 12 more");
}
