//! Documentation whose commands the tests run as they stand there.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

/// The shell commands of one section of a page in `docs`, as one script.
///
/// # Errors
/// When there is no such section, or no command in it.
pub fn commands(page: &str, section: &str) -> Result<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(page);
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
