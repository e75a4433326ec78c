//! Documentation whose commands the tests run as they stand there.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::release::sources;

/// The shell commands of one section of a page in `docs`, as one script.
///
/// # Errors
/// When there is no such section, or no command in it.
pub fn commands(page: &str, section: &str) -> Result<String> {
    let file = sources().join("docs").join(page);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let title = format!("## {section}\n");
    let (_, from) = text
        .split_once(&title)
        .with_context(|| format!("{page} has no section `{section}`"))?;
    let section_text = from.split("\n## ").next().unwrap_or(from);
    let blocks = section_text.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|block| Some(block.split_once("\n```")?.0));
    let script = blocks.collect::<Vec<_>>().join("\n");
    if script.is_empty() {
        bail!("{page} has no commands in `{section}`");
    }
    Ok(format!("set -eu\n{script}\n"))
}

/// A shell that runs them.
///
/// # Errors
/// When there is no such section, or no command in it.
pub fn shell(page: &str, section: &str) -> Result<Command> {
    let mut shell = Command::new("bash");
    shell.args(["-c", &commands(page, section)?]);
    Ok(shell)
}
