//! Lines become users to create, or refused rows: what the worker would refuse is refused here, in its words.

use std::io::{self, BufRead};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::columns::{Columns, Fields};
use crate::{
    cli::lines::{Line, Lines},
    limits::PAYLOAD_BYTES_MAX,
    service::{Code, Problem, cut, payload},
    users::{
        commands::create::Create,
        user::{Email, Points, Username},
    },
};

/// A user to create, and the line that asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) create: Create,
}

/// A row that was not imported, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusedRow {
    pub(super) line: u64,
    pub(super) fields: Fields,
    pub(super) code: String,
    pub(super) detail: String,
}

impl RefusedRow {
    fn new(line: u64, fields: Fields, problem: Problem) -> Self {
        // It is kept until its chunk is answered, so it must not be as long as somebody likes.
        let fields = Fields {
            username: cut(fields.username),
            email: cut(fields.email),
            points: fields.points.map(cut),
        };
        Self { line, fields, code: problem.code.name.to_owned(), detail: problem.detail }
    }

    /// A row that a worker refused.
    pub(super) fn answered(row: &Row, code: &str, detail: &str) -> Self {
        let Create { username, email, points } = &row.create;
        let fields = Fields {
            username: username.to_string(),
            email: email.to_string(),
            points: Some(points.get().to_string()),
        };
        Self { line: row.line, fields, code: code.to_owned(), detail: detail.to_owned() }
    }
}

/// How the lines are to be read.
#[derive(Debug, Clone)]
pub(super) enum Form {
    Csv(Columns),
    Ndjson,
}

/// The rows of a file.
pub(super) struct Rows<R> {
    lines: Lines<R>,
    form: Form,
}

