//! Programs of the system that are run to their end, within a time.
#![allow(clippy::disallowed_methods, reason = "the edge that runs programs")]

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// What it printed.
///
/// # Errors
/// Naming the program and what it was told, if it cannot be run, takes too long or fails.
pub(super) async fn run(program: &str, arguments: &[&str], limit: Duration) -> Result<String> {
    let name = || format!("{program} {}", arguments.join(" "));
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(limit, child)
        .await
        .with_context(|| format!("{}: no answer within {} s", name(), limit.as_secs()))?
        .with_context(name)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}: {}", name(), output.status, text.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
