//! What `RABBITRY_FAILPOINTS` says.
//!
//! ```text
//! MOMENT=ACTION[@WHEN][ on TEXT][; …]
//!
//! ACTION  kill | stop | panic | error | sleep(MS)      SIGKILL and SIGSTOP to the worker itself
//! WHEN    7    the seventh passing of this process     without it: each passing
//!         5%   five of a hundred passings, by chance
//! TEXT    only batches with a message whose id or body holds this; only these passings are counted
//!
//! after_commit=kill@17
//! before_ack=sleep(200)@5%; mid_batch=kill on poison-1
//! ```

use std::time::Duration;

use super::names::{MOMENTS, Moment};

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spec {
    pub(super) moment: Moment,
    pub(super) action: Action,
    pub(super) when: When,
    pub(super) on: Option<String>,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Kill,
    Stop,
    Panic,
    Error,
    Sleep(Duration),
}

/// At which passing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum When {
    Always,
    /// Counted from 1.
    Nth(u64),
    /// From 0 to 1.
    Chance(f64),
}

/// Reads the variable.
///
/// # Errors
/// What is wrong with which entry.
pub(super) fn parse(text: &str) -> Result<Vec<Spec>, String> {
    let entries = text.split(';').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| one(entry).map_err(|what| format!("{entry:?}: {what}"))).collect()
}

fn one(entry: &str) -> Result<Spec, String> {
    let (name, rest) = entry.split_once('=').ok_or("it looks like after_commit=kill@17")?;
    let moment = Moment::named(name.trim())
        .ok_or_else(|| format!("there is no moment {name:?}, but {}", MOMENTS.join(", ")))?;
    let (what, on) = match rest.split_once(" on ") {
        Some((what, text)) => (what, Some(text.trim().to_owned())),
        None => (rest, None),
    };
    let (act, at) = match what.split_once('@') {
        Some((act, at)) => (act, Some(at.trim())),
        None => (what, None),
    };
    let spec = Spec { moment, action: action(act.trim())?, when: when(at)?, on };
    if spec.action == Action::Error && !can_fail(moment) {
        return Err(format!("{name} cannot return an error"));
    }
    if spec.on.is_some() && !has_messages(moment) {
        return Err(format!("no message is in hand at {name}"));
    }
    Ok(spec)
}

/// Whether the place can return an error.
fn can_fail(moment: Moment) -> bool {
    !matches!(moment, Moment::MidBatch | Moment::AfterSetAside)
}

/// Whether messages are in hand.
fn has_messages(moment: Moment) -> bool {
    !matches!(moment, Moment::BeforeCheckpoint | Moment::InMigration)
}

fn action(text: &str) -> Result<Action, String> {
    let milliseconds = |text: &str| text.strip_prefix("sleep(")?.strip_suffix(')')?.parse().ok();
    match text {
        "kill" => Ok(Action::Kill),
        "stop" => Ok(Action::Stop),
        "panic" => Ok(Action::Panic),
        "error" => Ok(Action::Error),
        other => milliseconds(other).map(Duration::from_millis).map(Action::Sleep).ok_or_else(|| {
            format!("there is no action {other:?}, but kill, stop, panic, error, sleep(MILLISECONDS)")
        }),
    }
}

fn when(text: Option<&str>) -> Result<When, String> {
    let Some(text) = text else { return Ok(When::Always) };
    let read = match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
            percent.map(|percent: f64| When::Chance(percent / 100.0))
        }
        None => text.parse().ok().filter(|nth| *nth > 0).map(When::Nth),
    };
    read.ok_or_else(|| format!("{text:?} is no passing; it looks like @17 or @5%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read() {
        let expected =
            |moment, action, when, on: Option<&str>| Spec { moment, action, when, on: on.map(str::to_owned) };
        let text = "after_commit=kill@17; before_ack = sleep(200)@2.5% ;mid_batch=panic@1 on a, or b;in_migration=error;";
        let wanted = [
            expected(Moment::AfterCommit, Action::Kill, When::Nth(17), None),
            expected(Moment::BeforeAck, Action::Sleep(Duration::from_millis(200)), When::Chance(0.025), None),
            expected(Moment::MidBatch, Action::Panic, When::Nth(1), Some("a, or b")),
            expected(Moment::InMigration, Action::Error, When::Always, None),
        ];
        assert_eq!(parse(text).unwrap(), wanted);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn a_mistake_is_told_with_its_entry() {
        for (text, told) in [
            ("after_commit", "it looks like"),
            ("after_comit=kill", "there is no moment \"after_comit\", but mid_batch, before_commit"),
            ("after_commit=explode", "there is no action \"explode\""),
            ("after_commit=sleep", "there is no action \"sleep\""),
            ("after_commit=sleep(1s)", "there is no action \"sleep(1s)\""),
            ("after_commit=kill@0", "\"0\" is no passing"),
            ("after_commit=kill@101%", "\"101%\" is no passing"),
            ("mid_batch=error", "mid_batch cannot return an error"),
            ("in_migration=kill on ann", "no message is in hand at in_migration"),
        ] {
            let error = parse(&format!("before_ack=stop;{text}")).unwrap_err();
            assert!(error.contains(told) && error.starts_with(&format!("{text:?}: ")), "{text}: {error}");
        }
    }
}
