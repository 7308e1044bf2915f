//! What the README says of limits, codes, flags, tests and files is so.

use std::{collections::BTreeSet, env, fs, iter::Peekable, process::Command, slice};

use rabbitry::service::Code;
use serde_json::Value;
use users::commands::REFUSALS;

use crate::{
    support::users::COMMANDS,
    tidy::{Source, root, sources},
};

fn readme() -> String {
    fs::read_to_string(root("README.md")).unwrap()
}

/// The cells of the table row whose first cell is this word.
fn row<'a>(readme: &'a str, first: &str) -> Option<Vec<&'a str>> {
    let first = format!("`{first}`");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split(" | ").map(str::trim).collect::<Vec<_>>()).find(|cells| cells[0] == first)
}

#[test]
fn every_limit_is_in_the_readme_with_its_value() {
    let limits =
        ["src/rabbitry/limits.rs", "src/users/limits.rs"].map(|file| fs::read_to_string(root(file)).unwrap());
    let wrong = wrong_limits(&readme(), &limits.concat());
    assert!(wrong.is_empty(), "the README's table of limits lacks:\n{}", wrong.join("\n"));
}

/// The rows that the table lacks.
fn wrong_limits(readme: &str, limits: &str) -> Vec<String> {
    let constants: Vec<_> = limits.lines().filter_map(|line| line.strip_prefix("pub const ")).collect();
    assert!(!constants.is_empty(), "no constants, so that this could not fail");
    let rows = constants.into_iter().map(|constant| {
        let (name, rest) = constant.split_once(':').unwrap();
        let (_, expression) = rest.split_once(" = ").unwrap();
        (name, value(expression.strip_suffix(';').unwrap()))
    });
    let is_there = |name: &str, value: &str| {
        row(readme, name).is_some_and(|cells| {
            let rest = cells[1].strip_prefix(value);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit() || c == ','))
        })
    };
    rows.filter(|(name, value)| !is_there(name, value))
        .map(|(name, value)| format!("| `{name}` | {value} …"))
        .collect()
}

/// A constant's value as people write it: `64 * 1024` is `65,536`, `Duration::from_secs(10)` is `10 s`.
fn value(expression: &str) -> String {
    let of = |prefix| expression.strip_prefix(prefix).and_then(|rest: &str| rest.strip_suffix(')'));
    let (expression, unit) = match (of("Duration::from_secs("), of("Duration::from_millis(")) {
        (Some(seconds), _) => (seconds, " s"),
        (_, Some(milliseconds)) => (milliseconds, " ms"),
        _ => (expression, ""),
    };
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('_', "");
    let tokens: Vec<_> = spaced.split_whitespace().collect();
    let mut text = number(&mut tokens.iter().peekable()).to_string();
    for end in (1..text.len()).rev().filter(|at| (text.len() - at).is_multiple_of(3)).collect::<Vec<_>>() {
        text.insert(end, ',');
    }
    text + unit
}

/// From left to right, as far as the constants go.
fn number(tokens: &mut Peekable<slice::Iter<'_, &str>>) -> u64 {
    let operand = |tokens: &mut Peekable<slice::Iter<'_, &str>>| match *tokens.next().unwrap() {
        "(" => number(tokens),
        token => token.parse().unwrap_or_else(|_| panic!("not a number: {token}")),
    };
    let mut left = operand(tokens);
    while let Some(operator) = tokens.next().filter(|token| **token != ")") {
        let right = operand(tokens);
        left = match *operator {
            "*" => left * right,
            "-" => left - right,
            "<<" => left << right,
            other => panic!("no operator of limits: {other}"),
        };
    }
    left
}

#[test]
fn every_code_is_in_the_readme_with_its_status() {
    let wrong = wrong_codes(&readme(), Code::SHARED.iter().chain(&REFUSALS));
    assert!(wrong.is_empty(), "the README's table of codes lacks:\n{}", wrong.join("\n"));
}

fn wrong_codes<'a>(readme: &str, codes: impl Iterator<Item = &'a Code>) -> Vec<String> {
    let expected = codes.map(|code| {
        let retryable = if code.retryable { "yes" } else { "no" };
        (code.name, [code.status.to_string(), retryable.to_owned()])
    });
    let is_there = |name: &str, cells: &[String; 2]| {
        row(readme, name).is_some_and(|row| row.len() > 3 && row[1..3] == cells[..])
    };
    expected
        .filter(|(name, cells)| !is_there(name, cells))
        .map(|(name, cells)| format!("| `{name}` | {} | …", cells.join(" | ")))
        .collect()
}

#[test]
fn every_command_is_in_the_readme() {
    let readme = readme();
    let missing: Vec<_> =
        COMMANDS.iter().map(|command| command.name).filter(|name| row(&readme, name).is_none()).collect();
    assert!(missing.is_empty(), "the README's table of commands lacks: {}", missing.join(" "));
}

