//! What the Makefile and its scripts tell a person.

use std::process::{Command, Output};

use crate::support::process::{Place, program, run};

fn make(place: &Place, arguments: &[&str]) -> Command {
    let mut command = program("make", place);
    command.arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments);
    command
}

#[tokio::test]
async fn programs_are_looked_for_where_cargo_puts_them() {
    let place = Place::new();
    let mut command = make(&place, &["-n", "build", "topology"]);
    command.env("CARGO_TARGET_DIR", "/elsewhere/target");
    let said = run(command).await.with_code(0);
    assert!(said.out.contains("/elsewhere/target/release/rabbitry topology apply"), "{}", said.out);
    let said = run(make(&place, &["-n", "topology"])).await.with_code(0);
    assert!(said.out.contains("/target/release/rabbitry topology apply"), "{}", said.out);
}

#[test]
fn without_a_rust_that_is_new_enough_it_is_said_which_one_is_needed() {
    let needed =
        include_str!("../../Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = "));
    let needed = needed.unwrap().trim_matches('"');
    let folder = tempfile::tempdir().unwrap();
    let with = |programs: &[(&str, &str)]| -> Output {
        for (name, text) in programs {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            assert!(Command::new("chmod").arg("+x").arg(&path).status().unwrap().success());
        }
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bin/rust.sh")).env("PATH", path).output().unwrap()
    };
    let output = with(&[("cargo", "exit 1"), ("rustc", "echo rustc 1.63.0 '(4b91a6ea7 2022-08-08)'")]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{told}");
    for part in [needed, "1.63.0", "rustup"] {
        assert!(told.contains(part), "{told}");
    }
    let output = with(&[("rustc", &format!("echo rustc {needed}.0 '(x)'"))]);
    assert!(output.status.success(), "{output:?}");
}
