//! What happens while it happens: one live line for people at a terminal, timestamped lines for
//! logs.
#![allow(
    clippy::disallowed_methods,
    reason = "shows how long things take: needs the clock"
)]

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Output;

/// Between two frames of the spinner.
const FRAME: Duration = Duration::from_millis(120);

/// The story of one command.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    out: &'a Output,
    began: Instant,
    bar: Option<ProgressBar>,
    /// What each subject said last.
    live: Mutex<BTreeMap<String, String>>,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(out: &'a Output) -> Self {
        let bar = (out.is_terminal() && !out.is_json()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(FRAME);
            bar
        });
        Self {
            out,
            began: Instant::now(),
            bar,
            live: Mutex::default(),
        }
    }

    /// Something is done.
    pub(crate) fn done(&self, text: &str) {
        self.print("ok", text);
    }

    /// Something is worth knowing.
    pub(crate) fn note(&self, text: &str) {
        self.print("..", text);
    }

    /// How it stands with `subject`; said only when it changes.
    pub(crate) fn live(&self, subject: &str, text: &str) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.get(subject).is_some_and(|last| last == text) {
            return;
        }
        live.insert(subject.to_owned(), text.to_owned());
        if let Some(bar) = &self.bar {
            let all: Vec<String> = live.iter().map(|(s, t)| format!("{s}: {t}")).collect();
            bar.set_message(all.join("   "));
        } else {
            drop(live);
            self.print("..", &format!("{subject}: {text}"));
        }
    }

    /// Nothing more to say about `subject`.
    pub(crate) fn settled(&self, subject: &str) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.remove(subject);
        if let Some(bar) = &self.bar {
            let all: Vec<String> = live.iter().map(|(s, t)| format!("{s}: {t}")).collect();
            bar.set_message(all.join("   "));
        }
    }

    fn print(&self, mark: &str, text: &str) {
        let line = format!(
            "[{:>6.1}s] {mark}  {text}",
            self.began.elapsed().as_secs_f32()
        );
        let print = || {
            if self.out.is_json() {
                self.out.note(&line);
            } else {
                self.out.line(&line);
            }
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
