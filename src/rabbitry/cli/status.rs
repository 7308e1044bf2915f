//! `rabbitry status`: queues, dead letters, workers and the broker, once or again and again.

use std::{
    io::{IsTerminal, stdout},
    time::Duration,
};

use clap::Args;
use comfy_table::CellAlignment;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    About, Failure,
    output::{Format, counted, lines_of, print, printable, table},
    seconds,
};
use crate::{
    config::{BrokerArgs, ManagementArgs},
    exit,
    management::{
        Management,
        status::{self, Status, Worker},
    },
    service::to_json,
};

/// How the state is shown.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Show it again and again, every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = period)]
    watch: Option<Duration>,
    #[command(flatten)]
    management: ManagementArgs,
}

fn period(text: &str) -> Result<Duration, String> {
    seconds("period", text)
}

/// Clears the screen and begins at its top.
const CLEAR: &str = "\x1b[2J\x1b[H";
/// Begins at the screen's top and clears what is below, which does not flicker.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Runs `rabbitry status`.
pub(super) async fn run(
    services: &[About],
    broker: &BrokerArgs,
    args: StatusArgs,
    format: Format,
) -> Result<(), Failure> {
    let vhost = broker.broker()?.vhost().to_owned();
    let management = Management::new(&args.management.management(broker)?)?;
    let services: Vec<_> = services.iter().map(|service| (service.name, service.commands)).collect();
    let read = async || status::read(&management, &vhost, &services).await;
    // The first time an error is the answer; later it is a state of the broker like others.
    let status = read().await?;
    let first = shown(&status, format);
    let Some(period) = args.watch else {
        print(&first)?;
        return fail_on(&status.alarms());
    };
    let in_place = stdout().is_terminal() && format == Format::Table;
    print(&format!("{}{first}", if in_place { CLEAR } else { "" }))?;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let frame = match read().await {
            Ok(status) => shown(&status, format),
            Err(error) if format == Format::Json => {
                serde_json::json!({"error": error.to_string()}).to_string()
            }
            Err(error) => error.to_string(),
        };
        print(&format!("{}{frame}", if in_place { REDRAW } else { "" }))?;
    }
}

fn fail_on(alarms: &[String]) -> Result<(), Failure> {
    if alarms.is_empty() { Ok(()) } else { Err(Failure::new(exit::REFUSED, alarms.join("\n"))) }
}

fn shown(status: &Status, format: Format) -> String {
    match format {
        Format::Json => String::from_utf8_lossy(&to_json(status)).into_owned(),
        Format::Table => for_people(status),
    }
}

fn for_people(status: &Status) -> String {
    let broker = &status.broker;
    let node = broker.node.as_deref().map_or_else(String::new, |node| format!(" at {node}"));
    let mut text = format!("RabbitMQ {}{node}, virtual host {:?}\n", broker.version, status.vhost);
    if broker.alarms.is_none() {
        text.push_str("alarms of the broker: this login may not see them (it takes the tag monitoring)\n");
    }
    for alarm in status.alarms() {
        text.push_str(&format!("ALARM: {alarm}\n"));
    }
    if status.blocked_publishers > 0 {
        let blocked =
            counted(u64::try_from(status.blocked_publishers).unwrap_or(u64::MAX), "blocked publisher");
        text.push_str(&format!("{blocked}\n"));
    }
    text.push_str(&format!("\n{}\n\n", lines_of(&queues_table(status))));
    if status.queues.iter().any(|queue| queue.missing) {
        text.push_str("queues are missing: `rabbitry topology apply` creates them\n");
    }
    match status.dead_letters {
        Some(0) => text.push_str("no dead letters\n"),
        Some(count) => {
            let letters = counted(count, "dead letter");
            text.push_str(&format!("{letters}: `rabbitry dead-letters list` shows them\n"))
        }
        None => {}
    }
    text.push_str(&workers_for_people(&status.workers));
    text
}

fn queues_table(status: &Status) -> comfy_table::Table {
    let mut table = table(&["QUEUE", "READY", "UNACKED", "CONSUMERS", "TYPE", "STATE"]);
    for index in 1..=3 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for queue in &status.queues {
        let number = |number: u64| if queue.missing { "-".to_owned() } else { number.to_string() };
        let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.add_row([
            queue.name.clone(),
            number(queue.ready),
            number(queue.unacknowledged),
            number(u64::try_from(queue.consumers).unwrap_or(u64::MAX)),
            known(&queue.kind),
            if queue.missing { "missing".to_owned() } else { known(&queue.state) },
        ]);
    }
    table
}

fn workers_for_people(workers: &[Worker]) -> String {
    if workers.is_empty() {
        return "no workers are seen (the broker's statistics lag up to 5 seconds)".to_owned();
    }
    let mut table = table(&["SERVICE", "WORKER", "STORE", "CONNECTIONS"]);
    for worker in workers {
        let connections = worker.connections.iter().map(|(purpose, state)| format!("{purpose}: {state}"));
        let connections = connections.collect::<Vec<_>>().join(", ");
        let store = worker.store.as_deref().unwrap_or("-");
        table.add_row([
            worker.service.clone(),
            printable(&worker.process),
            printable(store),
            printable(&connections),
        ]);
    }
    lines_of(&table)
}
