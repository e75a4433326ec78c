//! Files that are either the old or the new, never half of one.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result};

/// Replaces `path`, readable by its owner alone, and makes it last over a power cut.
///
/// # Errors
/// Naming the file; the old one then stands unchanged.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, content).with_context(|| format!("write {}", path.display()))
}

fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().context("it has no directory")?;
    fs::create_dir_all(directory)?;
    let mut name = path.file_name().context("it has no name")?.to_owned();
    name.push(".new");
    let temporary = directory.join(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()?;
    Ok(())
}