#[test]
fn every_flag_and_variable_is_in_the_readme() {
    let mut helps = Vec::new();
    for program in [env!("CARGO_BIN_EXE_rabbitry"), env!("CARGO_BIN_EXE_users-worker")] {
        collect_help(program, &mut Vec::new(), &mut helps);
    }
    assert!(helps.len() > 5, "the help of the commands was not found");
    let wanted: BTreeSet<_> = helps.iter().flat_map(|help| named_in(help)).collect();
    assert!(wanted.contains("--amqp-url") && wanted.contains("AMQP_URL"), "{wanted:?}");
    let missing = missing_words(&readme(), wanted);
    assert!(missing.is_empty(), "the README does not name: {}", missing.join(" "));
}

/// The help of a program and of its commands.
fn collect_help(program: &str, command: &mut Vec<String>, helps: &mut Vec<String>) {
    let output = Command::new(program).args(&*command).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for name in commands_in(&help) {
        command.push(name);
        collect_help(program, command, helps);
        command.pop();
    }
    helps.push(help);
}

fn commands_in(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        // A description that goes on stands further to the right.
        line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next()
    });
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The long flags that a help begins a line with, and the variables in brackets.
fn named_in(help: &str) -> Vec<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags = lines.filter_map(|line| line.split([' ', ',', '=', '[']).find(|word| word.starts_with("--")));
    let flags = flags.filter(|flag| !["--help", "--version"].contains(flag)).map(str::to_owned);
    let variables = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    flags.chain(variables.map(|name| name.trim().to_owned())).collect()
}

/// The words that the README does not show as code.
fn missing_words(readme: &str, words: impl IntoIterator<Item = String>) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let shown: BTreeSet<_> = readme.split(|c: char| !is_part(c)).collect();
    words.into_iter().filter(|word| !shown.contains(word.as_str())).collect()
}

#[test]
fn tests_that_the_readme_names_exist() {
    let listed =
        Command::new(env::current_exe().unwrap()).args(["--list", "--format", "terse"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let here: BTreeSet<_> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let units = sources(&["src"]);
    let readme = readme();
    let named = named_tests(&readme);
    assert!(named.len() > 10, "the README names tests as `module::test`");
    let gone: Vec<_> =
        named.into_iter().filter(|name| !here.contains(name) && !is_unit_test(name, &units)).collect();
    assert!(gone.is_empty(), "the README names tests that do not exist:\n{}", gone.join("\n"));
}

/// What stands in backticks and looks like a test's path.
fn named_tests(readme: &str) -> Vec<&str> {
    let is_path = |text: &&str| {
        text.contains("::")
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':')
    };
    prose(readme).into_iter().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(is_path).collect()
}

/// The lines outside of blocks of code.
fn prose(readme: &str) -> Vec<&str> {
    let mut outside = true;
    let mut lines = Vec::new();
    for line in readme.lines() {
        if line.trim_start().starts_with("```") {
            outside = !outside;
        } else if outside {
            lines.push(line);
        }
    }
    lines
}

/// Whether a file of this module holds a test of this name.
fn is_unit_test(name: &str, files: &[Source]) -> bool {
    let (module, test) = name.rsplit_once("::").unwrap();
    let Some(module) = module.strip_suffix("::tests") else { return false };
    let module = module.replace("::", "/");
    let ends = ["", "/mod", "/tests"].iter();
    let paths: Vec<_> = ends
        .flat_map(|end| ["rabbitry", "users"].map(|package| format!("src/{package}/{module}{end}.rs")))
        .collect();
    let function = format!("fn {test}(");
    files.iter().filter(|source| paths.contains(&source.path)).any(|source| {
        let lines: Vec<_> = source.text.lines().collect();
        let is_test = |line: &str| line.trim().starts_with("#[") && line.contains("test");
        lines.windows(2).any(|pair| is_test(pair[0]) && pair[1].contains(&function))
    })
}

#[test]
fn the_examples_of_json_are_json() {
    let readme = readme();
    let examples = blocks(&readme, "json");
    assert!(!examples.is_empty());
    for example in examples {
        for value in serde_json::Deserializer::from_str(&example).into_iter::<Value>() {
            value.unwrap_or_else(|error| panic!("{error} in:\n{example}"));
        }
    }
}

/// The blocks of code of a language.
fn blocks(readme: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let blocks = readme.split(&begin).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_file_tree_leads_to_every_file() {
    let files = sources(&["src", "bin", "tests"]);
    let paths: Vec<_> = files.iter().map(|source| source.path.as_str()).collect();
    let lost = not_in_tree(&readme(), &paths);
    assert!(
        lost.is_empty(),
        "the README's file tree has no line for, or for the folder of:\n{}",
        lost.join("\n")
    );
}

#[test]
fn the_file_tree_names_nothing_that_is_not_there() {
    let readme = readme();
    let gone: Vec<_> = tree(&readme).into_iter().filter(|path| !root(path).exists()).collect();
    assert!(gone.is_empty(), "the README's file tree names what is not there:\n{}", gone.join("\n"));
}

/// The first words of the block that is marked `tree`.
fn tree(readme: &str) -> Vec<&str> {
    let begin = "```tree\n";
    let start = readme.find(begin).expect("a block that is marked `tree`") + begin.len();
    let lines = readme[start..].lines().take_while(|line| !line.starts_with("```"));
    lines.filter_map(|line| line.split_whitespace().next()).collect()
}

/// The files that have no line, and whose folders have none but the topmost.
fn not_in_tree<'a>(readme: &str, paths: &[&'a str]) -> Vec<&'a str> {
    let tree: BTreeSet<_> = tree(readme).into_iter().collect();
    let is_there = |path: &str| {
        let folders = path.match_indices('/').skip(1).map(|(end, _)| &path[..=end]);
        tree.contains(path) || folders.into_iter().any(|folder| tree.contains(folder))
    };
    paths.iter().copied().filter(|path| !is_there(path)).collect()
}

