//! Releases to install: the agent as it ships, and one that says another version of itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{program, run, target};

/// The version of this workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A release of this version of the agent, beside its sum, where nodes of a sandbox download files. It
/// differs from the one that was built in the number that it says, and in nothing else.
///
/// # Errors
/// When the agent has not been built.
pub fn release(version: &str) -> Result<String> {
    let name = format!("fleet-{version}-x86_64-linux");
    let staged = tempfile::tempdir()?;
    let root = staged.path().join(&name);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for directory in ["bin", "systemd"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("bin/fleet-agent"), agent(version)?)?;
    for file in [
        "fleet-agent.service",
        "fleet-drain.service",
        "10-fleet.conf",
        "fleet.catalog",
    ] {
        fs::copy(
            repository.join("systemd").join(file),
            root.join("systemd").join(file),
        )?;
    }
    fs::copy(
        repository.join("systemd/install.sh"),
        root.join("install.sh"),
    )?;
    let packed = files().join(format!("{name}.tar.gz"));
    let tar = run(Command::new("tar")
        .args(["--create", "--gzip", "--file"])
        .arg(&packed)
        .arg("--directory")
        .arg(staged.path())
        .arg(&name))?;
    ensure!(tar.code == 0, "tar: {}", tar.err);
    let sum = run(Command::new("sha256sum")
        .arg(format!("{name}.tar.gz"))
        .current_dir(files()))?
    .exits(0);
    fs::write(files().join(format!("{name}.tar.gz.sha256")), sum.out)?;
    Ok(name)
}

fn files() -> PathBuf {
    target().join("dist")
}

fn agent(version: &str) -> Result<Vec<u8>> {
    let mut agent = fs::read(program("fleet-agent"))?;
    ensure!(
        version.len() == VERSION.len(),
        "another number of the same length"
    );
    let places: Vec<usize> = agent
        .windows(VERSION.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == VERSION.as_bytes())
        .map(|(at, _)| at)
        .collect();
    places.first().context("its version in the binary")?;
    for at in places {
        agent[at..at + VERSION.len()].copy_from_slice(version.as_bytes());
    }
    Ok(agent)
}
