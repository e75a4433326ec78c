//! Native journal records, behind a bounded queue and a thread of its own: journald's socket
//! blocks for ever once a hung journald's queue is full. What does not fit is counted and
//! reported, and the agent goes on.

use std::{
    fmt::Write as _,
    io::Write as _,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use log::{Level, LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::JournalLog;

use super::event::Entry;

/// Records that may wait for journald: a burst, not an outage.
const QUEUE: usize = 256;
/// How long the end of the process waits for the last records.
const FLUSH: Duration = Duration::from_millis(500);
const IDENTIFIER: &str = "fleet-agent";

static QUEUED: OnceLock<Queue> = OnceLock::new();

/// Writes an event.
pub(crate) fn write(entry: &Entry) {
    let fields = entry.fields();
    log::logger().log(
        &Record::builder()
            .level(entry.level())
            .target(IDENTIFIER)
            .args(format_args!("{}", entry.text()))
            .key_values(&Fields(&fields))
            .build(),
    );
}

/// Makes the journal the process's log, or stderr where there is no journald.
///
/// # Errors
/// If the process has a logger already, or no thread can be started.
pub(crate) fn install() -> Result<()> {
    let output: Box<dyn Output> = match JournalLog::new() {
        Ok(journal) => Box::new(journal.with_syslog_identifier(IDENTIFIER.to_owned())),
        Err(_) => Box::new(Stderr),
    };
    let queue = QUEUED.get_or_init(|| Queue::new(output).0);
    log::set_logger(queue).context("another logger is installed")?;
    // Libraries speak up at warn; their chatter is of no use to operators.
    log::set_max_level(LevelFilter::Info);
    Ok(())
}

/// Waits, within bounds, until what was written has reached journald.
pub(crate) fn flush() {
    log::logger().flush();
}

struct Fields<'a>(&'a [(&'static str, String)]);

impl log::kv::Source for Fields<'_> {
    fn visit<'kvs>(
        &'kvs self,
        visitor: &mut dyn log::kv::VisitSource<'kvs>,
    ) -> Result<(), log::kv::Error> {
        self.0
            .iter()
            .try_for_each(|(name, value)| visitor.visit_pair((*name).into(), value.as_str().into()))
    }
}

/// A record that outlives its call.
#[derive(Debug)]
struct Owned {
    level: Level,
    target: String,
    text: String,
    fields: Vec<(String, String)>,
}

impl Owned {
    fn of(record: &Record<'_>) -> Self {
        let mut collect = Collect(Vec::new());
        // The visitor below never fails.
        let _ = record.key_values().visit(&mut collect);
        Self {
            level: record.level(),
            target: record.target().to_owned(),
            text: record.args().to_string(),
            fields: collect.0,
        }
    }
}

struct Collect(Vec<(String, String)>);

impl<'kvs> log::kv::VisitSource<'kvs> for Collect {
    fn visit_pair(
        &mut self,
        key: log::kv::Key<'kvs>,
        value: log::kv::Value<'kvs>,
    ) -> Result<(), log::kv::Error> {
        self.0.push((key.to_string(), value.to_string()));
        Ok(())
    }
}

enum Message {
    Record(Owned),
    Flush(SyncSender<()>),
}

struct Queue {
    sender: SyncSender<Message>,
    lost: std::sync::Arc<AtomicU64>,
}

impl Queue {
    fn new(output: Box<dyn Output>) -> (Self, Option<std::thread::JoinHandle<()>>) {
        let (sender, receiver) = sync_channel(QUEUE);
        let lost = std::sync::Arc::new(AtomicU64::new(0));
        let counter = lost.clone();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || deliver(&receiver, output.as_ref(), &counter))
            .ok();
        (Self { sender, lost }, thread)
    }
}

impl Log for Queue {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == IDENTIFIER || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata())
            && self
                .sender
                .try_send(Message::Record(Owned::of(record)))
                .is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        let (done, waiter) = sync_channel(1);
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            // A hung journald is not waited for.
            let _ = waiter.recv_timeout(FLUSH);
        }
    }
}

fn deliver(receiver: &Receiver<Message>, output: &dyn Output, lost: &AtomicU64) {
    for message in receiver {
        match message {
            Message::Record(owned) => output.put(&owned),
            Message::Flush(done) => {
                let _ = done.send(());
            }
        }
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            let entry = Entry::RecordsLost { count };
            output.put(&Owned {
                level: entry.level(),
                target: IDENTIFIER.to_owned(),
                text: entry.text(),
                fields: entry
                    .fields()
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            });
        }
    }
}

trait Output: Send {
    fn put(&self, record: &Owned);
}

impl Output for JournalLog {
    fn put(&self, record: &Owned) {
        let text = format_args!("{}", record.text);
        // A record that journald does not take cannot be reported to journald.
        let _ = self.journal_send(
            &Record::builder()
                .level(record.level)
                .target(&record.target)
                .args(text)
                .key_values(&record.fields)
                .build(),
        );
    }
}

/// `<priority>text KEY=value`: what systemd reads from a service's stderr.
struct Stderr;

impl Output for Stderr {
    fn put(&self, record: &Owned) {
        // Nobody is left to tell.
        let _ = writeln!(std::io::stderr().lock(), "{}", line(record));
    }
}

fn line(record: &Owned) -> String {
    let priority = match record.level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 5,
        Level::Debug => 6,
        Level::Trace => 7,
    };
    let mut line = format!("<{priority}>{}", record.text);
    for (name, value) in &record.fields {
        if name != "MESSAGE_ID" {
            let _ = write!(line, " {name}={value}");
        }
    }
    line.replace('\n', ", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// Takes a record only when the test lets it.
    struct Gate {
        open: Receiver<()>,
        taken: Sender<String>,
    }

    impl Output for Gate {
        fn put(&self, record: &Owned) {
            if self.open.recv().is_ok() {
                let _ = self.taken.send(record.text.clone());
            }
        }
    }

    fn record(queue: &Queue, text: &str) {
        queue.log(
            &Record::builder()
                .level(Level::Info)
                .target(IDENTIFIER)
                .args(format_args!("{text}"))
                .build(),
        );
    }

    #[test]
    fn a_hung_journald_costs_records_and_never_the_agent() {
        let (opener, open) = channel();
        let (taken, records) = channel();
        let (queue, thread) = Queue::new(Box::new(Gate { open, taken }));
        for number in 0..QUEUE + 10 {
            record(&queue, &number.to_string());
        }
        let lost = queue.lost.load(Ordering::Relaxed);
        assert!((9..=10).contains(&lost), "{lost}");
        for _ in 0..=QUEUE + 10 {
            opener.send(()).expect("thread lives");
        }
        drop(queue);
        drop(opener);
        thread.expect("started").join().expect("ends");
        let told: Vec<String> = records.iter().collect();
        assert!(
            told.iter().any(|text| text.contains("lost: journald")),
            "{told:?}"
        );
    }

    #[test]
    fn stderr_lines_carry_priority_and_fields() {
        let record = Owned {
            level: Level::Warn,
            target: IDENTIFIER.into(),
            text: "a\nb".into(),
            fields: vec![
                ("MESSAGE_ID".into(), "x".into()),
                ("FLEET_TASKS".into(), "3".into()),
            ],
        };
        assert_eq!(line(&record), "<4>a, b FLEET_TASKS=3");
    }
}
