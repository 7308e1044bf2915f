//! The header of a CSV file: which column holds what.

use super::{
    csv_row::split,
    target::{Field, Target},
};
use crate::service::{Code, Problem, to_json};

/// Where the columns stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    names: Vec<String>,
    /// Of each field of the command the column, if there is one.
    places: Vec<Option<usize>>,
}

/// What a row says of each field of the command, as text; nothing where it does not say anything.
pub(super) type Fields = Vec<Option<String>>;

impl Columns {
    /// Reads the header line.
    ///
    /// # Errors
    /// What to change about it.
    pub(super) fn read(target: &Target, header: &[u8]) -> Result<Self, String> {
        if header.starts_with(b"{") {
            return Err("the first line is JSON and no header; add --format ndjson".to_owned());
        }
        let text = str::from_utf8(header).map_err(|_| "the header is not UTF-8 text".to_owned())?;
        let names = split(text).map_err(|problem| format!("the header: {}", problem.detail))?;
        let known =
            |name: &String| target.fields.iter().any(|field| field.name == *name) || target.ignores(name);
        for (index, name) in names.iter().enumerate() {
            if !known(name) {
                return Err(format!("the header names a column {name:?}; {}", columns_of(target)));
            }
            if names[..index].contains(name) {
                return Err(format!("the header names the column {name:?} twice"));
            }
        }
        let place = |field: &Field| match names.iter().position(|name| *name == field.name) {
            None if field.is_required => {
                Err(format!("the header names no {:?}; {}", field.name, columns_of(target)))
            }
            place => Ok(place),
        };
        Ok(Self { places: target.fields.iter().map(place).collect::<Result<_, _>>()?, names })
    }

    /// The columns that are there and not read.
    pub(super) fn ignored(&self) -> Vec<&str> {
        let is_read = |index: &usize| self.places.contains(&Some(*index));
        let ignored = self.names.iter().enumerate().filter(|(index, _)| !is_read(index));
        ignored.map(|(_, name)| name.as_str()).collect()
    }

    /// Takes a row apart: what of it could be read, and whether it is a row as it should be.
    ///
    /// # Errors
    /// `malformed`.
    pub(super) fn fields(&self, row: &str) -> (Fields, Result<(), Problem>) {
        let mut found = match split(row) {
            Ok(found) => found,
            Err(problem) => return (vec![None; self.places.len()], Err(problem)),
        };
        let count = found.len();
        let mut take = |place: &Option<usize>| found.get_mut((*place)?).map(std::mem::take);
        let fields = self.places.iter().map(&mut take).collect();
        if count == self.names.len() {
            return (fields, Ok(()));
        }
        let detail = format!("the row has {count} columns, the header has {}", self.names.len());
        (fields, Err(Problem::new(Code::MALFORMED, detail)))
    }
}

fn columns_of(target: &Target) -> String {
    let name = |field: &Field| match field.is_required {
        true => field.name.clone(),
        false => format!("{} (if there is one)", field.name),
    };
    let names: Vec<_> = target.fields.iter().map(name).collect();
    format!("the columns are {}, with commas between them", names.join(", "))
}

/// The JSON that another producer would have sent for these fields; it is then read, and refused, in the same
/// words.
pub(super) fn object(target: &Target, fields: &Fields) -> Vec<u8> {
    let mut json = vec![b'{'];
    for (field, text) in target.fields.iter().zip(fields) {
        // An empty column says nothing of a field that may be missing.
        let Some(text) = text.as_ref().filter(|text| field.is_required || !text.is_empty()) else { continue };
        if json.len() > 1 {
            json.push(b',');
        }
        json.extend(to_json(&field.name));
        json.push(b':');
        if !field.is_text && is_literal(text) {
            json.extend_from_slice(text.as_bytes());
        } else {
            json.extend(to_json(text));
        }
    }
    json.push(b'}');
    json
}

/// Whether a text is a number or a truth value as JSON writes it.
fn is_literal(text: &str) -> bool {
    let begins =
        text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) || ["true", "false"].contains(&text);
    begins && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok_and(|raw| raw.get() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::About, toy::Toys};

    fn target() -> Target {
        Target::new(&[About::of::<Toys>()], "toys.make", None).unwrap()
    }

    fn columns(header: &[u8]) -> Result<Columns, String> {
        Columns::read(&target(), header)
    }

    fn texts(fields: &Fields) -> Vec<Option<&str>> {
        fields.iter().map(Option::as_deref).collect()
    }

    #[test]
    fn columns_stand_in_any_order() {
        let mixed = columns(b"count,state,label,name").unwrap();
        assert_eq!(mixed.ignored(), ["state"]);
        let fields = mixed.fields("7,In,ann@example.com,ann").0;
        assert_eq!(texts(&fields), [Some("ann"), Some("ann@example.com"), Some("7")]);
        let fields = columns(b"name,label").unwrap().fields("ann,ann@example.com").0;
        assert_eq!(texts(&fields)[2], None);
    }

    #[test]
    fn a_header_is_refused_with_what_to_change() {
        let cases: [(&[u8], &str); 10] = [
            (b"name,label,age", "a column \"age\""),
            (b"name,label,", "a column \"\""),
            (b"Name,label", "a column \"Name\""),
            (b"name;label", "with commas between them"),
            (b"name,count", "names no \"label\""),
            (b"label", "names no \"name\""),
            (b"name,label,label", "\"label\" twice"),
            (b"name,\"label", "not closed"),
            (b"name,em\xFFail", "not UTF-8"),
            (b"{\"name\":\"ann\"}", "--format ndjson"),
        ];
        for (header, part) in cases {
            let error = columns(header).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_row_with_another_number_of_columns_is_malformed_and_tells_what_it_holds() {
        let columns = columns(b"name,label,count").unwrap();
        for (row, count) in [("ann", 1), ("ann,x", 2), ("ann,x,1,2", 4)] {
            let (fields, read) = columns.fields(row);
            let problem = read.unwrap_err();
            assert_eq!(problem.code, Code::MALFORMED);
            assert_eq!(problem.detail, format!("the row has {count} columns, the header has 3"));
            assert_eq!(texts(&fields)[0], Some("ann"));
        }
    }

    #[test]
    fn what_is_no_number_is_sent_as_text_to_be_refused() {
        let json = |count: &str| {
            let fields = ["a\"b", "e", count].map(|text| Some(text.to_owned())).to_vec();
            String::from_utf8(object(&target(), &fields)).unwrap()
        };
        assert_eq!(json(""), r#"{"name":"a\"b","label":"e"}"#);
        for number in ["7", "-7", "1.5", "1e3", "99999999999999999999", "true"] {
            assert_eq!(json(number), format!(r#"{{"name":"a\"b","label":"e","count":{number}}}"#));
        }
        for text in ["x", "01", "+7", " 7", "7 ", "0x7", "NaN", "null", "7,5", "[7]"] {
            assert!(json(text).ends_with(&format!(r#","count":"{text}"}}"#)), "{}", json(text));
        }
    }
}
