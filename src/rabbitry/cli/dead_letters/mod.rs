//! `rabbitry dead-letters`: look at what was set aside, send it again, drop it.

mod show;

use std::{
    collections::BTreeMap,
    io::{IsTerminal, stdin},
    sync::Arc,
    time::Duration,
};

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{
    About, Failure,
    output::{Format, counted, note, print, print_table, printable, table},
};
use crate::{
    amqp::{
        connection::BrokerUrl,
        dead_letter_queue::{
            DeadLetterError, DeadLetterQueue, Filter, Held, Letter,
            requeue::{Changes, Kept, Publisher, Rules, Sent, requeue},
        },
    },
    clock::unix_ms,
    config::BrokerArgs,
    exit,
    limits::{DEAD_LETTERS_LOOKED_AT, DEAD_LETTERS_LOOKED_AT_MAX},
    service::Code,
    telemetry::report,
};
use show::{detailed, json_of, row, summary};

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// Show them, one a line; they stay where they are
    List(Selection),
    /// Show everything of the letters with an id, also the body
    Show {
        /// The message id, or what `list` shows for a letter without one
        id: String,
        /// How many letters are looked at
        #[arg(long, value_name = "N", default_value_t = DEAD_LETTERS_LOOKED_AT, value_parser = limit())]
        limit: u32,
    },
    /// Send them to their commands again; each is removed only when its copy is safe
    Requeue {
        #[command(flatten)]
        selection: Selection,
        /// All of them, when no filter is given
        #[arg(long)]
        all: bool,
        /// Only tell what would be done
        #[arg(long)]
        dry_run: bool,
        /// Give ids that are too old to be remembered a new one. Their commands may have been executed under the old
        /// one: look at what they change first
        #[arg(long)]
        new_id: bool,
        /// Leave deadlines that have passed out, so that these commands are executed nevertheless
        #[arg(long)]
        drop_deadline: bool,
    },
    /// Remove them for good
    Drop {
        #[command(flatten)]
        selection: Selection,
        /// All of them, when no filter is given
        #[arg(long)]
        all: bool,
        /// Only tell what would be done
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

fn limit() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(DEAD_LETTERS_LOOKED_AT_MAX))
}

fn age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; an age looks like 10min, 2h or 3days"))
}

/// What is said on a terminal when there was nothing to do.
const NONE: &str = "no dead letter matches";

/// Which dead letters are meant.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// Why they died: a problem's code (malformed, invalid, internal, …), or what the broker says (expired, rejected,
    /// `delivery_limit`, maxlen)
    #[arg(long, value_name = "CODE", value_parser = PossibleValuesParser::new(reasons()))]
    reason: Option<String>,
    /// The command they were, for instance users.create
    #[arg(long)]
    command: Option<String>,
    /// Died longer ago than this, for instance 2h or 3days
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
    /// Died less long ago than this, for instance 10min
    #[arg(long, value_name = "AGE", value_parser = age)]
    newer_than: Option<Duration>,
    /// The message id; may be given several times
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// How many letters are looked at, from the oldest on
    #[arg(long, value_name = "N", default_value_t = DEAD_LETTERS_LOOKED_AT, value_parser = limit())]
    limit: u32,
}

/// Why a message can be dead-lettered: the codes of problems, and what the broker calls its own reasons.
fn reasons() -> impl Iterator<Item = &'static str> {
    Code::SHARED.iter().map(|code| code.name).chain(["expired", "rejected", "delivery_limit", "maxlen"])
}

impl Selection {
    /// Whether letters of this service can be meant.
    fn is_about(&self, service: &str) -> bool {
        self.command
            .as_deref()
            .is_none_or(|command| command.split_once('.').is_some_and(|(of, _)| of == service))
    }

    fn filter(&self) -> Filter {
        let command = self.command.as_deref().and_then(|command| command.split_once('.'));
        Filter {
            ids: self.ids.clone(),
            reason: self.reason.clone(),
            command: command.map(|(_, name)| name.to_owned()),
            older_than: self.older_than,
            newer_than: self.newer_than,
        }
    }

    /// The filter of something that changes the queue.
    fn deliberate_filter(&self, all: bool) -> Result<Filter, Failure> {
        let filter = self.filter();
        if filter.is_empty() && !all {
            return Err(Failure::new(
                exit::USAGE,
                "which dead letters? Name them (--id, --reason, --command, --older-than, --newer-than), or say --all",
            ));
        }
        Ok(filter)
    }
}

