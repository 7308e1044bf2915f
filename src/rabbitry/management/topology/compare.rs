//! What is wanted against what is there. Pure.

use serde::Serialize;
use serde_json::{Map, Value};

use super::definitions::{Binding, Definitions, Exchange, Policy, Queue};

/// One thing that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// exchange, queue, binding or policy.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it is like, in a word.
    pub description: String,
    /// Whether it is there at all.
    pub found: bool,
    /// What is not as it is wanted.
    pub differences: Vec<Difference>,
}

/// Something that is not as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What about it.
    pub what: String,
    /// As it is wanted.
    pub expected: String,
    /// As it is.
    pub found: String,
    /// What to do.
    pub advice: String,
}

const APPLY: &str = "`rabbitry topology apply` creates it";

/// Compares every wanted object with what the broker has, in the order of the definitions.
pub fn compare(wanted: &Definitions, there: &Definitions) -> Vec<Object> {
    let exchanges = wanted.exchanges.iter().map(|exchange| {
        let found = there.exchanges.iter().find(|other| other.name == exchange.name);
        object("exchange", &exchange.name, &exchange.kind, found, |found| exchange_differs(exchange, found))
    });
    let queues = wanted.queues.iter().map(|queue| {
        let found = there.queues.iter().find(|other| other.name == queue.name);
        object("queue", &queue.name, queue.kind(), found, |found| queue_differs(wanted, queue, found, there))
    });
    let bindings = wanted.bindings.iter().map(|binding| {
        let same = |other: &&Binding| {
            (&other.source, &other.destination, &other.destination_type, &other.routing_key, &other.arguments)
                == (
                    &binding.source,
                    &binding.destination,
                    &binding.destination_type,
                    &binding.routing_key,
                    &binding.arguments,
                )
        };
        let name = format!("{} → {}", binding.source, binding.destination);
        let key = format!("key {:?}", binding.routing_key);
        object("binding", &name, &key, there.bindings.iter().find(same), |_| Vec::new())
    });
    let policies = wanted.policies.iter().map(|policy| {
        let found = there.policies.iter().find(|other| other.name == policy.name);
        object("policy", &policy.name, &policy.pattern, found, |found| policy_differs(policy, found))
    });
    exchanges.chain(queues).chain(bindings).chain(policies).collect()
}

fn object<T>(
    kind: &'static str,
    name: &str,
    description: &str,
    found: Option<&T>,
    differences: impl FnOnce(&T) -> Vec<Difference>,
) -> Object {
    let missing = || vec![Difference::new("existence", "wanted", "missing", APPLY)];
    Object {
        kind,
        name: name.to_owned(),
        description: description.to_owned(),
        found: found.is_some(),
        differences: found.map_or_else(missing, differences),
    }
}

impl Difference {
    fn new(what: &str, expected: &str, found: &str, advice: &str) -> Self {
        Self {
            what: what.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
            advice: advice.to_owned(),
        }
    }
}

/// Gathers what differs, with one advice for all of it.
struct Differences<'a> {
    advice: &'a str,
    found: Vec<Difference>,
}

impl Differences<'_> {
    fn check<T: PartialEq + ToString>(&mut self, what: &str, expected: &T, found: &T) {
        if expected != found {
            self.found.push(Difference::new(what, &expected.to_string(), &found.to_string(), self.advice));
        }
    }

    /// Both ways: a setting too many is a difference as well.
    fn check_maps(&mut self, expected: &Map<String, Value>, found: &Map<String, Value>) {
        let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
        let shown = |value: Option<&Value>| value.map_or_else(|| "not set".to_owned(), Value::to_string);
        for key in keys {
            self.check(key, &shown(expected.get(key)), &shown(found.get(key)));
        }
    }
}

fn exchange_differs(wanted: &Exchange, found: &Exchange) -> Vec<Difference> {
    let advice =
        "an exchange cannot be changed: delete it (management UI, Exchanges), and apply the topology again";
    let mut differences = Differences { advice, found: Vec::new() };
    differences.check("type", &wanted.kind, &found.kind);
    differences.check("durable", &wanted.durable, &found.durable);
    differences.check("auto_delete", &wanted.auto_delete, &found.auto_delete);
    differences.check("internal", &wanted.internal, &found.internal);
    differences.check_maps(&wanted.arguments, &found.arguments);
    differences.found
}

fn queue_differs(
    definitions: &Definitions,
    wanted: &Queue,
    found: &Queue,
    there: &Definitions,
) -> Vec<Difference> {
    let advice = "a queue cannot be changed: when it is empty, or its messages are moved (shovel), delete it \
                  (management UI, Queues), and apply the topology again";
    let mut differences = Differences { advice, found: Vec::new() };
    differences.check("type", &wanted.kind().to_owned(), &found.kind().to_owned());
    differences.check("durable", &wanted.durable, &found.durable);
    differences.check("auto_delete", &wanted.auto_delete, &found.auto_delete);
    let but_the_type = |arguments: &Map<String, Value>| {
        let others = arguments.iter().filter(|(name, _)| *name != "x-queue-type");
        others.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()
    };
    differences.check_maps(&but_the_type(&wanted.arguments), &but_the_type(&found.arguments));
    // A broker does not put a policy in force that the queue's type does not support.
    if wanted.kind() == found.kind() {
        differences.found.extend(policy_in_force_differs(definitions, wanted, found, there));
    }
    differences.found
}

