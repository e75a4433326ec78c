//! What nodes write while they live, read while they do: the agent's journal, and files.

#![allow(
    clippy::disallowed_methods,
    reason = "follows what nodes write with programs of theirs"
)]

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{Sandbox, program};

/// A record of the agent's journal.
#[derive(Debug, Clone)]
pub struct Record {
    /// `FLEET_EVENT`.
    pub event: String,
    /// When it was written, since 1970.
    pub at: Duration,
    /// All of it.
    pub fields: Value,
}

impl Record {
    fn read(line: &str) -> Option<Self> {
        let fields: Value = serde_json::from_str(line).ok()?;
        let micros = fields["__REALTIME_TIMESTAMP"].as_str()?.parse().ok()?;
        Some(Self {
            event: fields["FLEET_EVENT"].as_str()?.to_owned(),
            at: Duration::from_micros(micros),
            fields,
        })
    }

    /// A field, empty if it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.fields[name].as_str().unwrap_or_default()
    }
}

/// The agent's records, oldest first.
#[derive(Debug, Clone)]
pub struct Story(pub Vec<Record>);

impl Story {
    /// From `journalctl -o json`.
    pub fn read(lines: &str) -> Self {
        Self(lines.lines().filter_map(Record::read).collect())
    }

    /// The first record of an event.
    ///
    /// # Errors
    /// With the whole story, if there is none.
    pub fn first(&self, event: &str) -> Result<&Record> {
        let found = self.0.iter().find(|record| record.event == event);
        found.with_context(|| format!("no `{event}` in\n{}", self.text()))
    }

    /// The last record of an event.
    ///
    /// # Errors
    /// With the whole story, if there is none.
    pub fn last(&self, event: &str) -> Result<&Record> {
        let found = self.0.iter().rfind(|record| record.event == event);
        found.with_context(|| format!("no `{event}` in\n{}", self.text()))
    }

    /// How often an event was told.
    pub fn count(&self, event: &str) -> usize {
        self.0.iter().filter(|record| record.event == event).count()
    }

    /// Panics, with the whole story, unless these events were told in this order, whatever else was
    /// told between them.
    #[track_caller]
    pub fn tells(&self, events: &[&str]) {
        let mut records = self.0.iter();
        for event in events {
            assert!(
                records.any(|record| record.event == *event),
                "`{event}` is not in its place of {events:?} in\n{}",
                self.text()
            );
        }
    }

    /// One record a line, for people.
    pub fn text(&self) -> String {
        let line = |record: &Record| {
            let seconds = record.at.as_secs_f64();
            format!(
                "{seconds:.3} {}: {}\n",
                record.event,
                record.field("MESSAGE")
            )
        };
        self.0.iter().map(line).collect()
    }
}

/// What a program in a node prints, also once the node is gone.
#[derive(Debug)]
pub struct Follower {
    child: Child,
    file: PathBuf,
    // Holds the file.
    _directory: tempfile::TempDir,
}

impl Follower {
    /// What it has printed so far.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn text(&self) -> Result<String> {
        let bytes = fs::read(&self.file).context("read what a node has written")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// All that it prints, once it or its node has ended.
    ///
    /// # Errors
    /// As [`Follower::text`].
    pub fn to_end(mut self) -> Result<String> {
        self.child.wait().context("await what follows a node")?;
        self.text()
    }

    /// The same as records of the agent's journal: a node's last words arrive after it is gone.
    ///
    /// # Errors
    /// As [`Follower::text`].
    pub fn whole_story(self) -> Result<Story> {
        Ok(Story::read(&self.to_end()?))
    }

    /// What it has printed so far as records of the agent's journal.
    ///
    /// # Errors
    /// As [`Follower::text`].
    pub fn story(&self) -> Result<Story> {
        Ok(Story::read(&self.text()?))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It ended with its node, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sandbox {
    /// Follows what a shell command in a node prints.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn follow(&self, instance: &str, script: &str) -> Result<Follower> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("out");
        let child = Command::new(program("fleet-sandbox"))
            .args(["exec", "--name", self.name(), instance, "--"])
            .args(["sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(File::create(&file)?)
            .stderr(Stdio::null())
            .spawn()
            .context("follow a node")?;
        Ok(Follower {
            child,
            file,
            _directory: directory,
        })
    }

    /// Follows the agent's journal from its beginning.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn follow_journal(&self, instance: &str) -> Result<Follower> {
        self.follow(
            instance,
            "exec journalctl --unit fleet-agent --output json --follow --no-tail",
        )
    }

    /// The agent's journal as it is; `filter` is further arguments of journalctl.
    ///
    /// # Errors
    /// When the node cannot be asked.
    pub fn journal(&self, instance: &str, filter: &str) -> Result<Story> {
        let read =
            format!("journalctl --sync; journalctl --unit fleet-agent --output json {filter}");
        Ok(Story::read(&self.on(instance, &read)?.out))
    }
}
