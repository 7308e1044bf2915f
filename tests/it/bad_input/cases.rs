//! Bodies that are no command, and the good ones among them.

use super::{Case, Done, Expect, Field, Refused, case};
use crate::support::users::new_user;

const MALFORMED: Expect = Refused("malformed", 400);
const INVALID: Expect = Refused("invalid", 422);

/// The users that are there at the end, beside the neighbours.
pub(super) const GOOD_USERS: &[&str] = &[
    "ann",
    "array-1",
    "array-2",
    "escaped",
    "expired-other-id",
    "late-enough",
    "long-id",
    "max-points",
    "no-id",
    "plug",
    "pretty",
    "reused-id",
    "types",
    "everything",
];

/// A payload of this many bytes, valid but for its size.
fn sized(username: &str, bytes: usize) -> Vec<u8> {
    let mut body = new_user(username, 0).to_string().into_bytes();
    body.resize(bytes, b' ');
    body
}

fn nested(open: &str, close: &str) -> String {
    format!("{{\"username\":{}{}}}", open.repeat(10_000), close.repeat(10_000))
}

/// Mistakes in bodies; each case has a name of its own.
pub(super) fn bodies() -> Vec<Case> {
    [not_json(), fields(), emails(), numbers(), arrays(), states()].into_iter().flatten().collect()
}

fn not_json() -> Vec<Case> {
    let create = |name, body: &[u8], expect| case(name, "create", body, expect);
    vec![
        create("not JSON", b"username=ann", MALFORMED),
        create("empty", b"", MALFORMED),
        create("white space", b" \r\n", MALFORMED),
        create("cut off", b"{\"username\":\"cut", MALFORMED),
        create("something behind", b"{\"username\":\"a\",\"email\":\"a@example.com\"} x", MALFORMED),
        create("two values", b"{\"username\":\"a\",\"email\":\"a@example.com\"}{}", MALFORMED),
        create("byte order mark", b"\xEF\xBB\xBF{\"username\":\"a\",\"email\":\"a@example.com\"}", MALFORMED),
        create("UTF-16", b"\xFF\xFE{\0\"\0", MALFORMED),
        create("Latin-1", b"{\"username\":\"a\",\"email\":\"\xE4@example.com\"}", MALFORMED),
        create("raw NUL", b"{\"username\":\"a\0b\",\"email\":\"a@example.com\"}", MALFORMED),
        create("escaped NUL", b"{\"username\":\"a\\u0000b\",\"email\":\"a@example.com\"}", Field("username")),
        create(
            "NUL in the address",
            b"{\"username\":\"nul\",\"email\":\"a\\u0000@example.com\"}",
            Field("email"),
        ),
        create("lone surrogate", b"{\"username\":\"a\\ud800\",\"email\":\"a@example.com\"}", MALFORMED),
        create(
            "surrogates reversed",
            b"{\"username\":\"a\\udc00\\ud800\",\"email\":\"a@example.com\"}",
            MALFORMED,
        ),
        create("comment", b"{/* new */\"username\":\"a\"}", MALFORMED),
        create("NaN", b"{\"username\":\"a\",\"email\":\"a@example.com\",\"points\":NaN}", MALFORMED),
        create("escaped letters", b"{\"username\":\"esc\\u0061ped\",\"email\":\"a@example.com\"}", Done(201)),
        create("pretty", b"{\n  \"username\": \"pretty\",\r\n\t\"email\": \"a@example.com\"\n}\n", Done(201)),
        create("null", b"null", INVALID),
        create("number", b"7", INVALID),
        create("string", b"\"{}\"", INVALID),
    ]
}

