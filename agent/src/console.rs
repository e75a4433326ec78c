//! What is told where an operator without access to the node can read it: in the console's output.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context as _, Result};

/// Never waits: a console that nobody reads must not hold up a node.
///
/// # Errors
/// Naming the console.
pub(crate) fn say(console: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .append(true)
        .custom_flags(nix::fcntl::OFlag::O_NOCTTY.bits() | nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(console)
        .and_then(|mut console| writeln!(console, "fleet-agent: {text}\r"))
        .with_context(|| format!("write to {}", console.display()))
}