mod the_rules_can_fail {
    use super::*;

    #[test]
    fn a_limit_that_is_missing_or_wrong_is_told() {
        let limits = "/// How large.\npub const A: usize = 64 * 1024;\npub const B: Duration = Duration::from_secs(20 * 60);\n";
        let readme = "| `A` | 65,536 bytes | x |\n| `B` | 1,200 s | x |\n";
        assert_eq!(wrong_limits(readme, limits), [""; 0]);
        for (text, by) in [("65,536", "65,535"), ("65,536", "65,5360"), ("`A`", "`AA`"), ("| `B`", "`B`")] {
            assert_eq!(wrong_limits(&readme.replace(text, by), limits).len(), 1, "{text} → {by}");
        }
        assert_eq!(value("(1 << 53) - 1"), "9,007,199,254,740,991");
        assert_eq!(value("1_000"), "1,000");
        assert_eq!(value("999"), "999");
    }

    #[test]
    fn a_code_that_is_missing_or_wrong_is_told() {
        let readme = "| `malformed` | 400 | no | not JSON | mend it |\n";
        assert_eq!(wrong_codes(readme, [Code::MALFORMED].iter()), [""; 0]);
        for (text, by) in [("400", "401"), ("| no", "| yes"), ("malformed", "broken")] {
            assert_eq!(wrong_codes(&readme.replace(text, by), [Code::MALFORMED].iter()).len(), 1, "{text}");
        }
    }

    #[test]
    fn flags_and_variables_are_found_in_a_help() {
        let help = "Commands:\n  one  First,\n         and more\n  help  Print\n\nOptions:\n  -j, --json\n          As JSON --piped\n      --url <URL>\n          [env: A_URL=]\n          [env: B_URL]\n  -h, --help\n";
        assert_eq!(commands_in(help), ["one"]);
        assert_eq!(named_in(help), ["--json", "--url", "A_URL", "B_URL"]);
        assert_eq!(missing_words("`--json` `--url-file` A_URL", named_in(help)), ["--url", "B_URL"]);
    }

    #[test]
    fn tests_are_found_by_their_module() {
        let readme = "`a::b::tests::it_works` and `Code::SHARED`\n```\n`a::not_this`\n```\n";
        assert_eq!(named_tests(readme), ["a::b::tests::it_works"]);
        let text = "#[test]\nfn it_works() {}\nfn helper() {}\n";
        let files = [Source { path: "src/users/a/b.rs".to_owned(), text: text.to_owned() }];
        assert!(is_unit_test("a::b::tests::it_works", &files));
        for gone in ["a::b::tests::it_worked", "a::b::tests::helper", "a::tests::it_works", "a::b::it_works"]
        {
            assert!(!is_unit_test(gone, &files), "{gone}");
        }
    }

    #[test]
    fn files_without_a_line_are_told() {
        let readme =
            "```tree\nsrc/            code\nsrc/lib.rs      x\n  src/amqp/     y\n```\nsrc/main.rs\n";
        let paths = ["src/lib.rs", "src/amqp/server/lane.rs", "src/main.rs", "src/users/model.rs"];
        assert_eq!(not_in_tree(readme, &paths), ["src/main.rs", "src/users/model.rs"]);
        assert_eq!(tree(readme), ["src/", "src/lib.rs", "src/amqp/"]);
    }
}