/// Runs `rabbitry dead-letters`, for one service after another. `patience` is how long the broker may take for each step.
pub(super) async fn run(
    services: &[About],
    broker: &BrokerArgs,
    action: DeadLetters,
    patience: Duration,
    format: Format,
) -> Result<(), Failure> {
    let url = broker.broker()?;
    let mut found = false;
    for about in services.iter().filter(|about| action.is_about(about.name)) {
        found |= Desk { about, url: url.clone(), patience, format }.run(&action).await?;
    }
    let ids = action.ids();
    if found || ids.is_empty() { Ok(()) } else { Err(none_with(ids)) }
}

impl DeadLetters {
    fn is_about(&self, service: &str) -> bool {
        match self {
            Self::List(selection) | Self::Requeue { selection, .. } | Self::Drop { selection, .. } => {
                selection.is_about(service)
            }
            Self::Show { .. } => true,
        }
    }

    /// The ids that are named.
    fn ids(&self) -> &[String] {
        match self {
            Self::List(_) => &[],
            Self::Show { id, .. } => std::slice::from_ref(id),
            Self::Requeue { selection, .. } | Self::Drop { selection, .. } => &selection.ids,
        }
    }
}

/// Where the dead letters of a service are handled, and how it is told.
struct Desk<'a> {
    about: &'a About,
    url: BrokerUrl,
    patience: Duration,
    format: Format,
}

