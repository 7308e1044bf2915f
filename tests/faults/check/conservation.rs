//! No confirmed command vanishes.

use std::collections::{BTreeMap, HashSet};

use super::{
    End, Violation,
    history::{History, Operation},
    outcome::inbox_row,
};

/// `conservation`: every confirmed command is answered, or in the inbox, or a dead letter, or still in its queue.
/// `drained`: at the end the queues are empty.
///
/// Reads are left out: what was read for a reply that got lost leaves no trace. So does a refusal that is not
/// remembered; a workload with deadlines has to send until it is answered.
pub fn conservation(history: &History, end: &End) -> Vec<Violation> {
    let dead: HashSet<_> =
        end.dead.iter().map(|letter| (letter.id.as_str(), letter.command.as_deref())).collect();
    let is_somewhere = |operation: &Operation| {
        !operation.replies.is_empty()
            || inbox_row(end, operation).is_some()
            || dead.contains(&(operation.id.as_str(), Some(operation.action.command())))
    };
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for operation in &history.operations {
        if operation.confirmed && !operation.action.is_read() && !is_somewhere(operation) {
            missing.entry(operation.action.command()).or_default().push(&operation.id);
        }
    }
    let mut found = drained(end);
    for (command, ids) in missing {
        // Only numbers are known of a queue. What they cannot explain is lost.
        let waiting =
            end.queues.get(&format!("users.{command}")).map_or(0, |depth| depth.ready + depth.unacked);
        let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        if ids.len() > waiting {
            let text = match waiting {
                0 => String::new(),
                _ => format!(" ({waiting} messages are still in users.{command})"),
            };
            let lost = |id| {
                let text = format!("confirmed {command} with id {id} is nowhere{text}");
                Violation::new("conservation", text)
            };
            found.extend(ids.into_iter().map(lost));
        }
    }
    found
}

fn drained(end: &End) -> Vec<Violation> {
    let waiting = end.queues.iter().filter(|(_, depth)| depth.ready + depth.unacked > 0);
    let not_empty = waiting.map(|(queue, depth)| {
        let text = format!("{queue} still has {} messages ready and {} unacked", depth.ready, depth.unacked);
        Violation::new("drained", text)
    });
    not_empty.collect()
}
