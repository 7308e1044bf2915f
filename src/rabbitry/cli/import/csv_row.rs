//! A line of CSV. Stricter than the csv crate, which takes `"ann"x` for `annx`, and for which a quote left open takes
//! the rest of the file along: here a row is a line, as nothing valid contains a line break, so that a mistake spoils
//! its own row and no other.

use crate::service::{Code, Problem};

/// Cuts a line into its fields.
///
/// # Errors
/// `malformed`, if a quote is where none can be.
pub(super) fn split(line: &str) -> Result<Vec<String>, Problem> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted),
            None => plain_field(rest),
        }
        .map_err(|what| Problem::new(Code::MALFORMED, format!("column {}: {what}", fields.len() + 1)))?;
        fields.push(field);
        match after {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// A field, and what stands behind the comma that ends it.
type Cut<'a> = Result<(String, Option<&'a str>), &'static str>;

fn plain_field(text: &str) -> Cut<'_> {
    let (field, after) = match text.split_once(',') {
        Some((field, after)) => (field, Some(after)),
        None => (text, None),
    };
    if field.contains('"') {
        return Err("a quote stands within a field; put the field in quotes, and double the quote");
    }
    Ok((field.to_owned(), after))
}

fn quoted_field(text: &str) -> Cut<'_> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            return Err("a quote is opened and not closed on the same line");
        };
        field.push_str(part);
        if let Some(more) = after.strip_prefix('"') {
            field.push('"');
            rest = more;
        } else if let Some(next) = after.strip_prefix(',') {
            return Ok((field, Some(next)));
        } else if after.is_empty() {
            return Ok((field, None));
        } else {
            return Err("text follows a closing quote");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_plain_or_in_quotes() {
        let cases: &[(&str, &[&str])] = &[
            ("ann", &["ann"]),
            ("ann,ann@example.com,5", &["ann", "ann@example.com", "5"]),
            (",,", &["", "", ""]),
            (r#""ann","a,b","#, &["ann", "a,b", ""]),
            (r#""a""b","""""#, &["a\"b", "\""]),
            (r#""""#, &[""]),
            (" ann , x", &[" ann ", " x"]),
            ("ann;x", &["ann;x"]),
        ];
        for (line, fields) in cases {
            assert_eq!(split(line).unwrap(), *fields, "{line}");
        }
    }

    #[test]
    fn a_quote_where_none_can_be_is_malformed() {
        let cases = [
            (r#""ann"#, "column 1: a quote is opened"),
            (r#"ann,"x"#, "column 2: a quote is opened"),
            (r#"ann,""""#, "column 2: a quote is opened"),
            (r#""ann"x,y"#, "column 1: text follows"),
            (r#""ann" ,y"#, "column 1: text follows"),
            (r#"a"nn,y"#, "column 1: a quote stands within"),
            (r#"ann, "y""#, "column 2: a quote stands within"),
        ];
        for (line, detail) in cases {
            let problem = split(line).unwrap_err();
            assert_eq!(problem.code, Code::MALFORMED);
            assert!(problem.detail.starts_with(detail), "{line}: {}", problem.detail);
        }
    }

    proptest! {
        #[test]
        fn what_the_csv_crate_writes_is_read_as_it_was(fields in prop::collection::vec("[^\r\n]{0,12}", 2..6)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&fields).unwrap();
            let line = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            prop_assert_eq!(split(line.trim_end_matches('\n')).unwrap(), fields);
        }
    }
}
