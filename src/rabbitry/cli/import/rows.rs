//! Lines become commands, or refused rows: what the worker would refuse is refused here, in its words.

use std::{
    io::{self, BufRead},
    sync::Arc,
};

use serde_json::Value;

use super::{
    columns::{Columns, Fields, object},
    target::Target,
};
use crate::{
    cli::{
        lines::{Line, Lines},
        output::text_of,
    },
    limits::PAYLOAD_BYTES_MAX,
    service::{Code, Problem, cut},
};

/// A command to send, and the line that asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: u64,
    /// The command's payload.
    pub(super) payload: Vec<u8>,
    /// The keys that it names.
    pub(super) keys: Vec<String>,
    /// The payload of the command that is sent when this one has succeeded.
    pub(super) then: Option<Vec<u8>>,
    /// How long its line is.
    pub(super) bytes: usize,
}

/// A row that was not imported, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusedRow {
    pub(super) line: u64,
    pub(super) fields: Fields,
    pub(super) code: String,
    pub(super) detail: String,
    /// How long its line is.
    pub(super) bytes: usize,
}

impl RefusedRow {
    /// A row that a worker refused.
    pub(super) fn answered(target: &Target, row: &Row, code: &str, detail: &str) -> Self {
        let fields = fields_of_json(target, &row.payload);
        Self { line: row.line, fields, code: code.to_owned(), detail: detail.to_owned(), bytes: row.bytes }
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
    target: Arc<Target>,
}

impl<R: BufRead> Rows<R> {
    /// The lines behind the header, if there is one.
    pub(super) fn new(lines: Lines<R>, form: Form, target: Arc<Target>) -> Self {
        Self { lines, form, target }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Result<Row, Box<RefusedRow>>>> {
        let Some(line) = self.lines.next()? else { return Ok(None) };
        Ok(Some(self.form.read(&self.target, line)))
    }

    /// How many bytes of the file were read.
    pub(super) fn offset(&self) -> u64 {
        self.lines.offset()
    }
}

impl Form {
    fn read(&self, target: &Target, line: Line<'_>) -> Result<Row, Box<RefusedRow>> {
        let bytes = line.text.len();
        let (fields, read) = match self {
            _ if bytes > PAYLOAD_BYTES_MAX => {
                let detail = format!("the row has more than {PAYLOAD_BYTES_MAX} bytes");
                (Some(Vec::new()), Err(Problem::new(Code::INVALID, detail)))
            }
            Self::Csv(columns) => {
                let (fields, read) = read_csv(target, columns, line.text);
                (Some(fields), read)
            }
            Self::Ndjson => (None, target.read(line.text)),
        };
        let row = read.and_then(|read| {
            let then = target.then.as_ref().map(|then| target.follow(then, &read.payload)).transpose()?;
            Ok(Row { line: line.number, payload: read.payload, keys: read.keys, then, bytes })
        });
        row.map_err(|problem| {
            let fields = fields.unwrap_or_else(|| fields_of_json(target, line.text));
            // It is kept until its chunk is answered, so it must not be as long as somebody likes.
            let fields = fields.into_iter().map(|field| field.map(cut)).collect();
            let (code, detail) = (problem.code.name.to_owned(), problem.detail);
            Box::new(RefusedRow { line: line.number, fields, code, detail, bytes })
        })
    }
}

fn read_csv(
    target: &Target,
    columns: &Columns,
    text: &[u8],
) -> (Fields, Result<crate::cli::about::Read, Problem>) {
    let (fields, read) = columns.fields(&String::from_utf8_lossy(text));
    let is_text = || {
        str::from_utf8(text)
            .map(drop)
            .map_err(|error| Problem::new(Code::MALFORMED, format!("the row is not UTF-8 text: {error}")))
    };
    let read = read.and_then(|()| is_text()).and_then(|()| target.read(&object(target, &fields)));
    (fields, read)
}

/// What can be told of the fields of an object.
fn fields_of_json(target: &Target, text: &[u8]) -> Fields {
    let found: Value = serde_json::from_slice(text).unwrap_or_default();
    target.fields.iter().map(|field| found.get(&field.name).map(text_of)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::About, limits::DETAIL_MAX, service::Service, toy::Toys};

    fn target() -> Target {
        Target::new(&[About::of::<Toys>()], "toys.make", None).unwrap()
    }

    fn csv(row: &[u8]) -> Result<Row, Box<RefusedRow>> {
        let columns = Columns::read(&target(), b"name,label,count").unwrap();
        Form::Csv(columns).read(&target(), Line { number: 7, text: row })
    }

    fn json(row: &str) -> Result<Row, Box<RefusedRow>> {
        Form::Ndjson.read(&target(), Line { number: 7, text: row.as_bytes() })
    }

    fn payload(row: Result<Row, Box<RefusedRow>>) -> String {
        String::from_utf8(row.unwrap().payload).unwrap()
    }

    #[test]
    fn a_row_is_the_same_command_in_either_form() {
        let ann = r#"{"name":"ann","label":"ann@example.com","count":7}"#;
        assert_eq!(payload(csv(b"ann,ann@example.com,7")), ann);
        assert_eq!(payload(json(r#"{"count":7,"name":"ann","label":"ann@example.com"}"#)), ann);
        let exported = r#"{"name":"ann","label":"ann@example.com","count":7,"state":"In"}"#;
        assert_eq!(payload(json(exported)), ann);
        assert_eq!(payload(csv(b"ann,ann@example.com,")), ann.replace('7', "0"));
    }

    #[test]
    fn what_a_worker_would_refuse_is_refused_in_its_words() {
        let rows = [
            r#"{"name":"","label":"a@b.c","count":1}"#,
            r#"{"name":"-ann","label":"a@b.c","count":1}"#,
            r#"{"name":"ann","label":"nobody","count":1}"#,
            r#"{"name":"ann","label":"a@b.c","count":-1}"#,
            r#"{"name":"ann","label":"a@b.c","count":1.5}"#,
            r#"{"name":"ann","label":"a@b.c","count":"many"}"#,
            r#"{"name":"ann","label":"a@b.c","count":null}"#,
            r#"{"name":"ann"}"#,
            r#"{"name":"ann","name":"ann","label":"a@b.c"}"#,
            r#"{"name":"ann","label":"a@b.c","age":5}"#,
            r#"["ann"]"#,
            r#"{"name":"ann""#,
            "ann",
        ];
        for row in rows {
            let problem = (Toys::entry("make").unwrap().parse)(row.as_bytes(), &[]).unwrap_err();
            let refused = json(row).unwrap_err();
            assert_eq!((refused.line, refused.code.as_str()), (7, problem.code.name), "{row}");
            assert_eq!(refused.detail, problem.detail, "{row}");
        }
        let (csv, json) =
            (csv(b"ann,a@b.c,1.5").unwrap_err(), json(r#"{"name":"ann","label":"a@b.c","count":1.5}"#));
        let json = json.unwrap_err();
        assert_eq!((&csv.fields, &csv.code, &csv.detail), (&json.fields, &json.code, &json.detail));
    }

    #[test]
    fn what_cannot_be_read_is_malformed() {
        for row in [&b"\"ann,a@b.c,1"[..], b"ann,a@b.c", b"ann,a@b.c,1,2", b"\xFF,a@b.c,1"] {
            assert_eq!(csv(row).unwrap_err().code, "malformed");
        }
        let refused = csv(b"a\xFFb,a@b.c,1").unwrap_err();
        assert_eq!(refused.fields, ["a\u{FFFD}b", "a@b.c", "1"].map(|text| Some(text.to_owned())));
    }

    #[test]
    fn a_refused_row_is_never_long() {
        let long = "x".repeat(PAYLOAD_BYTES_MAX - 20);
        let refused = csv(format!("{long},a@b.c,1").as_bytes()).unwrap_err();
        assert_eq!(refused.code, "invalid");
        let longest = refused.fields.iter().flatten().map(String::len).max().unwrap();
        assert!(longest < DETAIL_MAX + 4 && refused.detail.len() < DETAIL_MAX + 4);
        let refused = json(&"x".repeat(PAYLOAD_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(
            (refused.code.as_str(), refused.detail.as_str()),
            ("invalid", "the row has more than 65536 bytes")
        );
    }
}
