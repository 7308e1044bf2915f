//! A file with every kind of bad row mixed in, and what has to become of it.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};

use super::stage::{Users, refused};

/// A user that somebody else has made before the import.
pub const OTHER: &str = "somebody-else";

/// A bad row, its code, and a part of the reason.
type Bad = (Vec<u8>, &'static str, &'static str);

#[derive(Default)]
pub struct Mixed {
    pub file: Vec<u8>,
    /// What there has to be, beside what somebody else has made.
    pub users: Users,
    refused: Vec<(u64, &'static str, &'static str)>,
    rows: usize,
    lines: u64,
}

impl Mixed {
    /// A file of so many rows; one in seven is bad.
    pub fn of(rows: usize) -> Self {
        let mut mixed = Self::default();
        mixed.line(b"email,points,username");
        let mut kinds = 0;
        for row in 0..rows {
            if row % 7 == 6 {
                mixed.bad(row, kinds);
                kinds += 1;
            } else {
                mixed.good(row);
            }
            if row % 11 == 0 {
                mixed.line(b"");
            }
        }
        assert!(kinds >= kinds_of_bad_rows(0).len(), "every kind is there");
        mixed
    }

    fn good(&mut self, row: usize) {
        let (name, email) = (format!("user-{row}"), format!("user-{row}@example.com"));
        let row = i64::try_from(row).unwrap();
        let (text, points) = match row % 4 {
            0 => (format!("{email},{row},{name}"), row),
            1 => (format!("\"{email}\",\"{row}\",\"{name}\""), row),
            2 => (format!("{email},,{name}\r"), 0),
            _ => (format!("{email},9007199254740991,{name}"), 9_007_199_254_740_991),
        };
        self.line(text.as_bytes());
        self.users.insert(name, (email, points, "Bronze".to_owned()));
        self.rows += 1;
    }

    fn bad(&mut self, row: usize, count: usize) {
        let kinds = kinds_of_bad_rows(row);
        let (text, code, detail) = &kinds[count % kinds.len()];
        self.line(text);
        self.refused.push((self.lines, code, detail));
        self.rows += 1;
    }

    fn line(&mut self, text: &[u8]) {
        self.file.extend_from_slice(text);
        self.file.push(b'\n');
        self.lines += 1;
    }

    /// What the summary says, however often the import was run.
    pub fn summary(&self, repeated: usize, refused_file: &Path) -> Value {
        let mut codes: BTreeMap<_, u64> = BTreeMap::new();
        for (_, code, _) in &self.refused {
            *codes.entry(*code).or_default() += 1;
        }
        json!({
            "rows": self.rows, "done": self.users.len(), "repeated": repeated,
            "refused": codes, "refused_file": refused_file, "complete": true,
        })
    }

    /// How many rows are sent; the others are refused before.
    pub fn sent(&self) -> usize {
        self.users.len() + self.refused.iter().filter(|(_, code, _)| *code == "user_exists").count()
    }

    /// Asserts that these rows were refused, for these reasons, and no others.
    pub fn assert_refused(&self, path: &Path) {
        let found = refused(path);
        let short: Vec<_> = found.iter().map(|(line, code, _)| (*line, code.as_str())).collect();
        let expected: Vec<_> = self.refused.iter().map(|(line, code, _)| (*line, *code)).collect();
        assert_eq!(short, expected);
        for ((line, _, detail), (_, _, part)) in found.iter().zip(&self.refused) {
            assert!(detail.contains(part), "line {line}: {detail:?} does not say {part:?}");
        }
    }

    pub fn write(&self, path: &Path) {
        fs::write(path, &self.file).unwrap();
    }
}

fn kinds_of_bad_rows(row: usize) -> Vec<Bad> {
    let mut kinds = bad_usernames(row);
    kinds.extend(bad_emails(row));
    kinds.extend(bad_points(row));
    kinds.extend(no_rows(row));
    kinds
}

fn bad_usernames(row: usize) -> Vec<Bad> {
    let rule = "username: a username has 1 to 64 characters";
    let long = "x".repeat(65);
    let bad = ["", ".ann", "-ann", "a b", " ann", "änn", "a\0b", "a\rb", &long];
    let mut kinds: Vec<Bad> =
        bad.iter().map(|name| (format!("a@b.c,1,{name}").into_bytes(), "invalid", rule)).collect();
    // The first row of a username counts, be it near, far away, or somebody else's.
    for name in [format!("user-{}", row.saturating_sub(1)), "user-0".to_owned(), OTHER.to_owned()] {
        kinds.push((format!("late@b.c,1,{name}").into_bytes(), "user_exists", "already"));
    }
    kinds
}

fn bad_emails(row: usize) -> Vec<Bad> {
    let long = format!("{}@example.com", "x".repeat(300));
    let bad = [
        ("", "email: "),
        ("nobody", "email: not an e-mail address"),
        ("@example.com", "email: not an e-mail address"),
        ("a@b@c", "email: not an e-mail address"),
        ("Ann <ann@example.com>", "email: not an e-mail address"),
        (&long, "email: an e-mail address has at most 254 bytes"),
    ];
    bad.iter().map(|(email, part)| (format!("{email},1,bad-{row}").into_bytes(), "invalid", *part)).collect()
}

fn bad_points(row: usize) -> Vec<Bad> {
    let bad = [
        "-1",
        "1.5",
        "1.0",
        "1e3",
        "9007199254740992",
        "9223372036854775808",
        "99999999999999999999",
        "many",
        " 1",
        "+1",
        "01",
        "0x1",
        "NaN",
        "true",
        "null",
        "1;5",
        "\"1,5\"",
    ];
    bad.iter()
        .map(|points| (format!("a@b.c,{points},bad-{row}").into_bytes(), "invalid", "points: "))
        .collect()
}

/// What cannot be read as a row.
fn no_rows(row: usize) -> Vec<Bad> {
    let invalid_text = [format!("a@b.c,1,bad-{row}").as_bytes(), b"\xFF\xFE"].concat();
    let texts = [
        (format!("bad-{row}"), "1 columns"),
        (format!("a@b.c,bad-{row}"), "2 columns"),
        (format!("a@b.c,1,bad-{row},Gold"), "4 columns"),
        (format!("\"a@b.c,1,bad-{row}"), "not closed"),
        (format!("a@b.c,1,\"bad-{row}"), "not closed"),
        (format!("\"a\"@b.c,1,bad-{row}"), "follows a closing quote"),
        (format!("a\"@b.c,1,bad-{row}"), "within a field"),
    ];
    let mut kinds: Vec<Bad> =
        texts.into_iter().map(|(text, part)| (text.into_bytes(), "malformed", part)).collect();
    kinds.push((invalid_text, "malformed", "not UTF-8"));
    let long = format!("a@b.c,1,{}", "x".repeat(100_000));
    kinds.push((long.into_bytes(), "invalid", "more than 65536 bytes"));
    kinds
}