impl Desk<'_> {
    /// Returns whether there was any letter that is meant.
    async fn run(&self, action: &DeadLetters) -> Result<bool, Failure> {
        match action {
            DeadLetters::List(selection) => self.list(selection).await.map(|()| true),
            DeadLetters::Show { id, limit } => self.show(id, *limit).await,
            DeadLetters::Requeue { selection, all, dry_run, new_id, drop_deadline } => {
                let filter = selection.deliberate_filter(*all)?;
                let commands = self.about.commands;
                let rules = Rules { commands, new_id: *new_id, drop_deadline: *drop_deadline };
                if *dry_run {
                    self.requeue_dry(&filter, &rules, selection.limit).await.map(|()| true)
                } else {
                    self.requeue(&filter, &rules, selection.limit).await
                }
            }
            DeadLetters::Drop { selection, all, dry_run, yes } => {
                let filter = selection.deliberate_filter(*all)?;
                self.drop(&filter, selection.limit, *dry_run, *yes).await
            }
        }
    }

    async fn open(&self) -> Result<DeadLetterQueue, Failure> {
        Ok(DeadLetterQueue::open(&self.url, self.about.name, self.patience).await?)
    }

    /// Looks at letters and keeps what `pick` makes of those that are meant, so that no more than that is in memory.
    async fn look<T>(
        &self,
        queue: &mut DeadLetterQueue,
        filter: &Filter,
        limit: u32,
        pick: impl Fn(&Letter) -> T,
    ) -> Result<Vec<T>, Failure> {
        let mut picked = Vec::new();
        self.look_into(queue, filter, limit, |letter| picked.push(pick(letter))).await?;
        Ok(picked)
    }

    async fn look_into(
        &self,
        queue: &mut DeadLetterQueue,
        filter: &Filter,
        limit: u32,
        mut see: impl FnMut(&Letter),
    ) -> Result<(), Failure> {
        while queue.taken() < limit {
            let Some(letter) = queue.next().await? else { break };
            if filter.matches(&letter, unix_ms()) {
                see(&letter);
            }
        }
        if queue.taken() < queue.depth() {
            let (taken, depth) = (queue.taken(), queue.depth());
            note(&format!("looked at {taken} of {depth} dead letters; --limit says how many"));
        }
        Ok(())
    }

    async fn list(&self, selection: &Selection) -> Result<(), Failure> {
        let mut queue = self.open().await?;
        let json = self.format == Format::Json;
        let mut summaries = Vec::new();
        let mut table = table(&["ID", "COMMAND", "REASON", "TIME", "DETAIL"]);
        let see = |letter: &Letter| {
            if json {
                summaries.push(summary(letter));
            } else {
                table.add_row(row(letter));
            }
        };
        let looked = self.look_into(&mut queue, &selection.filter(), selection.limit, see).await;
        let (depth, taken) = (queue.depth(), queue.taken());
        let closed = queue.close().await;
        // What was seen is told even if something went wrong behind it.
        if json {
            print(&json!({"depth": depth, "looked_at": taken, "letters": summaries}).to_string())?;
        } else if !table.is_empty() {
            print_table(&table)?;
        } else if looked.is_ok() {
            print("no dead letters")?;
        }
        looked?;
        Ok(closed?)
    }

    async fn show(&self, id: &str, limit: u32) -> Result<bool, Failure> {
        let mut queue = self.open().await?;
        let filter = Filter { ids: vec![id.to_owned()], ..Filter::default() };
        let format = self.format;
        let pick = |letter: &Letter| match format {
            Format::Json => json_of(letter).to_string(),
            Format::Table => detailed(letter),
        };
        let letters = self.look(&mut queue, &filter, limit, pick).await?;
        queue.close().await?;
        letters.iter().try_for_each(|letter| print(letter))?;
        Ok(!letters.is_empty())
    }

    async fn requeue(&self, filter: &Filter, rules: &Rules, limit: u32) -> Result<bool, Failure> {
        let mut queue = self.open().await?;
        let publisher = Publisher::open(&self.url, self.about.name, self.patience).await?;
        let mut sent = Vec::new();
        let result = requeue(&mut queue, &publisher, rules, filter, limit, &mut sent).await;
        publisher.close().await;
        // What was sent and what was removed is told even if something went wrong in between.
        let closed = queue.close().await;
        self.report(&sent, false)?;
        result.and(closed)?;
        outcome(&sent)
    }

    async fn requeue_dry(&self, filter: &Filter, rules: &Rules, limit: u32) -> Result<(), Failure> {
        let mut queue = self.open().await?;
        let judge = |letter: &Letter| match rules.prepare(letter, unix_ms()) {
            Ok(outgoing) => Sent::new(letter, None, outgoing.changes),
            Err(kept) => Sent::new(letter, Some(kept), Changes::default()),
        };
        let sent = self.look(&mut queue, filter, limit, judge).await?;
        queue.close().await?;
        self.report(&sent, true)
    }

    fn report(&self, sent: &[Sent], dry_run: bool) -> Result<(), Failure> {
        let requeued = sent.iter().filter(|sent| sent.kept.is_none()).count();
        let count = |changed: fn(&Changes) -> bool| sent.iter().filter(|sent| changed(&sent.changes)).count();
        let warn = |count: usize, what: &str| {
            if count > 0 {
                note(&format!("{count} {what}"));
            }
        };
        warn(count(|c| c.without_id), "without a message id: nothing keeps these from being executed twice");
        warn(count(|c| c.reply_to_dropped), "whose caller is gone: nobody gets the reply");
        warn(
            count(|c| c.new_id),
            "with a new id: nothing tells whether they were executed under the old one",
        );
        if self.format == Format::Json {
            let told = json!({"dry_run": dry_run, "requeued": requeued, "kept": sent.len() - requeued, "letters": sent});
            return print(&told.to_string());
        }
        if sent.is_empty() {
            return print(NONE);
        }
        if dry_run {
            let mut table = table(&["COMMAND", "ID", "WOULD BE"]);
            for sent in sent {
                let command = printable(sent.command.as_deref().unwrap_or("-"));
                let would = sent.kept.map_or("requeued".to_owned(), |kept| format!("kept: {}", reason(kept)));
                table.add_row([command, printable(&sent.id), would]);
            }
            return print_table(&table);
        }
        print(&format!("{requeued} requeued, {} kept", sent.len() - requeued))
    }

    async fn drop(&self, filter: &Filter, limit: u32, dry_run: bool, yes: bool) -> Result<bool, Failure> {
        if !dry_run && !yes && !stdin().is_terminal() {
            return Err(Failure::new(exit::USAGE, "dropping takes --yes when nobody can be asked"));
        }
        let mut queue = self.open().await?;
        let pick = |letter: &Letter| (letter.held, letter.id.clone());
        let letters: Vec<(Held, String)> = self.look(&mut queue, filter, limit, pick).await?;
        let ids: Vec<_> = letters.iter().map(|(_, id)| id.as_str()).collect();
        if ids.is_empty() && !filter.ids.is_empty() {
            queue.close().await?;
            return Ok(false);
        }
        let go = !dry_run && (yes || ids.is_empty() || asked(ids.len()).await?);
        if go {
            for (held, _) in &letters {
                queue.remove(*held).await?;
            }
        }
        queue.close().await?;
        let dropped = if go { ids.len() } else { 0 };
        match self.format {
            Format::Json => print(
                &json!({"dry_run": dry_run, "matched": ids.len(), "dropped": dropped, "ids": ids})
                    .to_string(),
            ),
            Format::Table if ids.is_empty() => print(NONE),
            Format::Table if dry_run => print(&format!("{} would be dropped", ids.len())),
            Format::Table => print(&format!("{dropped} dropped")),
        }?;
        Ok(!ids.is_empty())
    }
}

