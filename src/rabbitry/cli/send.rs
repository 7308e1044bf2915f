//! Sending commands: one, or one a line from standard input.

use std::{
    future::pending,
    io::{BufReader, stdin},
    num::NonZeroUsize,
};

use clap::Args;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    Failure, Producer,
    lines::Lines,
    output::{Format, asked_for, for_people, note, print, print_answer},
};
use crate::{
    amqp::{
        client::{Answer, CallError, Command, ProblemAnswer, new_id},
        queue,
    },
    exit,
    limits::{ARRAY_BYTES_MAX, SHORT_STRING_MAX},
};

/// How a command is sent.
#[derive(Debug, Clone, Args)]
pub(super) struct Sending {
    /// The idempotency key: the same id is executed once, and always gets the same reply; commands without an effect are
    /// read afresh [default: a fresh UUIDv7]
    #[arg(long, value_name = "ID", value_parser = message_id)]
    message_id: Option<String>,
    /// Return when the broker has the command safe; do not wait for a reply
    #[arg(long)]
    no_wait: bool,
    /// Tell the message id, and whether the reply is a repeated one
    #[arg(long, short)]
    verbose: bool,
}

fn message_id(text: &str) -> Result<String, String> {
    match text.len() {
        1..=SHORT_STRING_MAX => Ok(text.to_owned()),
        length => Err(format!("a message id has 1 to {SHORT_STRING_MAX} bytes, this one has {length}")),
    }
}

/// A command as JSON.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// The service and the command, for instance users.create
    pub(super) command: String,
    /// The payload: an object, or an array of them; `-` reads one a line from standard input
    #[arg(value_name = "JSON")]
    payload: String,
    /// With `-`: how many commands are under way at a time
    #[arg(long, default_value = "64", value_name = "N")]
    in_flight: NonZeroUsize,
    #[command(flatten)]
    sending: Sending,
}

fn message(name: &str, body: Vec<u8>, sending: &Sending) -> Command {
    let message_id = sending.message_id.clone().unwrap_or_else(new_id);
    Command { name: name.to_owned(), body, message_id }
}

/// Sends what `rabbitry send` was given.
pub(super) async fn run(producer: Producer<'_>, args: SendArgs, format: Format) -> Result<(), Failure> {
    let name = args.command.split_once('.').map_or("", |(_, name)| name).to_owned();
    if args.payload != "-" {
        return run_one(producer, &name, args.payload.into(), args.sending, format).await;
    }
    if args.sending.message_id.is_some() {
        return Err(Failure::new(exit::USAGE, "--message-id names one command, `-` reads many"));
    }
    run_lines(producer, &name, &args).await
}

/// Sends one command and prints its answer.
pub(super) async fn run_one(
    producer: Producer<'_>,
    name: &str,
    payload: Vec<u8>,
    sending: Sending,
    format: Format,
) -> Result<(), Failure> {
    let command = message(name, payload, &sending);
    if sending.verbose {
        asked_for("message_id", &command.message_id);
    }
    let result = if sending.no_wait {
        producer.client.send(&command, producer.timeout).await.map(|()| None)
    } else {
        tokio::select! {
            answer = producer.client.call(&command, producer.timeout) => answer.map(Some),
            error = tell_if_nobody_consumes(&producer, &command.name) => Err(error),
        }
    };
    let answer = result.map_err(|error| producer.failure(&error, &command))?;
    producer.client.close().await;
    let Some(answer) = answer else {
        return print(&json!({"message_id": command.message_id, "confirmed": true}).to_string());
    };
    if sending.verbose && answer.replayed {
        asked_for("replayed", "this reply was given before and is repeated");
    }
    match answer.problem() {
        None => print_answer(producer.about, format, &answer.body),
        Some(problem) => Err(refusal(&answer, &problem)),
    }
}

fn refusal(answer: &Answer, problem: &ProblemAnswer) -> Failure {
    let failure = Failure::of_problem(answer.status, problem);
    Failure { problem: serde_json::from_slice(&answer.body).ok(), ..failure }
}

/// Says at once why it may take long; ends only with an error that no waiting can mend.
async fn tell_if_nobody_consumes(producer: &Producer<'_>, command: &str) -> CallError {
    match warn_if_nobody_consumes(producer, command).await {
        Ok(()) => pending().await,
        Err(error) => error,
    }
}

/// Says why it may take long.
///
/// # Errors
/// What no waiting can mend.
pub(super) async fn warn_if_nobody_consumes(producer: &Producer<'_>, command: &str) -> Result<(), CallError> {
    if producer.client.consumers(command).await? == Some(0) {
        note(&format!(
            "no worker is consuming {}; waiting {} for one: start a {}-worker",
            queue(producer.about.name, command),
            for_people(producer.timeout),
            producer.about.name
        ));
    }
    Ok(())
}

/// Sends one command a line, many at a time; prints an answer a line, in the order of the input.
async fn run_lines(producer: Producer<'_>, name: &str, args: &SendArgs) -> Result<(), Failure> {
    if !args.sending.no_wait {
        let checked = warn_if_nobody_consumes(&producer, name).await;
        checked.map_err(|error| Failure::of_call(&error, None))?;
    }
    let lines = read_lines(name.to_owned());
    let answers = stream::unfold(lines, async |mut lines| Some((lines.recv().await?, lines)))
        .map(|line| async {
            let command = message(name, line?, &args.sending);
            if args.sending.no_wait {
                let sent = producer.client.send(&command, producer.timeout).await;
                return sent
                    .map(|()| (200, json!({"message_id": command.message_id, "confirmed": true}).to_string()))
                    .map_err(|error| producer.failure(&error, &command));
            }
            let answer = producer.client.call(&command, producer.timeout).await;
            answer
                .map(|answer| (answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
                .map_err(|error| producer.failure(&error, &command))
        })
        .buffered(args.in_flight.get());
    let mut answers = std::pin::pin!(answers);
    let (mut refused, mut last_failure) = (0, None);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok((status, body)) => {
                refused += usize::from(status >= 400);
                print(&body)?;
            }
            Err(failure) => {
                print(&json!({"error": failure.message}).to_string())?;
                last_failure = Some(failure);
            }
        }
    }
    match last_failure {
        Some(failure) => Err(failure),
        None if refused > 0 => Err(Failure::new(
            exit::REFUSED,
            format!(
                "{} refused",
                if refused == 1 { "1 command was".to_owned() } else { format!("{refused} commands were") }
            ),
        )),
        None => Ok(()),
    }
}

/// Reads standard input on a thread of its own. What is too long is not kept; what is no JSON, or no text at all, is told
/// by the worker, as to every producer.
fn read_lines(command: String) -> mpsc::Receiver<Result<Vec<u8>, Failure>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let mut lines = Lines::new(BufReader::new(stdin()), ARRAY_BYTES_MAX);
        loop {
            let (line, is_last) = match lines.next() {
                Ok(None) => return,
                Ok(Some(line)) if line.text.len() > ARRAY_BYTES_MAX => {
                    (Err(Failure::of_call(&CallError::TooLarge(command.clone()), None)), false)
                }
                Ok(Some(line)) => (Ok(line.text.to_vec()), false),
                Err(error) => {
                    (Err(Failure::new(exit::USAGE, format!("cannot read standard input: {error}"))), true)
                }
            };
            // Nobody listens any more when the program ends early.
            if sender.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}
