//! Which folder of a broker's and a store's whereabouts is believed.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::support::process::{Place, Said, program, run};

fn worker(place: &Place) -> Command {
    program(env!("CARGO_BIN_EXE_users-worker"), place)
}

fn get_ann(place: &Place) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_rabbitry"), place);
    command.args(["users", "get", "ann"]);
    command
}

async fn both(place: &Place, change: impl Fn(&mut Command) -> &mut Command) -> [Said; 2] {
    let (mut cli, mut worker) = (get_ann(place), worker(place));
    change(&mut cli);
    change(&mut worker);
    [run(cli).await, run(worker).await]
}

#[tokio::test]
async fn a_home_that_is_named_and_not_there_is_refused() {
    let place = Place::new();
    let nowhere = place.file("nowhere");
    for said in both(&place, |command| command.env("RABBITRY_HOME", &nowhere)).await {
        let said = said.with_code(78);
        assert!(said.err.contains("RABBITRY_HOME") && said.err.contains("nowhere"), "{}", said.err);
    }
}

#[tokio::test]
async fn a_home_that_others_may_write_is_refused_unless_it_is_named() {
    let place = Place::new();
    let home = place.file(".rabbitry");
    fs::create_dir(&home).unwrap();
    // Nobody listens there, so whoever believes it finds no broker.
    fs::write(home.join("state.env"), "AMQP_URL=amqp://guest:guest@127.0.0.1:1/\n").unwrap();
    for (path, mode, trusted) in [(&home, 0o777, 0o755), (&home.join("state.env"), 0o666, 0o600)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for said in both(&place, |command| command.env_remove("RABBITRY_HOME")).await {
            let said = said.with_code(78);
            assert!(said.err.contains("others than you may write"), "{}", said.err);
        }
        let mut named = get_ann(&place);
        named.env("RABBITRY_HOME", &home);
        run(named).await.with_code(69);
        fs::set_permissions(path, fs::Permissions::from_mode(trusted)).unwrap();
    }
    let mut trusted = get_ann(&place);
    trusted.env_remove("RABBITRY_HOME");
    run(trusted).await.with_code(69);
}

/// With a password that a simple pattern takes apart in the wrong place.
#[tokio::test]
async fn a_status_prints_no_part_of_a_password() {
    let place = Place::new();
    let root = env!("CARGO_MANIFEST_DIR");
    for password in ["zq7w@xjzq", "zq7w/xjzq", "zq7w?xjzq"] {
        let url = format!("ann:{password}@127.0.0.1:1/shop");
        let broker =
            format!("AMQP_URL=amqp://{url}\nAMQP_MANAGEMENT_URL=http://{url}\nBROKER_KIND=external\n");
        fs::write(place.file("state.env"), broker).unwrap();
        fs::write(place.file("store.env"), format!("DATABASE_URL=postgresql://{url}\n")).unwrap();
        for script in ["rabbitmq/broker.sh", "bin/postgres.sh"] {
            let mut command = program(&format!("{root}/{script}"), &place);
            command.arg("status");
            let said = run(command).await;
            assert!(!said.out.is_empty() || !said.err.is_empty(), "{script}");
            let told = format!("{}{}", said.out, said.err);
            assert!(!told.contains("zq7w") && !told.contains("xjzq"), "{script}: {told}");
        }
        let mut command = program(&format!("{root}/rabbitmq/broker.sh"), &place);
        let up = run({
            command.arg("up").env("AMQP_URL", format!("amqp://{url}"));
            command
        })
        .await;
        let told = format!("{}{}", up.out, up.err);
        assert!(up.code != 0 && !told.contains("zq7w") && !told.contains("xjzq"), "{told}");
        for (name, value) in
            [("AMQP_URL", format!("amqp://{url}")), ("AMQP_URL_FILE", format!("amqp://{url}"))]
        {
            let mut command = get_ann(&place);
            command.env(name, value);
            let said = run(command).await;
            assert!(!said.err.contains("zq7w") && !said.err.contains("xjzq"), "{}", said.err);
        }
    }
}
