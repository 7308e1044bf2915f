//! Properties and headers that are odd, or wrong.

use lapin::{
    BasicProperties,
    types::{AMQPValue, DecimalValue, FieldArray, FieldTable},
};
use rabbitry::clock::unix_ms;

use super::{Case, Done, Expect, Field, Refused, case};
use crate::support::users::new_user;

pub(super) fn with_header(properties: BasicProperties, name: &str, value: AMQPValue) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(name.into(), value);
    properties.with_headers(headers)
}

fn create(name: &str, username: &str, expect: Expect) -> Case {
    case(name, "create", new_user(username, 3).to_string(), expect)
}

/// Mistakes in properties, and properties that do no harm.
pub(super) fn cases() -> Vec<Case> {
    [ids(), deadlines(), harmless()].into_iter().flatten().collect()
}

fn ids() -> Vec<Case> {
    let with_id = |case: Case, id: &str| case.with(|properties| properties.with_message_id(id.into()));
    vec![
        with_id(create("an id", "reused-id", Done(201)), "the-id"),
        with_id(
            create("the same id with other content", "never-1", Refused("idempotency_conflict", 422)),
            "the-id",
        ),
        with_id(
            create("id of 255 bytes", "long-id", Done(201)),
            &"ä".repeat(127).chars().chain(['x']).collect::<String>(),
        ),
        with_id(create("empty id", "no-id", Done(201)), ""),
        with_id(create("empty id again", "no-id", Refused("user_exists", 409)), ""),
        with_id(
            create("expired id", "never-2", Refused("id_expired", 409)),
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        ),
        with_id(
            create("id that tells no time", "expired-other-id", Done(201)),
            "9073926b-929f-4ce2-8e1c-2b1c3f2a1d11",
        ),
    ]
}

fn deadlines() -> Vec<Case> {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let passed = Refused("deadline_exceeded", 504);
    let deadlines = [
        ("passed", AMQPValue::LongLongInt(unix_ms() - 1), passed),
        ("long passed", AMQPValue::LongInt(1), passed),
        ("negative", AMQPValue::ShortShortInt(-1), passed),
        ("as long passed as can be", AMQPValue::LongLongInt(i64::MIN), passed),
        ("passed, as text", text("1700000000000"), passed),
        ("double", AMQPValue::Double(9e15), Field("deadline")),
        ("timestamp", AMQPValue::Timestamp(4_000_000_000), Field("deadline")),
        ("boolean", AMQPValue::Boolean(true), Field("deadline")),
        ("nothing", AMQPValue::Void, Field("deadline")),
        ("table", AMQPValue::FieldTable(FieldTable::default()), Field("deadline")),
        ("date", text("2030-01-01T00:00:00Z"), Field("deadline")),
        ("empty", text(""), Field("deadline")),
        ("bytes", AMQPValue::LongString(vec![0xff, 0xfe].into()), Field("deadline")),
    ];
    let mut cases: Vec<_> = deadlines
        .into_iter()
        .map(|(name, value, expect)| {
            let case = create(&format!("deadline: {name}"), "never-3", expect);
            case.with(|properties| with_header(properties, "deadline", value))
        })
        .collect();
    let later = text(&(unix_ms() + 600_000).to_string());
    cases.push(
        create("deadline: later", "late-enough", Done(201)).with(|p| with_header(p, "deadline", later)),
    );
    cases
}

/// A header of each type that a client can send.
pub(super) fn every_type() -> FieldTable {
    let mut inner = FieldTable::default();
    inner.insert("deep".into(), AMQPValue::Boolean(true));
    let values = [
        AMQPValue::Boolean(true),
        AMQPValue::ShortShortInt(-1),
        AMQPValue::ShortShortUInt(1),
        AMQPValue::ShortInt(-1),
        AMQPValue::ShortUInt(1),
        AMQPValue::LongInt(-1),
        AMQPValue::LongUInt(1),
        AMQPValue::LongLongInt(-1),
        AMQPValue::Float(1.5),
        AMQPValue::Double(1.5),
        AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 150 }),
        AMQPValue::LongString("text".into()),
        AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Void, AMQPValue::LongInt(1)])),
        AMQPValue::Timestamp(1_700_000_000),
        AMQPValue::FieldTable(inner),
        AMQPValue::ByteArray(vec![0, 255].into()),
        AMQPValue::Void,
    ];
    let mut headers = FieldTable::default();
    for (index, value) in values.into_iter().enumerate() {
        headers.insert(format!("h{index}").into(), value);
    }
    headers
}

fn harmless() -> Vec<Case> {
    vec![
        create("headers of every type", "types", Done(201))
            .with(|properties| properties.with_headers(every_type())),
        create("every property", "everything", Done(201)).with(|properties| {
            properties
                .with_content_type("text/plain".into())
                .with_content_encoding("gzip".into())
                .with_priority(255)
                .with_expiration("60000".into())
                .with_timestamp(u64::MAX)
                .with_type("something.else".into())
                .with_user_id("guest".into())
                .with_app_id("curl".into())
                .with_cluster_id("none".into())
        }),
        create("set aside with every property", "-", Field("username")).with(|properties| {
            properties
                .with_headers(every_type())
                .with_priority(9)
                .with_expiration("60000".into())
                .with_timestamp(1)
                .with_user_id("guest".into())
        }),
    ]
}