impl<R: BufRead> Rows<R> {
    /// The lines behind the header, if there is one.
    pub(super) fn new(lines: Lines<R>, form: Form) -> Self {
        Self { lines, form }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Result<Row, Box<RefusedRow>>>> {
        let Some(line) = self.lines.next()? else { return Ok(None) };
        Ok(Some(self.form.read(line)))
    }

    /// How many bytes of the file were read.
    pub(super) fn offset(&self) -> u64 {
        self.lines.offset()
    }
}

impl Form {
    fn read(&self, line: Line<'_>) -> Result<Row, Box<RefusedRow>> {
        let refused = |fields, problem| Box::new(RefusedRow::new(line.number, fields, problem));
        if line.text.len() > PAYLOAD_BYTES_MAX {
            let detail = format!("the row has more than {PAYLOAD_BYTES_MAX} bytes");
            return Err(refused(Fields::default(), Problem::new(Code::INVALID, detail)));
        }
        let create = match self {
            Self::Csv(columns) => {
                let (fields, create) = read_csv(columns, line.text);
                create.map_err(|problem| refused(fields, problem))
            }
            Self::Ndjson => {
                read_json(line.text).map_err(|problem| refused(fields_of_json(line.text), problem))
            }
        };
        create.map(|create| Row { line: line.number, create })
    }
}

fn read_csv(columns: &Columns, text: &[u8]) -> (Fields, Result<Create, Problem>) {
    let (fields, read) = columns.fields(&String::from_utf8_lossy(text));
    let is_text = || {
        str::from_utf8(text)
            .map(drop)
            .map_err(|error| Problem::new(Code::MALFORMED, format!("the row is not UTF-8 text: {error}")))
    };
    let create = read.and_then(|()| is_text()).and_then(|()| read_json(&fields.to_json()));
    (fields, create)
}

/// A user as an export writes it. The rest is [`Create`], whose fields the compiler holds this against.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedUser {
    username: Username,
    email: Email,
    #[serde(default)]
    points: Points,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

fn read_json(text: &[u8]) -> Result<Create, Problem> {
    let ExportedUser { username, email, points, .. } = payload::parse(text)?;
    Ok(Create { username, email, points })
}

/// What can be told of a refused object.
fn fields_of_json(text: &[u8]) -> Fields {
    let found: Value = serde_json::from_slice(text).unwrap_or_default();
    let member = |name| match found.get(name) {
        None => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    Fields {
        username: member("username").unwrap_or_default(),
        email: member("email").unwrap_or_default(),
        points: member("points"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::DETAIL_MAX, service::Service, users::commands::Users};

    fn csv(row: &[u8]) -> Result<Row, Box<RefusedRow>> {
        let columns = Columns::read(b"username,email,points").unwrap();
        Form::Csv(columns).read(Line { number: 7, text: row })
    }

    fn json(row: &str) -> Result<Row, Box<RefusedRow>> {
        Form::Ndjson.read(Line { number: 7, text: row.as_bytes() })
    }

    #[test]
    fn a_row_is_the_same_user_in_either_form() {
        let ann = csv(b"ann,ann@example.com,7").unwrap();
        assert_eq!(json(r#"{"points":7,"username":"ann","email":"ann@example.com"}"#).unwrap(), ann);
        assert_eq!(
            json(r#"{"username":"ann","email":"ann@example.com","points":7,"status":"Gold"}"#).unwrap(),
            ann
        );
        assert_eq!(csv(b"ann,ann@example.com,").unwrap().create.points, Points::default());
    }

    #[test]
    fn what_a_worker_would_refuse_is_refused_in_its_words() {
        let rows = [
            r#"{"username":"","email":"a@b.c","points":1}"#,
            r#"{"username":"-ann","email":"a@b.c","points":1}"#,
            r#"{"username":"ann","email":"nobody","points":1}"#,
            r#"{"username":"ann","email":"a@b.c","points":-1}"#,
            r#"{"username":"ann","email":"a@b.c","points":1.5}"#,
            r#"{"username":"ann","email":"a@b.c","points":"many"}"#,
            r#"{"username":"ann","email":"a@b.c","points":null}"#,
            r#"{"username":"ann"}"#,
            r#"{"username":"ann","username":"ann","email":"a@b.c"}"#,
            r#"["ann"]"#,
            r#"{"username":"ann""#,
            "ann",
        ];
        for row in rows {
            let problem = Users::parse("create", row.as_bytes()).unwrap_err();
            let refused = json(row).unwrap_err();
            assert_eq!((refused.line, refused.code.as_str()), (7, problem.code.name), "{row}");
            assert_eq!(refused.detail, problem.detail, "{row}");
        }
        let same = csv(b"ann,a@b.c,1.5").unwrap_err();
        assert_eq!(same, json(r#"{"username":"ann","email":"a@b.c","points":1.5}"#).unwrap_err());
        assert_eq!(json(r#"{"username":"ann","email":"a@b.c","age":5}"#).unwrap_err().code, "invalid");
    }

    #[test]
    fn what_cannot_be_read_is_malformed() {
        for row in [&b"\"ann,a@b.c,1"[..], b"ann,a@b.c", b"ann,a@b.c,1,2", b"\xFF,a@b.c,1"] {
            assert_eq!(csv(row).unwrap_err().code, "malformed");
        }
        let refused = csv(b"a\xFFb,a@b.c,1").unwrap_err();
        assert_eq!(
            (refused.fields.username.as_str(), refused.fields.email.as_str()),
            ("a\u{FFFD}b", "a@b.c")
        );
    }

    #[test]
    fn a_refused_row_is_never_long() {
        let long = "x".repeat(PAYLOAD_BYTES_MAX - 20);
        let refused = csv(format!("{long},a@b.c,1").as_bytes()).unwrap_err();
        assert_eq!(refused.code, "invalid");
        assert!(refused.fields.username.len() < DETAIL_MAX + 4 && refused.detail.len() < DETAIL_MAX + 4);
        let refused = json(&"x".repeat(PAYLOAD_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(
            (refused.code.as_str(), refused.detail.as_str()),
            ("invalid", "the row has more than 65536 bytes")
        );
    }
}
