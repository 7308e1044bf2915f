//! Rules that hold for every source file. A rule is a function over text, tried on a planted violation beside the
//! test that holds it against the sources.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The longest function, counted from its first line to its last.
const FUNCTION_LINES_MAX: usize = 70;

/// A source file.
pub(super) struct Source {
    /// Its path from the root, with slashes.
    pub(super) path: String,
    pub(super) text: String,
}

/// A file of the repository.
pub(super) fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The Rust files under folders or files of the repository.
pub(super) fn sources(under: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for start in under {
        let before = found.len();
        collect(&root(start), &mut found);
        assert!(found.len() > before, "nothing is at {start}, so that its rule could not fail");
    }
    found
}

fn collect(path: &Path, found: &mut Vec<Source>) {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| collect(entry, found));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let name = path.strip_prefix(root("")).unwrap().to_str().unwrap().to_owned();
        found.push(Source { path: name, text: fs::read_to_string(path).unwrap() });
    }
}

/// Lines with their numbers, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//")).map(|(number, line)| {
        // Only with the spaces, as a URL holds two slashes too.
        (number, line.split(" // ").next().unwrap())
    })
}

fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(is_part_of_word) && !line[start + word.len()..].starts_with(is_part_of_word)
    })
}

/// Asserts that no file breaks a rule.
fn assert_none(what: &str, files: &[Source], rule: impl Fn(&Source) -> Vec<String>) {
    let broken: Vec<_> = files
        .iter()
        .flat_map(|source| rule(source).into_iter().map(|found| format!("{}:{found}", source.path)))
        .collect();
    assert!(broken.is_empty(), "{what}\n{}", broken.join("\n"));
}

#[test]
fn functions_are_short() {
    assert_none("too long:", &sources(&["src", "bin", "tests"]), |source| long_functions(&source.text));
}

/// Functions of formatted code: from `fn` to the brace on the same column.
fn long_functions(text: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let body = line.trim_start();
        let is_function =
            has_word(body, "fn") && !body.starts_with("//") && !body.ends_with(';') && !body.ends_with('}');
        if !is_function {
            continue;
        }
        // A method of a trait may end without a body.
        let signature_end = lines[first..].iter().find(|line| line.ends_with(['{', ';']));
        if signature_end.is_none_or(|line| line.ends_with(';')) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - body.len()]);
        let length = lines[first..].iter().position(|line| *line == end).map_or(0, |last| last + 1);
        if length > FUNCTION_LINES_MAX {
            found.push(format!("{}: {length} lines", first + 1));
        }
    }
    found
}

#[test]
fn nothing_is_left_to_do_or_left_out() {
    assert_none("not allowed:", &sources(&["src", "bin", "tests"]), |source| forbidden(&source.text));
}

/// What stands for work that is not done, for a test that is not run, and for a guess at how long something takes.
fn forbidden(text: &str) -> Vec<String> {
    // Cut in two, so that this file holds none of them.
    let words =
        [["to", "do!"], ["unimplem", "ented!"], ["db", "g!"], ["#[ig", "nore"], ["thread::sl", "eep"]];
    let words = words.map(|halves| halves.concat());
    let mut found = Vec::new();
    for (number, line) in code(text) {
        for word in words.iter().filter(|word| line.contains(word.as_str())) {
            found.push(format!("{number}: {word}"));
        }
    }
    found
}

mod the_rules_can_fail {
    use super::*;

    #[test]
    fn long_functions_are_found_and_short_ones_are_not() {
        let function = |lines: usize| {
            format!("impl A {{\n    async fn a() {{\n{}    }}\n}}\n", "        b();\n".repeat(lines - 2))
        };
        assert_eq!(long_functions(&function(FUNCTION_LINES_MAX)), [""; 0]);
        assert_eq!(long_functions(&function(FUNCTION_LINES_MAX + 1)), ["2: 71 lines"]);
        let declared = format!("trait A {{\n    fn a(\n        b: B,\n    ) -> C;\n{}}}\n", "\n".repeat(80));
        assert_eq!(long_functions(&declared), [""; 0]);
    }

    #[test]
    fn forbidden_words_are_found() {
        let text = ["let a = to", "do!();\n#[ig", "nore = \"later\"]\nstd::thread::sl", "eep(a);\n"].concat();
        assert_eq!(forbidden(&text).len(), 3);
    }

    #[test]
    #[should_panic(expected = "src/a.rs:1: db")]
    fn a_broken_rule_names_the_file_and_the_line() {
        let files = [Source { path: "src/a.rs".to_owned(), text: ["db", "g!(1)"].concat() }];
        assert_none("what:", &files, |source| forbidden(&source.text));
    }

    #[test]
    #[should_panic(expected = "nothing is at src/gone")]
    fn a_rule_over_nothing_fails() {
        sources(&["src/gone"]);
    }
}