/// A queue has one policy at a time, so another one of higher priority takes all settings of ours away.
fn policy_in_force_differs(
    definitions: &Definitions,
    wanted: &Queue,
    found: &Queue,
    there: &Definitions,
) -> Option<Difference> {
    let expected = definitions.policy_of(wanted)?;
    let in_force = found.policy.as_deref().filter(|name| !name.is_empty());
    if in_force == Some(expected.name.as_str()) {
        return None;
    }
    let priority = |name: &str| there.policies.iter().find(|policy| policy.name == name).map(|p| p.priority);
    let (found, advice) = match in_force {
        None => ("none".to_owned(), APPLY.to_owned()),
        Some(name) => {
            let priority = priority(name).map_or_else(String::new, |p| format!(" (priority {p})"));
            let advice = format!(
                "delete policy {name:?}, narrow its pattern, or lower its priority below {}: a queue has only one policy at a time",
                expected.priority
            );
            (format!("{name}{priority}"), advice)
        }
    };
    let expected = format!("{} (priority {})", expected.name, expected.priority);
    Some(Difference::new("policy in force", &expected, &found, &advice))
}

fn policy_differs(wanted: &Policy, found: &Policy) -> Vec<Difference> {
    let advice = "`rabbitry topology apply` sets it";
    let mut differences = Differences { advice, found: Vec::new() };
    differences.check("pattern", &wanted.pattern, &found.pattern);
    differences.check("apply-to", &wanted.apply_to, &found.apply_to);
    differences.check("priority", &wanted.priority, &found.priority);
    differences.check_maps(&wanted.definition, &found.definition);
    differences.found
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &str = r#"{
        "exchanges": [{"name": "x", "vhost": "/", "type": "direct", "durable": true}],
        "queues": [{"name": "q", "vhost": "/", "durable": true, "arguments": {"x-queue-type": "quorum"}}],
        "bindings": [{"source": "x", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "k"}],
        "policies": [{"name": "p", "vhost": "/", "pattern": "^q$", "apply-to": "queues", "priority": 10,
                      "definition": {"delivery-limit": 20, "max-length": 5}}]}"#;

    /// As RabbitMQ 3.10.8 answers, with what 4.x adds.
    const THERE: &str = r#"{
        "exchanges": [{"arguments": {}, "auto_delete": false, "durable": true, "internal": false, "name": "x",
            "type": "direct", "user_who_performed_action": "guest", "vhost": "/"}],
        "queues": [{"arguments": {"x-queue-type": "quorum"}, "auto_delete": false, "durable": true, "exclusive": null,
            "leader": "rabbit@h", "members": ["rabbit@h"], "messages": 0, "name": "q", "policy": "p", "internal": false,
            "state": "running", "storage_version": 2, "type": "quorum", "vhost": "/"}],
        "bindings": [
            {"source": "", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "q", "arguments": {}, "properties_key": "q"},
            {"source": "x", "vhost": "/", "destination": "q", "destination_type": "queue", "routing_key": "k", "arguments": {}, "properties_key": "k"}],
        "policies": [{"vhost": "/", "name": "p", "pattern": "^q$", "apply-to": "queues",
            "definition": {"max-length": 5, "delivery-limit": 20}, "priority": 10}]}"#;

    /// What differs once a text of [`THERE`] is replaced.
    fn differences(text: &str, by: &str) -> Vec<(&'static str, String, String, String)> {
        assert!(text.is_empty() || THERE.contains(text), "{text}");
        let there = if text.is_empty() { THERE.to_owned() } else { THERE.replace(text, by) };
        let objects = compare(&Definitions::parse(WANTED).unwrap(), &serde_json::from_str(&there).unwrap());
        let differences = objects.into_iter().flat_map(|object| {
            let kind = object.kind;
            object.differences.into_iter().map(move |d| (kind, d.what, d.expected, d.found))
        });
        differences.collect()
    }

    #[test]
    fn what_the_broker_adds_makes_no_difference() {
        assert_eq!(differences("", ""), []);
    }

    #[test]
    fn every_difference_is_told() {
        let cases = [
            (r#""type": "quorum""#, r#""type": "classic""#, ("queue", "type", "quorum", "classic")),
            (
                r#""x-queue-type": "quorum""#,
                r#""x-queue-type": "quorum", "x-expires": 5"#,
                ("queue", "x-expires", "not set", "5"),
            ),
            (r#""policy": "p""#, r#""policy": "z""#, ("queue", "policy in force", "p (priority 10)", "z")),
            (r#""policy": "p","#, "", ("queue", "policy in force", "p (priority 10)", "none")),
            (r#""type": "direct""#, r#""type": "topic""#, ("exchange", "type", "direct", "topic")),
            (r#""name": "x""#, r#""name": "y""#, ("exchange", "existence", "wanted", "missing")),
            (r#""routing_key": "k""#, r#""routing_key": "j""#, ("binding", "existence", "wanted", "missing")),
            (r#""pattern": "^q$""#, r#""pattern": "^r$""#, ("policy", "pattern", "^q$", "^r$")),
            (r#""apply-to": "queues""#, r#""apply-to": "all""#, ("policy", "apply-to", "queues", "all")),
            (r#""priority": 10"#, r#""priority": 9"#, ("policy", "priority", "10", "9")),
            (r#""max-length": 5, "#, "", ("policy", "max-length", "5", "not set")),
            (r#""max-length": 5"#, r#""max-length": 6"#, ("policy", "max-length", "5", "6")),
            (r#""max-length": 5"#, r#""max-length": 5, "expires": 1"#, ("policy", "expires", "not set", "1")),
        ];
        for (text, by, (kind, what, expected, found)) in cases {
            let told = (kind, what.to_owned(), expected.to_owned(), found.to_owned());
            assert_eq!(differences(text, by), [told], "{text} → {by}");
        }
    }
}
