//! Where a sandbox keeps what outlives a command: one directory per sandbox under
//! /run/fleet-sandbox, so that a reboot forgets it, and one mark on everything that is its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::daemon::Machines;

const ROOT: &str = "/run/fleet-sandbox";

/// Docker label, its value the sandbox's name, on every container, network, volume and image.
pub(crate) const LABEL: &str = "fleet-sandbox";

/// Environment variable of every process of a sandbox, its value the sandbox's name. `down` finds
/// them by it, also when the daemon died without a word.
pub(crate) const PROCESS_MARK: &str = "FLEET_SANDBOX_OWNS";

/// The files of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    directory: PathBuf,
}

/// What the daemon leaves for the other commands once it serves.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Process id of the daemon.
    pub(crate) pid: u32,
    /// Port of the gateway on 127.0.0.1.
    pub(crate) port: u16,
    /// Region the gateway signs for.
    pub(crate) region: String,
    /// The gateway as the nodes see it.
    pub(crate) node_url: String,
    pub(crate) machines: Machines,
}

impl State {
    /// The gateway as this machine sees it. 127.0.0.1, never localhost: SDKs put S3 buckets in
    /// front of a name.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Paths {
    /// The files of sandbox `name`.
    ///
    /// # Errors
    /// When the name cannot stand in Docker's names.
    pub(crate) fn of(name: &str) -> anyhow::Result<Self> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 32 || name.starts_with('-') || !name.chars().all(legal) {
            bail!(
                "sandbox name {name:?}: use 1 to 32 lower-case letters, digits and dashes, \
                 not beginning with a dash"
            );
        }
        Ok(Self {
            directory: Path::new(ROOT).join(name),
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    pub(crate) fn moto_log(&self) -> PathBuf {
        self.directory.join("moto.log")
    }

    /// A machine's own, which it has as /var/log/fleet-sandbox.
    pub(crate) fn kept(&self, instance_id: &str) -> PathBuf {
        self.directory.join("kept").join(instance_id)
    }

    /// What a machine's agent wrote, once the machine has been shut down.
    pub(crate) fn journal(&self, instance_id: &str) -> PathBuf {
        self.kept(instance_id).join("agent.json")
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    /// Makes the directory.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.directory)
            .with_context(|| format!("create {} (are you root?)", self.directory.display()))
    }

    /// Deletes the directory; whether there was one.
    pub(crate) fn remove(&self) -> anyhow::Result<bool> {
        match fs::remove_dir_all(&self.directory) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("remove {}", self.directory.display()))
            }
        }
    }

    /// Says that the sandbox serves.
    pub(crate) fn write_state(&self, state: &State) -> anyhow::Result<()> {
        let path = self.state();
        fs::write(&path, serde_json::to_vec_pretty(state)?)
            .with_context(|| format!("write {}", path.display()))
    }

    /// What the daemon has left; `None` if the sandbox has never served.
    pub(crate) fn read_state(&self) -> anyhow::Result<Option<State>> {
        let path = self.state();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("read {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_a_path_or_a_label_are_refused() {
        for name in ["", "../x", "Default", "-x", "a b", &"x".repeat(33)] {
            assert!(Paths::of(name).is_err(), "{name:?}");
        }
        assert_eq!(
            Paths::of("ci-1").unwrap().directory(),
            Path::new("/run/fleet-sandbox/ci-1")
        );
    }
}
