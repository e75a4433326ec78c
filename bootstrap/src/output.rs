//! The only place that prints: results to standard output, everything about them to standard error.
//! With `--json` standard output carries JSON and nothing else.

use std::{
    fmt::Display,
    io::{self, BufRead, IsTerminal, Write},
    sync::{Mutex, PoisonError},
};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use tabled::{builder::Builder, settings::Padding};

/// Where commands say what they found and did. Colours are dropped where no terminal reads them.
#[derive(Debug)]
pub struct Output {
    json: bool,
    /// The first failed write to standard output; [`Output::finish`] reports it.
    failed: Mutex<Option<io::Error>>,
}

impl Output {
    /// `json` is the user's `--json`.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            failed: Mutex::new(None),
        }
    }

    /// Whether the user asked for JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person watches what is printed as it appears.
    #[allow(
        clippy::unused_self,
        reason = "callers ask their output, not the process"
    )]
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal() && io::stderr().is_terminal()
    }

    /// A line of the result for people; nothing with `--json`.
    pub fn line(&self, text: impl Display) {
        if !self.json {
            self.print(&text.to_string());
        }
    }

    /// Makes room for the next screen, where a person watches one.
    pub fn clear(&self) {
        if self.is_terminal() && !self.json {
            // Erase the display, and the cursor home (ECMA-48, ED and CUP).
            self.print("\x1b[2J\x1b[H");
        }
    }

    /// The result for programs; nothing without `--json`.
    pub fn json(&self, value: &impl Serialize) {
        if !self.json {
            return;
        }
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.print(&text),
            Err(error) => self.remember(error.into()),
        }
    }

    /// A line about what happens, to standard error in both modes.
    #[allow(clippy::unused_self, reason = "one object speaks for the command")]
    pub fn note(&self, text: impl Display) {
        // With standard error gone there is nobody left to tell.
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }

    /// Columns of equal width, two spaces apart, without borders. Cells may be coloured.
    #[allow(clippy::unused_self, reason = "one object speaks for the command")]
    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> String {
        let header: Vec<String> = header.iter().map(dim).collect();
        let mut table = Builder::from_iter(std::iter::once(header).chain(rows)).build();
        table
            .with(tabled::settings::Style::empty())
            .with(Padding::new(0, 2, 0, 0));
        let lines: Vec<String> = table
            .to_string()
            .lines()
            .map(|l| l.trim_end().to_owned())
            .collect();
        lines.join("\n")
    }

    /// Asks until a line is typed; true when it is `expected`.
    ///
    /// # Errors
    /// When standard input is not a terminal, where nobody could answer.
    pub fn confirm(&self, question: impl Display, expected: &str) -> io::Result<bool> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Err(io::Error::other(
                "standard input is not a terminal, so nobody can confirm: pass --yes",
            ));
        }
        let mut prompt = anstream::stderr().lock();
        write!(prompt, "{question} ")?;
        prompt.flush()?;
        is_confirmed(input.lock(), expected)
    }

    /// Reports a result that did not get out. A reader that closed its end early, such as `head`,
    /// wanted no more.
    ///
    /// # Errors
    /// The first failed write to standard output, such as a full disk.
    pub fn finish(&self) -> io::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match failed.take() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            Some(_) | None => Ok(()),
        }
    }

    fn print(&self, text: &str) {
        let mut stdout = anstream::stdout().lock();
        if let Err(error) = writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            self.remember(error);
        }
    }

    fn remember(&self, error: io::Error) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert(error);
    }
}

/// Something that went as it should, or is to be created.
pub fn green(text: impl Display) -> String {
    styled(AnsiColor::Green.on_default(), text)
}

/// Something wrong, or to be deleted.
pub fn red(text: impl Display) -> String {
    styled(AnsiColor::Red.on_default(), text)
}

/// Something to look at, or to be changed.
pub fn yellow(text: impl Display) -> String {
    styled(AnsiColor::Yellow.on_default(), text)
}

/// Something that matters less.
pub fn dim(text: impl Display) -> String {
    styled(Style::new().dimmed(), text)
}

fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

fn is_confirmed(mut input: impl BufRead, expected: &str) -> io::Result<bool> {
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(answer.trim() == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_whatever_its_colours() {
        let out = Output::new(false);
        let rows = vec![
            vec!["web".to_owned(), green("ok"), "2".to_owned()],
            vec!["batch-large".to_owned(), red("impaired"), "10".to_owned()],
        ];
        let table = out.table(&["group", "health", "nodes"], rows);
        assert_eq!(
            anstream::adapter::strip_str(&table).to_string(),
            "group        health    nodes\n\
             web          ok        2\n\
             batch-large  impaired  10"
        );
    }

    #[test]
    fn only_the_expected_word_confirms() {
        for (typed, confirmed) in [
            ("dev\n", true),
            (" dev ", true),
            ("yes\n", false),
            ("", false),
        ] {
            assert_eq!(
                is_confirmed(typed.as_bytes(), "dev").expect("reads"),
                confirmed
            );
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is() {
        let out = Output::new(false);
        out.remember(io::ErrorKind::BrokenPipe.into());
        assert!(out.finish().is_ok());
        out.remember(io::ErrorKind::StorageFull.into());
        assert!(out.finish().is_err());
    }
}