/// Asks a person. Meanwhile the letters are held.
async fn asked(count: usize) -> Result<bool, Failure> {
    let letters = counted(count as u64, "dead letter");
    report(format_args!("drop {letters} for good? [y/N]"));
    let mut answer = String::new();
    BufReader::new(tokio::io::stdin())
        .read_line(&mut answer)
        .await
        .map_err(|error| Failure::new(exit::USAGE, format!("cannot read standard input: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn none_with(ids: &[String]) -> Failure {
    Failure::new(
        exit::REFUSED,
        format!("no dead letter has the id {}; `rabbitry dead-letters list` shows them", ids.join(" or ")),
    )
}

/// Success if every letter that is meant was requeued; whether there was any.
fn outcome(sent: &[Sent]) -> Result<bool, Failure> {
    let mut kept: BTreeMap<&str, (usize, Kept)> = BTreeMap::new();
    for why in sent.iter().filter_map(|sent| sent.kept) {
        kept.entry(reason(why)).or_insert((0, why)).0 += 1;
    }
    let lines: Vec<_> = kept.iter().map(|(reason, (count, _))| format!("  {count} kept: {reason}")).collect();
    // The worst reason decides: what trying again can mend comes last.
    let code = |why: Kept| match why {
        Kept::Unroutable => exit::UNAVAILABLE,
        Kept::Refused => exit::TRY_AGAIN,
        Kept::UnknownOrigin | Kept::IdExpired | Kept::DeadlinePassed => exit::REFUSED,
    };
    match kept.values().map(|(_, why)| code(*why)).min() {
        None => Ok(!sent.is_empty()),
        Some(code) => Err(Failure::new(code, format!("not everything was requeued:\n{}", lines.join("\n")))),
    }
}

fn reason(kept: Kept) -> &'static str {
    match kept {
        Kept::UnknownOrigin => "not from the queue of a command (`rabbitry dead-letters show` tells more)",
        Kept::IdExpired => {
            "the id is older than replies are remembered, and the command may have been executed; look at what it changed, then --new-id"
        }
        Kept::DeadlinePassed => "the deadline has passed; --drop-deadline executes it nevertheless",
        Kept::Unroutable => "the command has no queue; `rabbitry topology apply` creates it",
        Kept::Refused => "the broker does not take it, the command's queue is full; try again later",
    }
}

impl From<DeadLetterError> for Failure {
    fn from(error: DeadLetterError) -> Self {
        let code = match &error {
            DeadLetterError::Connect(error) => return Arc::clone(error).into(),
            DeadLetterError::Missing(_) | DeadLetterError::Lost(_) => exit::UNAVAILABLE,
            DeadLetterError::NotPermitted(_) => exit::NOT_PERMITTED,
            DeadLetterError::Unreadable { .. } => exit::INTERNAL,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(kept: Option<Kept>) -> Sent {
        Sent { id: "m".to_owned(), command: None, kept, changes: Changes::default() }
    }

    #[test]
    fn the_exit_code_tells_whether_everything_was_requeued() {
        let code = |sent: &[Sent]| outcome(sent).map_err(|failure| failure.code);
        assert_eq!(code(&[]), Ok(false));
        assert_eq!(code(&[sent(None)]), Ok(true));
        assert_eq!(code(&[sent(None), sent(Some(Kept::IdExpired))]), Err(exit::REFUSED));
        assert_eq!(code(&[sent(Some(Kept::Refused))]), Err(exit::TRY_AGAIN));
        assert_eq!(code(&[sent(Some(Kept::Unroutable))]), Err(exit::UNAVAILABLE));
    }
}
