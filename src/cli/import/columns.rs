//! The header of a CSV file: which column holds what.

use serde::Serialize;

use super::csv_row::split;
use crate::service::{Code, Problem};

const USERNAME: &str = "username";
const EMAIL: &str = "email";
const POINTS: &str = "points";
/// Columns of an export and of a file of refused rows, so that both can be imported as they are.
const IGNORED: [&str; 4] = ["status", "line", "code", "detail"];

/// Where the columns stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    names: Vec<String>,
    username: usize,
    email: usize,
    points: Option<usize>,
}

/// What a row says of a user, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) username: String,
    pub(super) email: String,
    pub(super) points: Option<String>,
}

impl Columns {
    /// Reads the header line.
    ///
    /// # Errors
    /// What to change about it.
    pub(super) fn read(header: &[u8]) -> Result<Self, String> {
        let known = "the columns are username, email and, if there are any, points, with commas between them";
        if header.starts_with(b"{") {
            return Err("the first line is JSON and no header; add --format ndjson".to_owned());
        }
        let text = str::from_utf8(header).map_err(|_| "the header is not UTF-8 text".to_owned())?;
        let names = split(text).map_err(|problem| format!("the header: {}", problem.detail))?;
        for (index, name) in names.iter().enumerate() {
            if ![USERNAME, EMAIL, POINTS].contains(&name.as_str()) && !IGNORED.contains(&name.as_str()) {
                return Err(format!("the header names a column {name:?}; {known}"));
            }
            if names[..index].contains(name) {
                return Err(format!("the header names the column {name:?} twice"));
            }
        }
        let place = |column: &str| names.iter().position(|name| name == column);
        let required =
            |column| place(column).ok_or_else(|| format!("the header names no {column:?}; {known}"));
        let (username, email) = (required(USERNAME)?, required(EMAIL)?);
        Ok(Self { username, email, points: place(POINTS), names })
    }

    /// The columns that are there and not read.
    pub(super) fn ignored(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).filter(|name| IGNORED.contains(name)).collect()
    }

    /// Takes a row apart: what of it could be read, and whether it is a row as it should be.
    ///
    /// # Errors
    /// `malformed`.
    pub(super) fn fields(&self, row: &str) -> (Fields, Result<(), Problem>) {
        let mut found = match split(row) {
            Ok(found) => found,
            Err(problem) => return (Fields::default(), Err(problem)),
        };
        let count = found.len();
        let mut take = |index: usize| found.get_mut(index).map(std::mem::take);
        let fields = Fields {
            username: take(self.username).unwrap_or_default(),
            email: take(self.email).unwrap_or_default(),
            points: self.points.and_then(take).filter(|points| !points.is_empty()),
        };
        if count == self.names.len() {
            return (fields, Ok(()));
        }
        let detail = format!("the row has {count} columns, the header has {}", self.names.len());
        (fields, Err(Problem::new(Code::MALFORMED, detail)))
    }
}

impl Fields {
    /// The JSON that another producer would have sent for these fields; it is then read, and refused, in the same
    /// words.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(64 + self.username.len() + self.email.len());
        let mut member = |name: &str, value: &[u8]| {
            json.push(if json.is_empty() { b'{' } else { b',' });
            json.extend(to_json(name));
            json.push(b':');
            json.extend_from_slice(value);
        };
        member(USERNAME, &to_json(&self.username));
        member(EMAIL, &to_json(&self.email));
        match self.points.as_deref() {
            None => {}
            Some(points) if is_number(points) => member(POINTS, points.as_bytes()),
            Some(points) => member(POINTS, &to_json(points)),
        }
        json.push(b'}');
        json
    }
}

fn to_json(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    crate::service::to_json(&value)
}

fn is_number(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    begins && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok_and(|raw| raw.get() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_in_any_order() {
        let columns = Columns::read(b"points,status,email,username").unwrap();
        assert_eq!(columns.ignored(), ["status"]);
        let fields = columns.fields("7,Gold,ann@example.com,ann").0;
        assert_eq!((fields.username.as_str(), fields.email.as_str()), ("ann", "ann@example.com"));
        assert_eq!(fields.points.as_deref(), Some("7"));
        let fields = Columns::read(b"username,email").unwrap().fields("ann,ann@example.com").0;
        assert_eq!(fields.points, None);
    }

    #[test]
    fn a_header_is_refused_with_what_to_change() {
        let cases: [(&[u8], &str); 10] = [
            (b"username,email,age", "a column \"age\""),
            (b"username,email,", "a column \"\""),
            (b"Username,email", "a column \"Username\""),
            (b"username;email", "with commas between them"),
            (b"username,points", "names no \"email\""),
            (b"email", "names no \"username\""),
            (b"username,email,email", "\"email\" twice"),
            (b"username,\"email", "not closed"),
            (b"username,em\xFFail", "not UTF-8"),
            (b"{\"username\":\"ann\"}", "--format ndjson"),
        ];
        for (header, part) in cases {
            let error = Columns::read(header).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_row_with_another_number_of_columns_is_malformed_and_tells_what_it_holds() {
        let columns = Columns::read(b"username,email,points").unwrap();
        for (row, count) in [("ann", 1), ("ann,x", 2), ("ann,x,1,2", 4)] {
            let (fields, read) = columns.fields(row);
            let problem = read.unwrap_err();
            assert_eq!(problem.code, Code::MALFORMED);
            assert_eq!(problem.detail, format!("the row has {count} columns, the header has 3"));
            assert_eq!(fields.username, "ann");
        }
    }

    #[test]
    fn points_that_are_no_number_are_sent_as_text_to_be_refused() {
        let json = |points: &str| {
            let points = Some(points.to_owned()).filter(|points| !points.is_empty());
            let fields = Fields { username: "a\"b".to_owned(), email: "e".to_owned(), points };
            String::from_utf8(fields.to_json()).unwrap()
        };
        assert_eq!(json(""), r#"{"username":"a\"b","email":"e"}"#);
        for number in ["7", "-7", "1.5", "1e3", "99999999999999999999"] {
            assert_eq!(json(number), format!(r#"{{"username":"a\"b","email":"e","points":{number}}}"#));
        }
        for text in ["x", "01", "+7", " 7", "7 ", "0x7", "NaN", "true", "null", "7,5", "[7]"] {
            assert!(json(text).ends_with(&format!(r#","points":"{text}"}}"#)), "{}", json(text));
        }
    }
}