/// An array of 1 MiB of which each character would be told several times.
fn quoted_often() -> String {
    let field = r#"\""#.repeat(500);
    format!("[{}]", vec![format!(r#"{{"{field}":0}}"#); 1000].join(","))
}

/// Bodies that are too many to be one batch.
pub(super) fn large() -> Vec<Case> {
    let create = |name, body: &[u8], expect| case(name, "create", body, expect);
    let mut array = format!("[{}]", new_user("array-3", 0)).into_bytes();
    array.resize(1024 * 1024 + 1, b' ');
    vec![
        create("deep arrays", nested("[", "]").as_bytes(), Field("username")),
        create("deep objects", nested("{\"a\":", "1}").as_bytes(), INVALID),
        create("deep unclosed", "[".repeat(60_000).as_bytes(), MALFORMED),
        create("64 KiB", &sized("at-limit", 65_536), Done(201)),
        create("64 KiB + 1", &sized("over-limit", 65_537), INVALID),
        case("array above 1 MiB", "create", array, INVALID),
        case("array that is quoted in each problem", "create", quoted_often(), Done(200)),
    ]
}

fn fields() -> Vec<Case> {
    let create = |name, body: &str, field| case(name, "create", body, Field(field));
    vec![
        create("no username", r#"{"email":"a@example.com"}"#, "username"),
        create("no address", r#"{"username":"a"}"#, "email"),
        create("empty object", "{}", "username"),
        create("username is a number", r#"{"username":1,"email":"a@example.com"}"#, "username"),
        create("username is null", r#"{"username":null,"email":"a@example.com"}"#, "username"),
        create("username is a list", r#"{"username":["a"],"email":"a@example.com"}"#, "username"),
        create("empty username", r#"{"username":"","email":"a@example.com"}"#, "username"),
        create(
            "long username",
            &format!(r#"{{"username":"{}","email":"a@example.com"}}"#, "a".repeat(65)),
            "username",
        ),
        create("username with a space", r#"{"username":"a b","email":"a@example.com"}"#, "username"),
        create("username begins with a dash", r#"{"username":"-a","email":"a@example.com"}"#, "username"),
        create("username is not ASCII", r#"{"username":"änn","email":"a@example.com"}"#, "username"),
        create("unknown field", r#"{"username":"a","email":"a@example.com","role":"root"}"#, "role"),
        create("status", r#"{"username":"a","email":"a@example.com","status":"Gold"}"#, "status"),
        create("other case", r#"{"Username":"a","email":"a@example.com"}"#, "Username"),
        create("duplicate field", r#"{"username":"a","email":"a@example.com","username":"b"}"#, "username"),
        create(
            "long unknown field",
            &format!("{{\"{}\":1}}", "x".repeat(400)),
            Box::leak("x".repeat(400).into()),
        ),
        case("promote with points", "promote", r#"{"username":"ann","points":1}"#, Field("points")),
        case("award without points", "award", r#"{"username":"ann"}"#, Field("points")),
    ]
}

fn emails() -> Vec<Case> {
    let long = format!("{}@example.com", "a".repeat(250));
    [
        "",
        "a",
        "a@",
        "@example.com",
        "a b@example.com",
        "a@b@c",
        "Ann <ann@example.com>",
        "a@exam\nple.com",
        &long,
    ]
    .into_iter()
    .enumerate()
    .map(|(index, email)| {
        let body = serde_json::json!({"username": format!("mail{index}"), "email": email}).to_string();
        case(&format!("address {index}"), "create", body, Field("email"))
    })
    .collect()
}

fn numbers() -> Vec<Case> {
    let bad = [
        "-1",
        "9007199254740992",
        "1.5",
        "1.0",
        "1e3",
        "-0.0",
        "18446744073709551616",
        "-9223372036854775809",
        "1e400",
        "\"5\"",
        "true",
        "null",
        "[5]",
    ];
    let huge = "9".repeat(400);
    let mut cases = Vec::new();
    for points in bad.into_iter().chain([huge.as_str()]) {
        let body = format!("{{\"username\":\"n\",\"email\":\"a@example.com\",\"points\":{points}}}");
        let short = &points[..points.len().min(24)];
        // What no reader could hold at all is not JSON's fault, but JSON readers cannot tell.
        let expect = if points == "1e400" || points.len() == 400 {
            Refused("malformed", 400)
        } else {
            Field("points")
        };
        cases.push(case(&format!("points {short}"), "create", body, expect));
    }
    for points in ["0", "9007199254740992", "-9007199254740992", "1.0", "1e3", "\"1\""] {
        let body = format!("{{\"username\":\"ann\",\"points\":{points}}}");
        cases.push(case(&format!("award {points}"), "award", body, Field("points")));
    }
    for points in ["01", "+1", ".5", "0x10", "1_000"] {
        let body = format!("{{\"username\":\"n\",\"email\":\"a@example.com\",\"points\":{points}}}");
        cases.push(case(&format!("points {points}"), "create", body, Refused("malformed", 400)));
    }
    cases.push(case("most points", "create", new_user("max-points", (1 << 53) - 1).to_string(), Done(201)));
    cases
}

fn arrays() -> Vec<Case> {
    let item = |n: usize| new_user(&format!("array-{n}"), 0).to_string();
    let many = vec![r#"{"username":"x","email":"x@example.com"}"#; 1001].join(",");
    let good = format!("[{}, {},\n{{\"username\":\"x\"}}]\n", item(1), item(2));
    vec![
        case("array", "create", good, Done(200)),
        case("empty array", "create", "[]", INVALID),
        case("nested array", "create", format!("[{},[{}]]", item(3), item(4)), INVALID),
        case("array of 1001", "create", format!("[{many}]"), INVALID),
        case("array with a comma too many", "create", format!("[{},]", item(3)), MALFORMED),
        case("array with something behind", "create", format!("[{}] x", item(3)), MALFORMED),
    ]
}

fn states() -> Vec<Case> {
    vec![
        case("exists", "create", new_user("ann", 0).to_string(), Refused("user_exists", 409)),
        case("promotes nobody", "promote", r#"{"username":"nobody"}"#, Refused("user_not_found", 404)),
        case("awards nobody", "award", r#"{"username":"nobody","points":1}"#, Refused("user_not_found", 404)),
        case(
            "takes too many",
            "award",
            r#"{"username":"ann","points":-999}"#,
            Refused("insufficient_points", 409),
        ),
        case(
            "gives too many",
            "award",
            r#"{"username":"ann","points":9007199254740991}"#,
            Refused("points_limit", 409),
        ),
    ]
}

/// Puts a good command between any two.
pub(super) fn among_good_neighbours(cases: Vec<Case>) -> Vec<Case> {
    let neighbour = |index: usize| {
        let payload = new_user(&format!("neighbour-{index}"), 1).to_string();
        case(&format!("neighbour {index}"), "create", payload, Done(201))
    };
    cases.into_iter().enumerate().flat_map(|(index, bad)| [neighbour(index), bad]).collect()
}
