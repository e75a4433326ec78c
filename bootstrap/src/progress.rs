//! What happens while it happens: a live tree for people at a terminal below what is done, timestamped
//! lines for logs.
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
    tree: Mutex<Tree>,
}

/// What is under way.
#[derive(Debug, Default)]
struct Tree {
    done: usize,
    /// Steps in all; 0 where there are none, but waits.
    total: usize,
    /// Titles of the steps that run, in the order in which they began.
    running: Vec<String>,
    /// What each subject said last; a step's title is one.
    live: BTreeMap<String, String>,
}

impl Tree {
    /// `8 of 15 steps` and a branch for each that runs, with what it waits for.
    fn render(&self) -> String {
        let is_running = |subject: &String| self.running.contains(subject);
        let steps = self.running.iter().map(|title| match self.live.get(title) {
            Some(text) => format!("{title}: {text}"),
            None => title.clone(),
        });
        let others = self.live.iter().filter(|(subject, _)| !is_running(subject));
        let others = others.map(|(subject, text)| format!("{subject}: {text}"));
        let branches: Vec<String> = steps.chain(others).collect();
        if self.total == 0 {
            return branches.join("\n    ");
        }
        let mut text = format!("{} of {} steps", self.done, self.total);
        for (index, branch) in branches.iter().enumerate() {
            let is_last = index + 1 == branches.len();
            text += if is_last { "\n    └ " } else { "\n    ├ " };
            text += branch;
        }
        text
    }
}

impl<'a> Progress<'a> {
    pub(crate) fn new(out: &'a Output) -> Self {
        let bar = (out.is_terminal() && !out.is_json()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(FRAME);
            bar
        });
        Self {
            out,
            began: Instant::now(),
            bar,
            tree: Mutex::default(),
        }
    }

    /// So many steps are to come.
    pub(crate) fn begin(&self, steps: usize) {
        self.change(|tree| tree.total = steps);
    }

    /// A step begins.
    pub(crate) fn started(&self, title: &str) {
        self.change(|tree| tree.running.push(title.to_owned()));
    }

    /// A step is done.
    pub(crate) fn done(&self, title: &str) {
        self.change(|tree| {
            tree.done += 1;
            tree.running.retain(|running| running != title);
        });
        self.print("ok", title);
    }

    /// Something is worth knowing.
    pub(crate) fn note(&self, text: &str) {
        self.print("..", text);
    }

    /// How it stands with `subject`; said only when it changes.
    pub(crate) fn live(&self, subject: &str, text: &str) {
        let last = self.change(|tree| tree.live.insert(subject.to_owned(), text.to_owned()));
        if self.bar.is_none() && last.as_deref() != Some(text) {
            self.print("..", &format!("{subject}: {text}"));
        }
    }

    /// Nothing more to say about `subject`.
    pub(crate) fn settled(&self, subject: &str) {
        let _ = self.change(|tree| tree.live.remove(subject));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Tree) -> T) -> T {
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut tree);
        if let Some(bar) = &self.bar {
            bar.set_message(tree.render());
        }
        result
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_branches_with_what_they_wait_for() {
        let mut tree = Tree {
            done: 8,
            total: 15,
            running: vec!["create cluster a".into(), "tag b".into()],
            ..Tree::default()
        };
        let text = |text: &str| text.to_owned();
        tree.live.insert(text("tag b"), text("waits: too fast"));
        tree.live.insert(text("a-web"), text("nodes 0/2 running"));
        assert_eq!(
            tree.render(),
            "8 of 15 steps\n    ├ create cluster a\n    ├ tag b: waits: too fast\n    └ a-web: nodes 0/2 running"
        );
        let waits = Tree {
            live: tree.live,
            ..Tree::default()
        };
        let lines = "a-web: nodes 0/2 running\n    tag b: waits: too fast";
        assert_eq!(waits.render(), lines);
    }
}
